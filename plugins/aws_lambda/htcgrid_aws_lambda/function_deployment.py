"""Setting a function up on AWS Lambda, changing it, looking at it and taking it away.

`deploy` does only what differs from what the config asks for, so it may be run again and continues where an earlier run
broke off.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError
from htcgrid.spi import Function, Rejected, Unavailable
from htcgrid_aws.aws_errors import code_of, message_of
from htcgrid_aws.session import AwsSession

from htcgrid_aws_lambda import function_code
from htcgrid_aws_lambda.desired import OWNER_TAG, Desired, desired
from htcgrid_aws_lambda.differences import differences
from htcgrid_aws_lambda.function_state import permitted
from htcgrid_aws_lambda.lambda_options import Options
from htcgrid_aws_lambda.role import Role
from htcgrid_aws_lambda.target import Target

_LATEST = "$LATEST"
_WAIT_SECONDS = 600.0
_POLL_SECONDS = 1.0


class Deployment:
    """One function in one account and region. Made for one command: it makes its clients at once."""

    def __init__(
        self,
        session: AwsSession,
        options: Options,
        function: Function,
        target: Target,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._options = options
        self._function = function
        self._name = function.function_name
        self._target = target
        self._pause = pause
        self._session = session
        with target.translated_errors():
            self._aws = session.retrying_client("lambda")

    def deploy(self, *, dry_run: bool) -> Iterator[str]:
        """Create or update, publish, move the alias. With `dry_run` each line says what would be done."""
        with self._target.translated_errors():
            role = None if self._options.role else self._role()
            wanted = desired(self._function, self._options, role.arn if role else self._options.role)
            current = self._current()
            _require_ours(current, wanted, self._target)
            yield f"building the code of {self._name}"
            built = function_code.build(self._function, wanted)
            if built is not None and built.note:
                yield built.note
            shipment = function_code.Shipment(wanted, built, self._session.retrying_client("s3"), self._options.bucket)
            done = 0
            for line in self._steps(role, wanted, current, shipment, dry_run):
                done += 1
                yield f"would {line}" if dry_run else line
            if not done:
                yield f"{self._target.who} in {self._target.where} is up to date; nothing to do"

    def undeploy(self) -> Iterator[str]:
        """Remove the function with its versions and aliases, then what was made for it, where it is marked as ours."""
        with self._target.translated_errors():
            current = self._current()
            if current is None:
                yield f"function {self._name} does not exist in {self._target.where}"
            else:
                _require_owner(current, self._target)
                self._aws.delete_function(FunctionName=self._name)
                yield f"deleted function {self._name} with its versions and aliases"
            if not self._options.role:
                yield from self._role().remove()
            if self._options.bucket:
                yield from self._remove_zips()

    def scale(self, size: int) -> Iterator[str]:
        """Reserve `size` concurrent executions."""
        with self._target.translated_errors():
            self._aws.put_function_concurrency(FunctionName=self._name, ReservedConcurrentExecutions=size)
        yield f"{self._name} may have {size} concurrent executions, which are reserved for it"

    def status(self) -> Mapping[str, str]:
        """The state of the function, in AWS's words. What the caller may not look up is left out."""
        with self._target.translated_errors():
            current = self._current()
            if current is None:
                return {"function": self._name, "region": self._target.region, "state": "the function does not exist"}
            found = current["Configuration"]
            reserved = current.get("Concurrency", {}).get("ReservedConcurrentExecutions")
            account = permitted(self._aws.get_account_settings) or {}
            alias = self._alias()
        limit = account.get("AccountLimit", {}).get("ConcurrentExecutions")
        described = {
            "function": found["FunctionArn"],
            "region": self._target.region,
            "state": _with_reason(found, "State"),
            "last update": _with_reason(found, "LastUpdateStatus"),
            "modified": found.get("LastModified"),
            "runtime": found.get("Runtime") or "container image",
            "architecture": ", ".join(found.get("Architectures", [])),
            "memory": f"{found['MemorySize']} MB",
            "timeout": f"{found['Timeout']} s",
            "code": found.get("CodeSha256"),
            "alias": f"{self._options.qualifier} -> version {alias}" if alias else None,
            "reserved concurrency": str(reserved) if reserved is not None else None,
            "account's concurrency": str(limit) if limit is not None else None,
        }
        return {name: str(value) for name, value in described.items() if value}

    def _steps(
        self, role: Role | None, wanted: Desired, current: Any, shipment: function_code.Shipment, dry_run: bool
    ) -> Iterator[str]:
        """Each line names a step; it is taken, if at all, when the next line is asked for."""
        missing = role.missing() if role else []
        yield from missing
        if role and missing and not dry_run:
            role.make(wanted.tags)
        if current is None:
            yield f"create function {self._name}: {shipment.describe()}"
            if not dry_run:
                yield from self._create(wanted, shipment)
            changed = True
        else:
            changed = yield from self._update(wanted, current, shipment, dry_run)
        yield from self._reserve(current, dry_run)
        yield from self._publish(wanted, dry_run, changed=changed)

    def _create(self, wanted: Desired, shipment: function_code.Shipment) -> Iterator[str]:
        arguments = {
            "FunctionName": self._name,
            "PackageType": wanted.package,
            "Code": shipment.send(),
            "Architectures": [wanted.architecture],
            "Tags": dict(wanted.tags),
            **wanted.settings,
        }
        for _ in range(30):
            try:
                self._aws.create_function(**arguments)
                break
            except ClientError as error:
                if "cannot be assumed by Lambda" not in message_of(error):
                    raise
                yield "waiting until AWS Lambda can use the role"
                self._pause(_POLL_SECONDS)
        else:
            raise Rejected(
                f"AWS Lambda cannot assume the role {wanted.settings['Role']}. "
                "Its trust policy must allow sts:AssumeRole to lambda.amazonaws.com."
            )
        yield from self._wait_until_ready()

    def _update(self, wanted: Desired, current: Any, shipment: function_code.Shipment, dry_run: bool) -> Any:
        """Yields lines; returns whether the code or a setting changed."""
        found = current["Configuration"]
        changes = differences(wanted, found)
        if changes:
            yield f"change the settings of {self._name}: {'; '.join(changes)}"
            if not dry_run:
                self._aws.update_function_configuration(FunctionName=self._name, **wanted.settings)
                yield from self._wait_until_ready()
        moved = found.get("Architectures", ["x86_64"]) != [wanted.architecture]
        new_code = moved or not shipment.same_as(current)
        if new_code:
            yield f"change the code of {self._name}: {shipment.describe()}, {wanted.architecture}"
            if not dry_run:
                self._aws.update_function_code(
                    FunctionName=self._name, Architectures=[wanted.architecture], **shipment.send()
                )
                yield from self._wait_until_ready()
        yield from self._tag(found["FunctionArn"], wanted.tags, current.get("Tags", {}), dry_run)
        return bool(changes) or new_code

    def _tag(self, arn: str, wanted: Mapping[str, str], found: Mapping[str, str], dry_run: bool) -> Iterator[str]:
        gone = sorted(name for name in found if name not in wanted and not name.startswith("aws:"))
        changed = {name: value for name, value in wanted.items() if found.get(name) != value}
        if not gone and not changed:
            return
        yield f"change the tags of {self._name}: {', '.join([*changed, *gone])}"
        if dry_run:
            return
        if changed:
            self._aws.tag_resource(Resource=arn, Tags=changed)
        if gone:
            self._aws.untag_resource(Resource=arn, TagKeys=gone)

    def _reserve(self, current: Any, dry_run: bool) -> Iterator[str]:
        wanted = self._options.reserved_concurrency
        found = (current or {}).get("Concurrency", {}).get("ReservedConcurrentExecutions")
        if wanted is None or wanted == found:
            return
        yield f"reserve {wanted} concurrent executions for {self._name}"
        if not dry_run:
            self._aws.put_function_concurrency(FunctionName=self._name, ReservedConcurrentExecutions=wanted)

    def _publish(self, wanted: Desired, dry_run: bool, *, changed: bool) -> Iterator[str]:
        alias = self._options.qualifier
        if alias in {"", _LATEST}:
            return
        before = None if changed and dry_run else self._alias()
        if not changed and before is not None and self._is_published(before, wanted):
            return
        yield f"publish a version of {self._name} and move the alias {alias} to it"
        if dry_run:
            return
        version = self._aws.publish_version(FunctionName=self._name)["Version"]
        yield from self._wait_until_ready(version)
        if before is None:
            self._aws.create_alias(FunctionName=self._name, Name=alias, FunctionVersion=version)
        elif before != version:
            self._aws.update_alias(FunctionName=self._name, Name=alias, FunctionVersion=version)
        yield f"{self._name}:{alias} is version {version}"

    def _is_published(self, version: str, wanted: Desired) -> bool:
        """Whether the alias has what $LATEST has: an earlier deploy may have ended between the two."""
        published = self._aws.get_function_configuration(FunctionName=self._name, Qualifier=version)
        latest = self._aws.get_function_configuration(FunctionName=self._name)
        return published.get("CodeSha256") == latest.get("CodeSha256") and not differences(wanted, published)

    def _wait_until_ready(self, version: str = _LATEST) -> Iterator[str]:
        """Wait until AWS has done what it was asked; raises with its reason where it could not."""
        last = ""
        for _ in range(int(_WAIT_SECONDS / _POLL_SECONDS)):
            found = self._aws.get_function_configuration(FunctionName=self._name, Qualifier=version)
            state, update = found.get("State", "Active"), found.get("LastUpdateStatus", "Successful")
            if state == "Failed" or update == "Failed":
                reason = found.get("StateReason") or found.get("LastUpdateStatusReason") or "no reason given"
                raise Rejected(f"AWS Lambda could not prepare {self._name}:{version}: {reason}")
            if state in {"Active", "Inactive"} and update == "Successful":
                return
            line = f"waiting for {self._name}:{version}: {state}, update {update}"
            if line != last:
                yield line
                last = line
            self._pause(_POLL_SECONDS)
        raise Unavailable(
            f"{self._name}:{version} is not ready after {_WAIT_SECONDS:.0f} s. AWS continues; `htcgrid status` "
            "shows its state, and `htcgrid deploy` may be run again."
        )

    def _current(self) -> Any:
        try:
            return self._aws.get_function(FunctionName=self._name)
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return None
            raise

    def _alias(self) -> str | None:
        """The version that the alias stands for."""
        if self._options.qualifier in {"", _LATEST} or self._options.qualifier.isdigit():
            return None
        try:
            found = self._aws.get_alias(FunctionName=self._name, Name=self._options.qualifier)
        except ClientError as error:
            if code_of(error) == "ResourceNotFoundException":
                return None
            raise
        return str(found["FunctionVersion"])

    def _role(self) -> Role:
        identity = self._session.retrying_client("sts").get_caller_identity()
        iam, logs = self._session.retrying_client("iam"), self._session.retrying_client("logs")
        return Role(iam, logs, identity, self._target.region, self._name)

    def _remove_zips(self) -> Iterator[str]:
        s3, bucket = self._session.retrying_client("s3"), self._options.bucket
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=function_code.prefix(self._name))
        for page in pages:
            for item in page.get("Contents", []):
                s3.delete_object(Bucket=bucket, Key=item["Key"])
                yield f"deleted s3://{bucket}/{item['Key']}"


def _require_ours(current: Any, wanted: Desired, target: Target) -> None:
    if current is None:
        return
    _require_owner(current, target)
    package = current["Configuration"].get("PackageType", "Zip")
    if package != wanted.package:
        raise Rejected(
            f"{target.function} is a function of package type {package}, which AWS cannot turn into {wanted.package}. "
            "Run `htcgrid undeploy` first, or choose another [function] name."
        )


def _require_owner(current: Any, target: Target) -> None:
    if OWNER_TAG not in current.get("Tags", {}):
        raise Rejected(
            f"The function {target.function} in {target.where} was not made by htcgrid: it has no tag {OWNER_TAG}. "
            f"Choose another [function] name; or, to hand it over to htcgrid, tag it {OWNER_TAG}={target.function}."
        )


def _with_reason(found: Mapping[str, Any], key: str) -> str:
    reason = found.get(f"{key}Reason")
    return f"{found.get(key, '')} ({reason})" if reason else str(found.get(key, ""))

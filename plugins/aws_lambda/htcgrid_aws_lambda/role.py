"""The execution role that `deploy` makes: it may write to the function's own log group, and nothing else."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from botocore.exceptions import ClientError
from htcgrid.spi import Rejected
from htcgrid_aws.aws_errors import code_of

from htcgrid_aws_lambda.desired import OWNER_TAG

_POLICY = "write-own-logs"
_LONGEST_IN_ROLE = 64 - len("htcgrid-")
_DIGEST = 8
_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


def role_name_of(function: str) -> str:
    """The name of the role that is made for a function: of 64 characters at most, and of no other function."""
    if len(function) <= _LONGEST_IN_ROLE:
        return f"htcgrid-{function}"
    digest = hashlib.sha256(function.encode()).hexdigest()[:_DIGEST]
    return f"htcgrid-{function[: _LONGEST_IN_ROLE - _DIGEST - 1]}-{digest}"


def log_group_of(function: str) -> str:
    """The log group that AWS Lambda writes a function's logs into."""
    return f"/aws/lambda/{function}"


class Role:
    """One role and one log group for one function, in the account and region of the clients given."""

    def __init__(self, iam: Any, logs: Any, identity: Mapping[str, str], region: str, function: str) -> None:
        self._iam = iam
        self._logs = logs
        self._function = function
        partition = identity["Arn"].split(":")[1]
        account = identity["Account"]
        self.name = role_name_of(function)
        self.arn = f"arn:{partition}:iam::{account}:role/{self.name}"
        self.log_group = log_group_of(function)
        self._log_arn = f"arn:{partition}:logs:{region}:{account}:log-group:{self.log_group}"

    @property
    def policy(self) -> dict[str, Any]:
        """The log group is made by `deploy`, so that the function needs no right to make one."""
        actions = ["logs:CreateLogStream", "logs:PutLogEvents"]
        statement = {"Effect": "Allow", "Action": actions, "Resource": f"{self._log_arn}:*"}
        return {"Version": "2012-10-17", "Statement": [statement]}

    def exists(self) -> bool:
        """Whether it exists. Raises `Rejected` where a role of that name is not ours."""
        try:
            found = self._iam.get_role(RoleName=self.name)["Role"]
        except ClientError as error:
            if code_of(error) in {"NoSuchEntity", "NoSuchEntityException"}:
                return False
            raise
        if self._is_ours(found):
            return True
        raise Rejected(
            f"The role {self.name} exists and was not made by htcgrid for this function: its tag {OWNER_TAG} is missing "
            "or names another. Name a role of your own as `role`, or choose another [function] name."
        )

    def missing(self) -> list[str]:
        """What `make` would do, a line each."""
        lines = []
        if not self.exists():
            lines.append(f"create role {self.name}, which may write to {self.log_group} only")
        elif self._policy_found() != self.policy:
            lines.append(f"set the policy of role {self.name}")
        if self._log_group_found() is None:
            lines.append(f"create log group {self.log_group}")
        return lines

    def make(self, tags: Mapping[str, str]) -> None:
        """Create what is missing and set the policy."""
        if self._log_group_found() is None:
            self._logs.create_log_group(logGroupName=self.log_group, tags=dict(tags))
        if not self.exists():
            self._iam.create_role(
                RoleName=self.name,
                AssumeRolePolicyDocument=json.dumps(_TRUST),
                Description=f"Execution role of the AWS Lambda function {self._function}, made by htcgrid",
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
        self._iam.put_role_policy(RoleName=self.name, PolicyName=_POLICY, PolicyDocument=json.dumps(self.policy))

    def remove(self) -> Iterator[str]:
        """Delete the role and the log group where they are ours."""
        if self._exists_and_is_ours():
            try:
                self._iam.delete_role_policy(RoleName=self.name, PolicyName=_POLICY)
            except ClientError as error:
                if code_of(error) not in {"NoSuchEntity", "NoSuchEntityException"}:
                    raise
            self._iam.delete_role(RoleName=self.name)
            yield f"deleted role {self.name}"
        group = self._log_group_found()
        if group is not None and self._log_tags(group).get(OWNER_TAG) == self._function:
            self._logs.delete_log_group(logGroupName=self.log_group)
            yield f"deleted log group {self.log_group}"

    def _exists_and_is_ours(self) -> bool:
        try:
            return self.exists()
        except Rejected:
            return False

    def _is_ours(self, role: Mapping[str, Any]) -> bool:
        return {"Key": OWNER_TAG, "Value": self._function} in role.get("Tags", [])

    def _policy_found(self) -> Any:
        try:
            found = self._iam.get_role_policy(RoleName=self.name, PolicyName=_POLICY)["PolicyDocument"]
        except ClientError as error:
            if code_of(error) in {"NoSuchEntity", "NoSuchEntityException"}:
                return None
            raise
        return found

    def _log_group_found(self) -> Mapping[str, Any] | None:
        groups = self._logs.describe_log_groups(logGroupNamePrefix=self.log_group)["logGroups"]
        return next((group for group in groups if group["logGroupName"] == self.log_group), None)

    def _log_tags(self, group: Mapping[str, Any]) -> Mapping[str, str]:
        arn = group["arn"].removesuffix(":*")
        return dict(self._logs.list_tags_for_resource(resourceArn=arn)["tags"])

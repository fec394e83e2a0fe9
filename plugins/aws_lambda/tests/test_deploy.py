"""deploy, status, scale and undeploy against moto's Lambda, IAM, Logs, S3 and STS over HTTP."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from htcgrid.spi import Deployable, Rejected

from htcgrid_aws_lambda import archive
from htcgrid_aws_lambda.function_deployment import Deployment
from htcgrid_aws_lambda.invoker import AwsLambdaInvoker
from htcgrid_aws_lambda.role import role_name_of

Maker = Callable[..., AwsLambdaInvoker]
REGION = "eu-west-1"


def test_the_plane_is_deployable(plane: Maker) -> None:
    assert isinstance(plane(), Deployable)


def test_deploy_makes_the_function_with_all_that_the_config_says(plane: Maker, aws: Callable[[str], Any]) -> None:
    options = {"tags": {"team": "rates"}, "reserved_concurrency": 20}
    settings = {"timeout": 60, "memory": 1024, "environment": {"MODEL": "heston"}, "ephemeral_storage": 1024}
    list(plane(options, **settings, architecture="arm64", runtime="python3.12").deploy({}))
    found = aws("lambda").get_function(FunctionName="pricing")
    configuration = found["Configuration"]
    assert (configuration["Timeout"], configuration["MemorySize"], configuration["Runtime"]) == (60, 1024, "python3.12")
    assert configuration["Environment"] == {"Variables": {"MODEL": "heston"}}
    assert configuration["EphemeralStorage"] == {"Size": 1024}
    assert configuration["Architectures"] == ["arm64"]
    assert found["Tags"] == {"team": "rates", "htcgrid:function": "pricing"}
    assert found["Concurrency"] == {"ReservedConcurrentExecutions": 20}
    alias = aws("lambda").get_alias(FunctionName="pricing", Name="live")
    assert alias["FunctionVersion"] == "1"


def test_the_role_may_write_the_functions_own_logs_and_nothing_else(plane: Maker, aws: Callable[[str], Any]) -> None:
    list(plane().deploy({}))
    iam = aws("iam")
    assert iam.list_attached_role_policies(RoleName="htcgrid-pricing")["AttachedPolicies"] == []
    (name,) = iam.list_role_policies(RoleName="htcgrid-pricing")["PolicyNames"]
    policy = iam.get_role_policy(RoleName="htcgrid-pricing", PolicyName=name)["PolicyDocument"]
    (statement,) = policy["Statement"]
    assert statement["Action"] == ["logs:CreateLogStream", "logs:PutLogEvents"]
    assert statement["Resource"] == f"arn:aws:logs:{REGION}:123456789012:log-group:/aws/lambda/pricing:*"


def test_two_functions_with_long_names_have_a_role_each() -> None:
    names = [role_name_of("a" * 56 + end) for end in ("", "1", "2")]
    assert len(set(names)) == 3
    assert max(map(len, names)) == 64


def test_a_second_deploy_has_nothing_to_do(plane: Maker) -> None:
    list(plane().deploy({}))
    lines = list(plane().deploy({}))
    assert lines[-1] == f"pricing:live in {REGION} at {plane().config.endpoint_url} is up to date; nothing to do"
    assert len(lines) == 2


def test_new_code_makes_a_new_version_and_the_alias_moves(
    plane: Maker, source: Path, aws: Callable[[str], Any]
) -> None:
    list(plane().deploy({}))
    (source / "pricing.py").write_text("def handler(event, context):\n    return 2\n")
    list(plane().deploy({}))
    assert aws("lambda").get_alias(FunctionName="pricing", Name="live")["FunctionVersion"] == "2"


def test_a_changed_setting_does_not_send_the_code_again(plane: Maker, aws: Callable[[str], Any]) -> None:
    list(plane().deploy({}))
    lines = list(plane(memory=1024).deploy({}))
    assert "change the settings of pricing: MemorySize from 512 to 1024" in lines
    assert not any("code" in line for line in lines[1:])
    assert aws("lambda").get_function_configuration(FunctionName="pricing", Qualifier="live")["MemorySize"] == 1024


def test_a_dry_run_tells_and_does_nothing(plane: Maker, aws: Callable[[str], Any]) -> None:
    lines = list(plane().deploy({}, dry_run=True))
    assert [line.split(":")[0] for line in lines[1:]] == [
        "would create role htcgrid-pricing, which may write to /aws/lambda/pricing only",
        "would create log group /aws/lambda/pricing",
        "would create function pricing",
        "would publish a version of pricing and move the alias live to it",
    ]
    assert aws("lambda").list_functions()["Functions"] == []
    assert aws("iam").list_roles()["Roles"] == []


def test_a_dry_run_of_a_change_tells_the_change_alone(plane: Maker, aws: Callable[[str], Any]) -> None:
    list(plane(environment={"KEY": "old-secret"}).deploy({}))
    lines = list(plane(environment={"KEY": "new-secret"}, timeout=60).deploy({}, dry_run=True))
    assert lines[1] == "would change the settings of pricing: Timeout from 30 to 60; Environment: KEY"
    assert "secret" not in "".join(lines)
    assert aws("lambda").get_function_configuration(FunctionName="pricing")["Timeout"] == 30


def test_a_deploy_that_broke_off_before_the_alias_goes_on_there(plane: Maker, aws: Callable[[str], Any]) -> None:
    list(plane().deploy({}))
    for line in plane(memory=1024).deploy({}):
        if line.startswith("publish"):
            break
    list(plane(memory=1024).deploy({}))
    assert aws("lambda").get_function_configuration(FunctionName="pricing", Qualifier="live")["MemorySize"] == 1024


def test_tags_that_are_gone_from_the_config_are_taken_off(plane: Maker, aws: Callable[[str], Any]) -> None:
    list(plane({"tags": {"team": "rates", "desk": "fx"}}).deploy({}))
    list(plane({"tags": {"team": "credit"}}).deploy({}))
    assert aws("lambda").get_function(FunctionName="pricing")["Tags"] == {
        "team": "credit",
        "htcgrid:function": "pricing",
    }


def test_undeploy_removes_all_that_deploy_made(plane: Maker, aws: Callable[[str], Any]) -> None:
    list(plane().deploy({}))
    assert list(plane().undeploy()) == [
        "deleted function pricing with its versions and aliases",
        "deleted role htcgrid-pricing",
        "deleted log group /aws/lambda/pricing",
    ]
    assert aws("lambda").list_functions()["Functions"] == []
    assert aws("iam").list_roles()["Roles"] == []
    assert aws("logs").describe_log_groups()["logGroups"] == []
    assert list(plane().undeploy()) == [f"function pricing does not exist in {REGION} at {plane().config.endpoint_url}"]


def foreign_function(aws: Callable[[str], Any]) -> str:
    """A function `pricing` that somebody else made."""
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = aws("iam").create_role(RoleName="theirs", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("x.py", "1")
    aws("lambda").create_function(
        FunctionName="pricing", Role=role, Runtime="python3.12", Handler="x.y", Code={"ZipFile": packed.getvalue()}
    )
    return str(role)


def test_a_function_of_somebody_else_is_neither_changed_nor_removed(plane: Maker, aws: Callable[[str], Any]) -> None:
    foreign_function(aws)
    for lines in (plane().deploy({}), plane().undeploy()):
        with pytest.raises(Rejected, match="was not made by htcgrid"):
            list(lines)
    assert aws("lambda").get_function_configuration(FunctionName="pricing")["Handler"] == "x.y"


def test_a_role_that_is_named_is_used_and_none_is_made(plane: Maker, aws: Callable[[str], Any]) -> None:
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = aws("iam").create_role(RoleName="mine", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    list(plane({"role": role}).deploy({}))
    assert aws("lambda").get_function_configuration(FunctionName="pricing")["Role"] == role
    assert [found["RoleName"] for found in aws("iam").list_roles()["Roles"]] == ["mine"]
    list(plane({"role": role}).undeploy())
    assert [found["RoleName"] for found in aws("iam").list_roles()["Roles"]] == ["mine"]


def test_an_image_is_deployed_by_its_name_with_the_handler_as_its_command(
    plane: Maker, aws: Callable[[str], Any]
) -> None:
    image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/pricing@sha256:" + "0" * 64
    list(plane({"image": image}).deploy({}))
    found = aws("lambda").get_function(FunctionName="pricing")
    assert found["Configuration"]["PackageType"] == "Image"
    assert found["Code"]["ImageUri"] == image


def test_a_zip_too_large_for_the_call_goes_through_the_bucket_and_undeploy_empties_it(
    plane: Maker, aws: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "DIRECT_BYTES", 10)
    with pytest.raises(Rejected, match="Name an S3 `bucket`"):
        list(plane().deploy({}))
    aws("s3").create_bucket(Bucket="zips", CreateBucketConfiguration={"LocationConstraint": REGION})
    list(plane({"bucket": "zips"}).deploy({}))
    assert aws("s3").list_objects_v2(Bucket="zips")["KeyCount"] == 1
    assert list(plane({"bucket": "zips"}).deploy({}))[-1].endswith("nothing to do")
    list(plane({"bucket": "zips"}).undeploy())
    assert aws("s3").list_objects_v2(Bucket="zips")["KeyCount"] == 0


def test_status_tells_what_stands(plane: Maker) -> None:
    assert plane().status()["state"] == "the function does not exist"
    list(plane(memory=256).deploy({}))
    status = plane().status()
    assert (status["state"], status["memory"], status["timeout"]) == ("Active", "256 MB", "30 s")
    assert status["alias"] == "live -> version 1"


def test_scale_reserves_concurrency_and_deploy_leaves_it(plane: Maker) -> None:
    list(plane().deploy({}))
    assert list(plane().scale(7)) == ["pricing may have 7 concurrent executions, which are reserved for it"]
    list(plane().deploy({}))
    assert plane().status()["reserved concurrency"] == "7"


class Slow:
    """A Lambda client whose function takes a while: each look at it shows the next state."""

    def __init__(self, real: Any, states: list[dict[str, str]]) -> None:
        self._real = real
        self._states = states

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def get_function_configuration(self, **arguments: Any) -> Any:
        found = self._real.get_function_configuration(**arguments)
        return found | (self._states.pop(0) if self._states else {})


def deploy_slowly(plane: AwsLambdaInvoker, states: list[dict[str, str]]) -> list[str]:
    clients = plane._connect()
    deployment = Deployment(clients, plane.config, plane.function, plane._target, pause=lambda _: None)
    deployment._aws = Slow(deployment._aws, states)
    return list(deployment.deploy(dry_run=False))


def test_deploy_waits_until_the_function_is_active_and_says_so_once(plane: Maker) -> None:
    pending = {"State": "Pending", "LastUpdateStatus": "Successful"}
    lines = deploy_slowly(plane(), [pending, pending, pending])
    assert lines.count("waiting for pricing:$LATEST: Pending, update Successful") == 1
    assert lines[-1] == "pricing:live is version 1"


def test_a_function_that_cannot_be_prepared_is_rejected_with_its_reason(plane: Maker) -> None:
    failed = {"State": "Failed", "StateReason": "The image is gone"}
    with pytest.raises(Rejected, match=r"could not prepare pricing:\$LATEST: The image is gone"):
        deploy_slowly(plane(), [failed])

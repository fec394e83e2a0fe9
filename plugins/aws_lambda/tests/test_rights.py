"""`permissions` allows what the plane calls, and nothing that it never calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aws_rights import missing, recorded, unused
from htcgrid.cli.main import status_of
from htcgrid.spi import Function, Lease, Task

from htcgrid_aws_lambda import archive
from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

if TYPE_CHECKING:
    from pathlib import Path

    import pytest
    from conftest import Maker
    from fake_lambda import FakeLambda

LAYER = "arn:aws:lambda:eu-west-1:123456789012:layer:numbers:1"


def test_an_agent_may_invoke_and_look_at_its_function_and_no_more(fake: FakeLambda) -> None:
    config = AwsLambdaInvoker.Config(region="eu-west-1", endpoint_url=fake.url)
    with recorded() as called, AwsLambdaInvoker(config, Function(handler="pricing.handler")) as plane:
        list(plane.invoke([Lease(Task("1", b'{"answer": 1}'))], 30))
    policy: Any = plane.permissions()["agent"]
    assert missing(called, policy) == set()
    assert unused(called, policy) == set()


def test_who_deploys_may_do_what_each_step_calls_and_no_more(
    plane: Maker, source: Path, aws: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "DIRECT_BYTES", 10)
    aws("s3").create_bucket(Bucket="zips", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    zipped = {"ZipFile": archive.build([source], {}).data}
    aws("lambda").publish_layer_version(LayerName="numbers", Content=zipped)
    options = {"bucket": "zips", "layers": (LAYER,)}
    with recorded() as called:
        list(plane({**options, "tags": {"team": "rates"}, "reserved_concurrency": 5}).deploy({}))
        (source / "pricing.py").write_text("def handler(event, context):\n    return 2\n")
        list(plane({**options, "tags": {"desk": "fx"}}, memory=1024).deploy({}))
        list(plane(options).scale(7))
        plane(options).status()
        list(plane(options).undeploy())
    policy: Any = plane(options).permissions()["deployer"]
    assert missing(called, policy) == set()
    assert unused(called, policy) == set()


def test_a_role_of_the_users_own_may_be_passed_to_lambda_and_nothing_is_done_with_roles_besides(
    plane: Maker, aws: Any
) -> None:
    aws("iam").create_role(RoleName="mine", AssumeRolePolicyDocument="{}")
    options = {"role": "arn:aws:iam::123456789012:role/mine"}
    with recorded() as called:
        list(plane(options).deploy({}))
    policy: Any = plane(options).permissions()["deployer"]
    assert missing(called, policy) == set()
    of_roles = [each for each in policy["Statement"] if any(action.startswith("iam:") for action in each["Action"])]
    assert [(each["Action"], each["Resource"]) for each in of_roles] == [(["iam:PassRole"], [options["role"]])]
    assert of_roles[0]["Condition"] == {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}


def test_the_image_of_a_function_is_a_repository_that_may_be_used(plane: Maker) -> None:
    image = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/desk/pricing@sha256:" + "0" * 64
    policy: Any = plane({"image": image}).permissions()["deployer"]
    (used,) = [each for each in policy["Statement"] if each["Sid"] == "UseImage"]
    assert used["Resource"] == ["arn:aws:ecr:eu-west-1:123456789012:repository/desk/pricing"]


def test_policies_of_china_are_of_its_partition(source: Path) -> None:
    config = AwsLambdaInvoker.Config(region="cn-north-1")
    policies: Any = AwsLambdaInvoker(config, Function(handler="pricing.handler", code=source)).permissions()
    named = {arn for policy in policies.values() for each in policy["Statement"] for arn in each["Resource"]}
    assert {arn.split(":")[1] for arn in named - {"*"}} == {"aws-cn"}


def test_a_role_for_handlers_is_assumed_for_no_function_of_the_service_so_no_right_to_it_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "htcgrid.toml").write_text(
        'plane = "cloud"\n[function]\nhandler = "pricing.handler"\ncredentials = "role:arn:aws:iam::123456789012:role/desk"\n'
        '[planes.cloud]\nplugin = "aws_lambda"\nregion = "eu-west-1"\n[planes.local]\nplugin = "process"\n'
    )
    printed = {}
    for plane in ("cloud", "local"):
        assert status_of(["permissions", "--plane", plane]) == 0
        printed[plane] = capsys.readouterr().out
    assert "sts:AssumeRole" not in printed["cloud"]
    assert "arn:aws:lambda:eu-west-1:*:function:pricing:live" in printed["cloud"]
    assert "sts:AssumeRole" in printed["local"]

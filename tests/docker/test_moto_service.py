"""The `aws_lambda` plane on moto with an engine behind it: create, publish, alias, invoke, as on the service.

moto runs handlers in containers of this engine, but knows neither timeouts nor log tails.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import boto3
import docker
import pytest
from docker.errors import ImageNotFound
from docker_parts import until
from htcgrid_aws_lambda.invoker import AwsLambdaInvoker
from ports import free_port

from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

RUNS_HANDLERS = Path(__file__).with_name("moto_image")
ACCESS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "eu-west-1"}
HANDLER = """
def handler(event, context):
    if event["do"] == "raise":
        raise ValueError("no")
    return {"n": event["n"], "edition": EDITION}
"""


@pytest.fixture
def images(engine: docker.APIClient, python_image: str, tmp_path: Path) -> Iterator[str]:
    """What moto runs functions in; and a `busybox`, with which it brings the code, where there is none."""
    name = f"htcgrid-test-moto:{uuid4().hex[:8]}"
    built = [name]
    list(engine.build(str(RUNS_HANDLERS), tag=name, buildargs={"BASE": python_image}, rm=True))
    try:
        engine.inspect_image("busybox")
    except ImageNotFound:
        (tmp_path / "Dockerfile").write_text(f"FROM {python_image}\nENTRYPOINT []\n")
        list(engine.build(str(tmp_path), tag="busybox", rm=True))
        built.append("busybox")
    yield name
    for image in built:
        engine.remove_image(image, force=True)


@pytest.fixture
def moto(images: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for key, value in ACCESS.items():
        monkeypatch.setenv(key, value)
    port = free_port()
    # In a process of its own: moto leaves its connections to the engine open.
    server = subprocess.Popen(
        [Path(sys.executable).with_name("moto_server"), "-p", str(port)],
        env=os.environ | {"MOTO_DOCKER_LAMBDA_IMAGE": images},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until(lambda: _answers(port), 60, "moto answers")
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def plane(folder: Path, endpoint: str, edition: int) -> AwsLambdaInvoker:
    (folder / "told.py").write_text(f"EDITION = {edition}\n{HANDLER}")
    function = Function(name="htcgrid-test", handler="told.handler", code=folder, timeout=30, memory=128)
    return AwsLambdaInvoker(AwsLambdaInvoker.Config(region="eu-west-1", endpoint_url=endpoint), function)


def run(plane: AwsLambdaInvoker, **event: object) -> Outcome:
    (outcome,) = plane.invoke([Lease(Task("t-1", json.dumps(event).encode()))], 30.0)
    assert isinstance(outcome, Outcome)
    return outcome


def test_a_function_is_created_published_aliased_and_invoked_and_removed(moto: str, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    first = plane(tmp_path / "code", moto, edition=1)
    list(first.deploy({}))
    with first:
        assert json.loads(run(first, do="answer", n=5).payload) == {"n": 5, "edition": 1}
        failed = run(first, do="raise")
        assert failed.failure is FailureKind.HANDLER_ERROR
        assert json.loads(failed.payload)["errorType"] == "ValueError"

    service = boto3.client("lambda", endpoint_url=moto, region_name="eu-west-1")
    (before,) = service.list_aliases(FunctionName="htcgrid-test")["Aliases"]
    second = plane(tmp_path / "code", moto, edition=2)
    list(second.deploy({}))
    (after,) = service.list_aliases(FunctionName="htcgrid-test")["Aliases"]
    assert (before["Name"], int(before["FunctionVersion"]) + 1) == (after["Name"], int(after["FunctionVersion"]))
    with second:
        assert json.loads(run(second, do="answer", n=6).payload) == {"n": 6, "edition": 2}

    list(second.undeploy())
    assert service.list_functions()["Functions"] == []

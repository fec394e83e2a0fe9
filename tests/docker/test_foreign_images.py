"""Images whose own entry is an emulator of another line, as lambci's were: run by their bootstrap."""

import io
import json
from collections.abc import Iterator

import docker
import pytest
from htcgrid_contracts import contract_function
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.spi import Function, Lease, Outcome, Rejected, Task

NAME = "local/htcgrid-test-foreign:1"
DOCKERFILE = """
FROM {base}
RUN mkdir -p /var/runtime && printf '#!/bin/sh\\nexec python3 -m awslambdaric "$_HANDLER"\\n' > /var/runtime/bootstrap
RUN chmod 755 /var/runtime/bootstrap && printf 'def handler(event, context):\\n    return "of the image"\\n' > own.py
ENTRYPOINT ["sh", "-c", "echo another emulator listens; exec sleep 60"]
CMD ["own.handler"]
"""


@pytest.fixture(scope="module")
def image(engine: docker.APIClient, python_image: str) -> Iterator[str]:
    dockerfile = io.BytesIO(DOCKERFILE.format(base=python_image).encode())
    for event in engine.build(fileobj=dockerfile, tag=NAME, rm=True, decode=True):
        assert "error" not in event, event
    yield NAME
    engine.remove_image(NAME, force=True)


def invoke(function: Function, event: object, **options: object) -> bytes:
    with LocalDockerInvoker(Options.model_validate({"workers": 1, **options}), function) as opened:
        (outcome,) = opened.invoke([Lease(Task("t", json.dumps(event).encode()))], 20)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is None, outcome
    return outcome.payload


def test_the_bootstrap_runs_the_code_folder(image: str) -> None:
    echo = {"do": "echo", "value": "mine"}
    assert invoke(contract_function(), echo, base_image=image, entrypoint=["/var/runtime/bootstrap"]) == b'"mine"'


def test_the_bootstrap_runs_the_handler_of_the_image(image: str) -> None:
    function = Function(handler="own.handler", memory=128)
    assert invoke(function, {}, image=image, entrypoint=["/var/runtime/bootstrap"]) == b'"of the image"'


def test_the_command_of_the_image_follows_the_entry_point_of_the_config(image: str) -> None:
    client = ["python3", "-m", "awslambdaric"]
    assert invoke(Function(memory=128), {}, image=image, entrypoint=client) == b'"of the image"'


def test_the_command_of_the_config_follows_it(image: str) -> None:
    shell = {"entrypoint": ["sh", "-c"], "command": ["exec python3 -m awslambdaric own.handler"]}
    assert invoke(Function(memory=128), {}, image=image, **shell) == b'"of the image"'


def test_left_to_its_own_entry_it_says_what_to_set(image: str) -> None:
    """Its emulator never calls; the function's time is short, so that this is seen soon."""
    function = contract_function(timeout=1)
    with (
        LocalDockerInvoker(Options(base_image=image, workers=1), function) as opened,
        pytest.raises(
            Rejected, match=r"never called the Runtime API(.|\n)*set `entrypoint`(.|\n)*another emulator listens"
        ),
    ):
        list(opened.invoke([Lease(Task("t", b"{}"))], 1))

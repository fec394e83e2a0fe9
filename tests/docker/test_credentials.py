"""Where a container's credentials appear, and where they do not."""

from __future__ import annotations

import functools
import io
import json
import tarfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import docker
import pytest
from docker.errors import APIError
from docker_parts import is_rootless
from htcgrid_contracts import contract_function
from htcgrid_contracts.invoker_identity import IssuedCredentials
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options
from process_secrets import processes_beside, showing

from htcgrid.spi import Lease, Outcome, Rejected, Task, Unavailable

NAME = f"docker{uuid.uuid4().hex}"  # the conformance kit may run beside these tests
SECRET = f"of+{NAME}-"


def plane(**options: object) -> LocalDockerInvoker:
    function = contract_function().model_copy(update={"credentials": "agent"})
    invoker = LocalDockerInvoker(Options.model_validate({"workers": 1, **options}), function)
    invoker.credentials = IssuedCredentials(3600, NAME)
    return invoker


def identified(opened: LocalDockerInvoker) -> object:
    [outcome] = opened.invoke([Lease(Task("t", b'{"do": "identify"}'))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is None, outcome
    return json.loads(outcome.payload)["keys"][0]


@pytest.mark.parametrize("transport", ["http", "rie"])
def test_nothing_but_the_handlers_own_process_has_them(
    engine: docker.APIClient, python_image: str, transport: str
) -> None:
    # A rootless engine has no network that leads to this machine alone.
    network = "bridge" if transport == "rie" and is_rootless(engine) else ""
    with plane(base_image=python_image, transport=transport, network=network) as opened:
        assert identified(opened) == f"{NAME}-1"
        inside: set[int] = set()
        for container in [each["Id"] for each in engine.containers()]:
            with suppress(APIError):  # one of an earlier test, which is being removed
                if _is_ours(engine, container):
                    assert SECRET not in json.dumps(engine.inspect_container(container))
                    assert SECRET not in engine.logs(container).decode()
                    inside |= processes_beside(engine.inspect_container(container)["State"]["Pid"])
        assert inside
        assert showing(SECRET.encode(), "environ") - inside == set()
        assert showing(SECRET.encode(), "cmdline") == set()


def _is_ours(engine: docker.APIClient, container: str) -> bool:
    """Of this process: another's may run beside it."""
    labels = engine.inspect_container(container)["Config"]["Labels"]
    return f"/{_pid()}/" in labels.get("io.htcgrid.owner", "")


def _pid() -> str:
    return Path("/proc/self").readlink().name


def test_a_container_that_reads_its_input_finds_nothing_there(python_image: str, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text("import sys\n\ndef handler(event, context):\n    return sys.stdin.read()\n")
    function = contract_function("work.handler", code=tmp_path)
    tmp_path.chmod(0o755)
    invoker = LocalDockerInvoker(Options(base_image=python_image, workers=1), function)
    invoker.credentials = IssuedCredentials(3600, NAME)
    with invoker as opened:
        [outcome] = opened.invoke([Lease(Task("t", b"1"))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.payload == b'""'


@pytest.fixture
def image_without_a_shell(engine: docker.APIClient) -> Iterator[str]:
    name = f"htcgrid-test-{uuid.uuid4().hex[:8]}:1"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    engine.import_image_from_data(packed.getvalue(), *name.split(":"), changes=['ENTRYPOINT ["/bootstrap"]'])
    yield name
    engine.remove_image(name)


def test_an_image_without_a_shell_is_told_what_it_lacks(image_without_a_shell: str) -> None:
    with plane(image=image_without_a_shell) as opened, pytest.raises((Rejected, Unavailable), match="/bin/sh"):
        identified(opened)


REACHES = """
import urllib.request

def handler(event, context):
    return urllib.request.urlopen(event, timeout=5).read().decode()
"""


def test_a_server_on_this_machine_is_reached_by_a_name(python_image: str, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(REACHES)
    (tmp_path / "answer").write_text("reached")
    tmp_path.chmod(0o755)
    pages = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("0.0.0.0", 0), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = json.dumps(f"http://host.docker.internal:{server.server_port}/answer")
        invoker = LocalDockerInvoker(
            Options(base_image=python_image, workers=1, network="bridge"),
            contract_function("work.handler", code=tmp_path),
        )
        with invoker as opened:
            [outcome] = opened.invoke([Lease(Task("t", url.encode()))], 20.0)
        server.shutdown()
    assert isinstance(outcome, Outcome)
    assert outcome.payload == b'"reached"', outcome

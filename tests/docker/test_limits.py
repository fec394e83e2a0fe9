"""What a handler may do in its container, asked of a handler that tries."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from htcgrid_contracts.common import in_threads
from htcgrid_local_docker.invoker import LocalDockerInvoker, sandbox_of
from htcgrid_local_docker.options import Options

from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

PROBE = """
import os, pathlib, signal, socket, subprocess

def handler(event, context):
    return globals()[event["do"]](**event.get("with", {}))

def who():
    status = dict(line.split(":", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return {"uid": os.getuid(), "gid": os.getgid(), **{name: status[name].strip() for name in ("CapEff", "NoNewPrivs", "Seccomp")}}

def write(path, mb):
    try:
        with open(path, "wb") as file:
            for _ in range(mb):
                file.write(bytes(1 << 20))
    except OSError as error:
        return error.strerror
    return "written"

def connect(host, port):
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError as error:
        return str(error)
    return "connected"

def start(count):
    children = []
    try:
        for _ in range(count):
            children.append(subprocess.Popen(["sleep", "5"]))
    except OSError as error:
        return len(children)
    finally:
        for child in children:
            child.kill()
            child.wait()
    return len(children)

def execute():
    path = pathlib.Path("/tmp/script")
    path.write_text("#!/bin/sh\\necho ran")
    path.chmod(0o755)
    return subprocess.check_output([path], text=True)

def variables():
    return dict(os.environ)

def ignored():
    return [name for name in ("SIGTERM", "SIGINT", "SIGHUP") if signal.getsignal(signal.Signals[name]) == signal.SIG_IGN]
"""


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Function:
    folder = tmp_path_factory.mktemp("code")
    folder.chmod(0o755)
    (folder / "probe.py").write_text(PROBE)
    return Function(handler="probe.handler", code=folder, memory=128, ephemeral_storage=16, timeout=20)


@pytest.fixture(scope="module")
def opened(function: Function, python_image: str) -> Iterator[LocalDockerInvoker]:
    with LocalDockerInvoker(Options(base_image=python_image, workers=1, pids=32), function) as opened:
        yield opened


def ask(plane: LocalDockerInvoker, do: str, **arguments: Any) -> Any:
    event = json.dumps({"do": do, "with": arguments}).encode()
    (outcome,) = plane.invoke([Lease(Task("t", event))], 20)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is None, outcome
    return json.loads(outcome.payload)


def test_it_is_not_root_and_has_no_capability_nor_can_gain_one(opened: LocalDockerInvoker) -> None:
    assert ask(opened, "who") == {
        "uid": 993,
        "gid": 990,
        "CapEff": "0000000000000000",
        "NoNewPrivs": "1",
        "Seccomp": "2",
    }


def test_it_ignores_no_signal(opened: LocalDockerInvoker) -> None:
    assert ask(opened, "ignored") == []


def test_it_writes_to_tmp_alone_and_only_so_much(opened: LocalDockerInvoker) -> None:
    assert ask(opened, "write", path="/tmp/a", mb=10) == "written"
    assert ask(opened, "write", path="/tmp/b", mb=10) == "No space left on device"
    for path in ("/a", "/var/task/a", "/var/a", "/etc/passwd"):
        assert ask(opened, "write", path=path, mb=1) in {"Read-only file system", "Permission denied"}


def test_it_runs_programs_from_tmp(function: Function, python_image: str) -> None:
    with LocalDockerInvoker(Options(base_image=python_image, workers=1), function) as opened:
        assert ask(opened, "execute") == "ran\n"


def test_it_starts_no_more_processes_than_set(limits_kept: None, opened: LocalDockerInvoker) -> None:
    assert 5 < ask(opened, "start", count=60) < 32


def test_it_reaches_no_other_machine(opened: LocalDockerInvoker) -> None:
    host, port = ask(opened, "variables")["AWS_LAMBDA_RUNTIME_API"].split(":")
    assert ask(opened, "connect", host=host, port=int(port)) == "connected"
    assert ask(opened, "connect", host="198.51.100.1", port=80) != "connected"


def test_it_reaches_no_other_container(docker_itself: None, function: Function, python_image: str) -> None:
    """Not even of its own plane: with the emulator, each has a port that is open within its network."""
    with LocalDockerInvoker(Options(base_image=python_image, workers=2, transport="rie"), function) as opened:
        in_threads([lambda: ask(opened, "execute")] * 2, 60)
        first, second = (sandbox_of(environment) for environment in filter(None, opened._places))
        assert [ask(opened, "connect", host=each.address[0], port=each.address[1]) for each in (first, second)].count(
            "connected"
        ) == 1


def test_one_container_is_not_served_on_the_port_of_another(function: Function, python_image: str) -> None:
    """On one network: the connection is hung up on, whatever it asks."""
    script = (
        "import http.client\ndef handler(event, context):\n"
        "    try:\n"
        "        connection = http.client.HTTPConnection(event['host'], event['port'], timeout=2)\n"
        "        connection.request('GET', '/2018-06-01/runtime/invocation/next')\n"
        "        return connection.getresponse().status\n"
        "    except OSError as error:\n        return type(error).__name__\n"
    )
    (function.code / "spy.py").write_text(script)
    spy = function.model_copy(update={"handler": "spy.handler"})
    with (
        LocalDockerInvoker(Options(base_image=python_image, workers=1, network="bridge"), function) as one,
        LocalDockerInvoker(Options(base_image=python_image, workers=1, network="bridge"), spy) as other,
    ):
        host, port = ask(one, "variables")["AWS_LAMBDA_RUNTIME_API"].split(":")
        (outcome,) = other.invoke([Lease(Task("t", json.dumps({"host": host, "port": int(port)}).encode()))], 20)
        assert isinstance(outcome, Outcome)
        assert json.loads(outcome.payload) != 200, outcome


def test_the_limits_are_those_of_the_function(
    limits_kept: None, engine: docker.APIClient, opened: LocalDockerInvoker
) -> None:
    ask(opened, "who")
    (mine,) = [
        each
        for each in engine.containers(filters={"label": ["io.htcgrid.function=probe"]})
        if opened._spec and opened._spec.network.name in each["NetworkSettings"]["Networks"]
    ]
    limits = engine.inspect_container(mine["Id"])["HostConfig"]
    assert limits["Memory"] == limits["MemorySwap"] == 128 << 20
    assert limits["NanoCpus"] == 1_000_000_000
    assert limits["PidsLimit"] == 32
    assert limits["ReadonlyRootfs"]


@pytest.mark.parametrize("transport", ["http", "rie"])
def test_on_a_network_of_the_users(function: Function, python_image: str, transport: str) -> None:
    """With the emulator its port is on loopback only."""
    options = Options(base_image=python_image, workers=1, network="bridge", transport=transport)
    with LocalDockerInvoker(options, function) as opened:
        assert ask(opened, "who")["uid"] == 993
        if transport == "rie":
            (sandbox,) = (sandbox_of(environment) for environment in filter(None, opened._places))
            assert sandbox.address[0] == "127.0.0.1"


def test_on_the_network_of_the_host(function: Function, python_image: str) -> None:
    with LocalDockerInvoker(Options(base_image=python_image, workers=1, network="host"), function) as opened:
        assert ask(opened, "variables")["AWS_LAMBDA_RUNTIME_API"].startswith("127.0.0.1:")


def test_a_volume_is_seen(function: Function, python_image: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    options = Options(base_image=python_image, workers=1, volumes=(f"{tmp_path}:/mnt/data:ro",))
    with LocalDockerInvoker(options, function) as opened:
        assert ask(opened, "write", path="/mnt/data/a", mb=1) == "Read-only file system"


def test_memory_of_a_program_that_the_handler_started_counts(
    limits_kept: None, function: Function, python_image: str
) -> None:
    (function.code / "eater.py").write_text(
        "import subprocess, sys\ndef handler(event, context):\n"
        "    subprocess.run([sys.executable, '-c', 'x = bytearray(b\"x\") * (300 << 20)'], check=True)\n"
    )
    eater = function.model_copy(update={"handler": "eater.handler"})
    with LocalDockerInvoker(Options(base_image=python_image, workers=1), eater) as opened:
        (outcome,) = opened.invoke([Lease(Task("t", b"{}"))], 20)
        assert isinstance(outcome, Outcome)
        # The child was ended, and the handler has seen that; as on Lambda, its error is the answer.
        assert outcome.failure in {FailureKind.HANDLER_ERROR, FailureKind.OUT_OF_MEMORY}
        assert outcome.max_memory_mb > 8

"""`_X_AMZN_TRACE_ID`: the caller's trace, or one of the invocation's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Outcome, Task

VALID = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01]")
GIVEN = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
HANDLER = """
import multiprocessing
import os
import subprocess
import sys

NAME = "_X_AMZN_TRACE_ID"
AT_LOAD = [os.environ.get(NAME), NAME in os.environ, dict(os.environ).get(NAME)]
LOADING = subprocess.run(["env"], capture_output=True, text=True).stdout

def of_fork():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, os.environ[NAME].encode())
        os._exit(0)
    os.close(writing)
    return os.fdopen(reading).read()

def of_multiprocessing():
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=send, args=(theirs,))
    process.start()
    found = ours.recv()
    process.join()
    return found

def send(pipe):
    pipe.send(os.environ.get(NAME))

def of_system():
    os.system(f"printf %s ${NAME} > /tmp/{os.getpid()}")
    with open(f"/tmp/{os.getpid()}") as file:
        found = file.read()
    os.remove(file.name)
    return found

START = {
    "run": lambda: subprocess.run(["printenv", NAME], capture_output=True, text=True).stdout.strip(),
    "popen": lambda: os.popen(f"printenv {NAME}").read().strip(),
    "copy": lambda: subprocess.run(["printenv", NAME], capture_output=True, text=True, env=os.environ.copy()).stdout.strip(),
    "system": of_system,
    "fork": of_fork,
    "spawn": of_multiprocessing,
}

def handler(event, context):
    if event == "load":
        return [AT_LOAD, NAME in LOADING]
    if event in START:
        return [START[event](), os.environ.get(NAME)]
    return os.environ.get(NAME)
"""


@pytest.fixture(scope="module", params=["socket", "http"])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessInvoker]:
    folder = tmp_path_factory.mktemp("code")
    (folder / "work.py").write_text(HANDLER)
    config = ProcessInvoker.Config(workers=1, transport=request.param)
    with ProcessInvoker(config, Function(handler="work.handler", code=folder)) as opened:
        yield opened


def traces(plane: ProcessInvoker, *attributes: dict[str, str]) -> list[str]:
    found = []
    for number, each in enumerate(attributes):
        [outcome] = plane.invoke([Lease(Task(f"t{number}", b"1", each))], 20.0)
        assert isinstance(outcome, Outcome)
        found.append(json.loads(outcome.payload))
    return found


def test_each_invocation_has_a_valid_trace_of_its_own(plane: ProcessInvoker) -> None:
    found = traces(plane, {}, {}, {"session_id": "s"})
    assert [text for text in found if not VALID.fullmatch(text)] == []
    assert len(set(found)) == 3


def test_the_trace_of_the_caller_is_passed_on_and_holds_for_that_invocation_alone(plane: ProcessInvoker) -> None:
    first, second, third = traces(
        plane,
        {"AWSTraceHeader": GIVEN},
        {"traceparent": "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"},
        {},
    )
    assert first == second == GIVEN
    assert third != GIVEN


def asked(plane: ProcessInvoker, event: str) -> Any:
    [outcome] = plane.invoke([Lease(Task(event, json.dumps(event).encode()))], 20.0)
    assert isinstance(outcome, Outcome)
    return json.loads(outcome.payload)


def test_while_the_module_is_loaded_there_is_none(plane: ProcessInvoker) -> None:
    assert asked(plane, "load") == [[None, False, None], False]


@pytest.mark.parametrize("how", ["run", "popen", "copy", "system", "fork", "spawn"])
def test_what_a_handler_starts_has_the_trace_of_the_invocation(plane: ProcessInvoker, how: str) -> None:
    for _ in range(2):
        inherited, own = asked(plane, how)
        assert VALID.fullmatch(own)
        assert inherited == own


def test_a_trace_that_came_through_a_load_balancer_is_passed_on(plane: ProcessInvoker) -> None:
    header = "Self=1-67891234-12456789abcdef0123456789;Root=1-67891233-abcdef012345678912345678"
    assert traces(plane, {"AWSTraceHeader": header}) == [header]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Root=2",
        "Root=1-5759e988-bd862e3fe1be46a994272793\r\nX: y",
        "XRoot=1-5759e988-bd862e3fe1be46a994272793",
        "00-00-00-00",
        "00-00000000000000000000000000000000-53995c3f42cd8ad8-01",
    ],
)
def test_what_is_not_a_trace_is_not_passed_on(plane: ProcessInvoker, text: str) -> None:
    [found] = traces(plane, {"AWSTraceHeader": text, "traceparent": text})
    assert VALID.fullmatch(found)
    assert "Root=1-00000000" not in found

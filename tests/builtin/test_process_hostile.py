"""Handlers that write into what they share with their supervisor: it keeps its own clock, order and sizes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task, Unstarted

LONG = 30.0
CODE = """
import gc, os, signal, struct, time
from htcgrid.runtime import frames

def client():
    return next(one for one in gc.get_objects() if type(one).__name__ == "FramedClient")

def handler(event, context):
    if "note" in event:
        kept, since, ahead = event["note"]
        mine, end = client(), time.monotonic() + event["seconds"]
        while time.monotonic() < end:
            struct.pack_into("=QQQ", mine._page, 0, kept, since, 0 if ahead is None else mine._sequence + ahead)
            time.sleep(0.001)
        os._exit(1)
    if "frame" in event:
        size, log, kind, ahead, payload = event["frame"]
        mine = client()
        head = frames.ANSWER.pack(size, log, 1, kind, mine._sequence + ahead, time.time_ns(), 1)
        mine._channel.sendall(head + b"1" * payload)
        time.sleep(60)
    if "stop" in event:
        os.kill(os.getppid(), signal.SIGSTOP)
    if "exit" in event:
        os._exit(event["exit"])
    return event
"""


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessInvoker]:
    monkeypatch.setattr("htcgrid.runtime.framed._LATE_SECONDS", 0.3)
    monkeypatch.setattr("htcgrid.runtime.environment._BEHIND_SECONDS", LONG)
    (tmp_path / "job.py").write_text(CODE)
    function = Function(handler="job.handler", code=tmp_path)
    with ProcessInvoker(ProcessInvoker.Config(workers=1), function) as invoker:
        yield invoker


def found(plane: ProcessInvoker, events: Sequence[object], timeout: float) -> list[Outcome | Unstarted]:
    leases = [Lease(Task(str(number), json.dumps(event).encode())) for number, event in enumerate(events)]
    return list(plane.invoke(leases, timeout))


FAR = 1 << 62
PAGES = {
    "nothing runs": [0, 0, None],
    "it begins in the far future": [0, FAR, 0],
    "the task behind it runs since ever": [0, 0, 1],
    "the task behind it is about to run": [0, FAR, 1],
    "a task that never was is running": [0, 0, 1000],
}


@pytest.mark.timing
@pytest.mark.parametrize("page", PAGES)
def test_a_handler_has_its_timeout_by_its_supervisors_clock_though_it_writes_that(
    plane: ProcessInvoker, page: str
) -> None:
    began = time.monotonic()
    first, behind = found(plane, [{"note": PAGES[page], "seconds": 60}, {}], 0.4)
    assert isinstance(first, Outcome)
    assert (first.failure, behind) == (FailureKind.TIMEOUT, Unstarted("1"))
    assert time.monotonic() - began < 5
    assert isinstance(found(plane, [{}], 20)[0], Outcome)


def test_a_handler_that_writes_that_another_task_runs_and_exits_bears_it_itself(plane: ProcessInvoker) -> None:
    first, behind = found(plane, [{"note": [0, 0, 1], "seconds": 0.1}, {}], 20)
    assert isinstance(first, Outcome)
    assert (first.task_id, first.failure, behind) == ("0", FailureKind.EXIT, Unstarted("1"))


FRAMES = {
    "for a task whose turn has not come": [1, 0, 0, 1, 1],
    "longer than an answer may be": [1 << 31, 0, 0, 0, 1],
    "with a log longer than a tail may be": [1, 1 << 30, 0, 0, 1],
    "of a kind that there is not": [1, 0, 99, 0, 1],
}


@pytest.mark.parametrize("frame", FRAMES)
def test_what_cannot_be_an_answer_is_none_and_ends_the_worker(plane: ProcessInvoker, frame: str) -> None:
    first, behind = found(plane, [{"frame": FRAMES[frame]}, {}], 20)
    assert isinstance(first, Outcome)
    assert (first.task_id, first.failure, behind) == ("0", FailureKind.EXIT, Unstarted("1"))
    assert "cannot be an answer" in json.loads(first.payload)["errorMessage"]
    [after] = found(plane, [{}], 20)
    assert isinstance(after, Outcome)
    assert after.failure is None


@pytest.mark.parametrize("keys", [{}, {"preload": True}, {"transport": "http"}], ids=["socket", "preload", "http"])
def test_a_handler_that_stops_its_parent_holds_up_neither_the_next_environment_nor_the_end(
    tmp_path: Path, keys: dict[str, Any]
) -> None:
    (tmp_path / "job.py").write_text(CODE)
    config = ProcessInvoker.Config(workers=1, **keys)
    with ProcessInvoker(config, Function(handler="job.handler", code=tmp_path)) as plane:
        for event, failure in (({"stop": 1}, None), ({"exit": 3}, FailureKind.EXIT), ({"stop": 2}, None)):
            (outcome,) = found(plane, [event], LONG)
            assert isinstance(outcome, Outcome)
            assert outcome.failure == failure

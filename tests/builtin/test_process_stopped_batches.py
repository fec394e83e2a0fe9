"""A task that answers at the very moment when its environment is ended for it, and the task behind it in the batch."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime import frames
from htcgrid.runtime.environment import Running
from htcgrid.runtime.framed import FramedEnvironment
from htcgrid.spi import Function, Lease, Outcome, Task, Unavailable, Unstarted

LONG = 30.0
CODE = """
import pathlib, time
def handler(event, context):
    pathlib.Path(event["begun"]).touch()
    while not pathlib.Path(event["until"]).exists():
        time.sleep(0.001)
"""


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessInvoker]:
    monkeypatch.setattr("htcgrid.runtime.environment._BEHIND_SECONDS", LONG)
    (tmp_path / "job.py").write_text(CODE)
    with ProcessInvoker(ProcessInvoker.Config(workers=1), Function(handler="job.handler", code=tmp_path)) as invoker:
        yield invoker


@pytest.fixture
def leases(tmp_path: Path) -> list[Lease]:
    """The first runs until the file `answer` is there, the second for ever."""
    events = {"first": "answer", "second": "never"}
    return [
        Lease(Task(name, json.dumps({"begun": str(tmp_path / name), "until": str(tmp_path / until)}).encode()))
        for name, until in events.items()
    ]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def cancel_the_first(plane: ProcessInvoker, tmp_path: Path) -> threading.Thread:
    def cancel() -> None:
        wait_for((tmp_path / "first").exists)
        plane.cancel(["first"])

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    return cancelling


def has_sent_two(environment: FramedEnvironment) -> bool:
    """Whether the worker has reported on both tasks."""
    try:
        return len(environment._channel.recv(1 << 16, socket.MSG_PEEK)) >= 2 * frames.ANSWER.size
    except BlockingIOError:
        return False


def test_a_task_behind_one_that_is_cancelled_does_not_begin_before_the_environment_has_ended(
    plane: ProcessInvoker, leases: list[Lease], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = FramedEnvironment._end

    def late(environment: FramedEnvironment) -> int:
        (tmp_path / "answer").touch()
        wait_for(lambda: has_sent_two(environment) or (tmp_path / "second").exists())
        return end(environment)

    monkeypatch.setattr(FramedEnvironment, "_end", late)
    cancelling = cancel_the_first(plane, tmp_path)
    first, second = plane.invoke(leases, LONG)
    cancelling.join()
    assert isinstance(first, Outcome)
    assert first.failure is None
    assert second == Unstarted("second")
    assert not (tmp_path / "second").exists()


def test_a_task_that_begins_just_before_its_environment_is_ended_for_another_is_known_to_have_begun(
    plane: ProcessInvoker, leases: list[Lease], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recall = FramedEnvironment._recall

    def late(environment: FramedEnvironment, running: Running) -> None:
        (tmp_path / "answer").touch()
        wait_for((tmp_path / "second").exists)
        recall(environment, running)

    monkeypatch.setattr(FramedEnvironment, "_recall", late)
    cancelling = cancel_the_first(plane, tmp_path)
    reports = iter(plane.invoke(leases, LONG))
    first = next(reports)
    assert isinstance(first, Outcome)
    assert first.failure is None
    with pytest.raises(Unavailable) as caught:
        next(reports)
    cancelling.join()
    assert caught.value.begun == {"second"}

"""A task that answers at the very moment when its environment is ended or its batch is taken back, and the task behind it."""

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
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task, Unavailable, Unstarted

LONG = 30.0
CODE = """
import os, pathlib, time
def handler(event, context):
    pathlib.Path(event["begun"]).touch()
    if event["exits"]:
        os._exit(3)
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
    return [lease(tmp_path, "first", "answer"), lease(tmp_path, "second", "never")]


def lease(folder: Path, name: str, until: str, *, exits: bool = False) -> Lease:
    event = {"begun": str(folder / name), "until": str(folder / until), "exits": exits}
    return Lease(Task(name, json.dumps(event).encode()))


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


def test_a_task_that_ends_the_environment_as_it_is_taken_back_is_known_to_have_run(
    plane: ProcessInvoker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.runtime.environment._BEHIND_SECONDS", 0.01)
    recall = FramedEnvironment._recall

    def late(environment: FramedEnvironment, running: Running) -> None:
        (tmp_path / "answer").touch()
        wait_for(environment._has_ended)
        recall(environment, running)

    monkeypatch.setattr(FramedEnvironment, "_recall", late)
    first, second = plane.invoke([lease(tmp_path, "first", "answer"), lease(tmp_path, "second", "", exits=True)], LONG)
    assert isinstance(first, Outcome)
    assert first.failure is None
    assert isinstance(second, Outcome)
    assert second.failure is FailureKind.EXIT

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime.framed import FramedEnvironment
from htcgrid.runtime.memory_watch import MemoryWatch, Process
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

CODE = """
import os, subprocess, sys, threading, time

def eat(mb=300):
    global kept
    kept = bytearray(mb << 20)
    for at in range(0, len(kept), 4096):
        kept[at] = 1
    time.sleep(20)

def sleeps():
    time.sleep(1.2)

def sleeps_then_eats():
    time.sleep(0.6)
    eat()

def has_a_thread_that_eats():
    threading.Thread(target=lambda: (time.sleep(0.6), eat())).start()
    time.sleep(20)

def has_a_child_that_eats():
    code = "import time; time.sleep(0.6); kept = bytearray(300 << 20); kept[::4096] = bytes(len(kept[::4096])); time.sleep(20)"
    subprocess.run([sys.executable, "-c", code])

def sleeps_long():
    time.sleep(20)

def prints_much():
    time.sleep(0.3)
    for _ in range(200):
        print("x" * 100_000)

def handler(event, context):
    globals()[event]()
    return event
"""


class Stub:
    """What is watched, without a worker."""

    def __init__(self) -> None:
        self.looks = 0
        self.unread = 0

    def look_now(self) -> None:
        self.looks += 1

    def unread_bytes(self) -> int:
        return self.unread


@contextmanager
def child(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said "ready", and goes on when it is written to."""
    program = f"import sys, time\nprint('ready', flush=True)\n{code}\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def settled(process: Process) -> bool:
    """Whether it sleeps, so that a look now is one at rest."""
    process.begin_look()
    process.end_look(10.0)
    time.sleep(0.1)
    return not process.needs_look(time.monotonic())


def test_a_process_that_does_not_run_needs_no_look() -> None:
    with child("") as sleeper:
        process = Process(Stub(), sleeper.pid, 512)
        until(lambda: settled(process))
        assert not any(process.needs_look(time.monotonic()) for _ in range(20))
        process.close()


def test_a_process_that_has_run_for_long_enough_to_come_near_its_limit_needs_a_look() -> None:
    with child("sys.stdin.buffer.read(1)\nwhile True: pass") as sleeper:
        process = Process(Stub(), sleeper.pid, 100)
        until(lambda: settled(process))
        assert sleeper.stdin is not None
        sleeper.stdin.write(b"x")
        sleeper.stdin.flush()
        until(lambda: process.needs_look(time.monotonic()))
        process.close()


def test_a_process_whose_log_fills_needs_a_look() -> None:
    with child("") as sleeper:
        watched = Stub()
        process = Process(watched, sleeper.pid, 512)
        until(lambda: settled(process))
        watched.unread = 1 << 15
        assert process.needs_look(time.monotonic())
        process.close()


def test_the_watch_goes_on_where_no_further_file_can_be_opened_and_asks_for_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def family(_pid: int) -> Iterator[int]:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("htcgrid.runtime.process_memory.family", family)
    watch, watched = MemoryWatch(), Stub()
    with child("import threading; threading.Thread(target=time.sleep, args=[60], daemon=True).start()") as threaded:
        until(lambda: len(list(Path(f"/proc/{threaded.pid}/task").iterdir())) == 2)
        watch.add(watched, threaded.pid, 512)
        watch.begin_look(watched)
        watch.enter(watched)
        until(lambda: watched.looks > 2)
        watch.remove(watched)
    watch.close()


def test_an_environment_does_not_start_where_its_memory_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    watch, watched = MemoryWatch(), Stub()
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            watch.add(watched, os.getpid(), 512)
        watch.close()
    assert watch.size == 0


def test_what_has_left_is_not_looked_at_any_more() -> None:
    watch, watched = MemoryWatch(), Stub()
    watch.add(watched, os.getpid(), 512)
    watch.enter(watched)
    until(lambda: watched.looks)
    watch.leave(watched)
    looks = watched.looks
    time.sleep(0.3)
    assert watched.looks <= looks + 1  # one may have been under way
    watch.remove(watched)
    watch.close()


def test_no_environment_waits_while_another_is_looked_at() -> None:
    looking, goes_on = threading.Event(), threading.Event()

    class Slow(Stub):
        def unread_bytes(self) -> int:
            looking.set()
            goes_on.wait(20)
            return 0

    def work() -> None:
        for _ in range(100):
            watch.enter(other)
            watch.begin_look(other)
            watch.end_look(other, 10.0)
            watch.leave(other)

    watch, slow, other = MemoryWatch(), Slow(), Stub()
    with child("") as sleeper:
        watch.add(slow, sleeper.pid, 512)
        watch.add(other, sleeper.pid, 512)
        watch.begin_look(slow)
        watch.enter(slow)
        assert looking.wait(20)
        worker = threading.Thread(target=work)
        worker.start()
        worker.join(10)
        assert not worker.is_alive()
        goes_on.set()
        watch.remove(slow)
        watch.remove(other)
    watch.close()


def test_all_that_enter_a_sleeping_watch_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htcgrid.runtime.memory_watch._IDLE_SECONDS", 0.0)
    watch = MemoryWatch()
    for _ in range(5):
        watched = Stub()
        watch.add(watched, os.getpid(), 512)
        until(lambda: watch._is_asleep)
        watch.enter(watched)
        until(lambda watched=watched: watched.looks)  # type: ignore[misc]
        watch.leave(watched)
        watch.remove(watched)
    watch.close()


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[ProcessInvoker]:
    (tmp_path / "job.py").write_text(CODE)
    function = Function(handler="job.handler", code=tmp_path, memory=128, timeout=30)
    with ProcessInvoker(ProcessInvoker.Config(workers=1, transport="socket"), function) as plane:
        yield plane


def run(plane: ProcessInvoker, what: str) -> Outcome:
    [outcome] = plane.invoke([Lease(Task("t", json.dumps(what).encode()))], 30.0)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.timing
@pytest.mark.parametrize("what", ["sleeps_then_eats", "has_a_thread_that_eats", "has_a_child_that_eats"])
def test_what_grows_after_a_long_sleep_is_stopped(plane: ProcessInvoker, what: str) -> None:
    began = time.monotonic()
    assert run(plane, what).failure is FailureKind.OUT_OF_MEMORY
    assert time.monotonic() - began < 15  # and not when it ends by itself


@pytest.mark.timing
def test_a_handler_that_prints_more_than_its_log_holds_does_not_wait_for_long(plane: ProcessInvoker) -> None:
    began = time.monotonic()
    assert run(plane, "prints_much").failure is None
    assert time.monotonic() - began < 15


def test_an_environment_that_runs_a_long_task_is_not_woken(
    plane: ProcessInvoker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(plane, "sleeps").failure is None  # it is up
    wakes = 0
    collect = FramedEnvironment._collect

    def counted(self: FramedEnvironment, wait: float) -> object:
        nonlocal wakes
        wakes += 1
        return collect(self, wait)

    monkeypatch.setattr(FramedEnvironment, "_collect", counted)
    assert run(plane, "sleeps").failure is None
    assert wakes <= 6  # it was 24


@pytest.mark.timing
def test_a_long_task_is_cancelled_though_nothing_wakes_its_environment(plane: ProcessInvoker) -> None:
    threading.Timer(0.5, plane.cancel, [["t"]]).start()
    began = time.monotonic()
    [outcome] = plane.invoke([Lease(Task("t", b'"sleeps_long"'))], 30.0)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is FailureKind.CANCELLED
    assert time.monotonic() - began < 15

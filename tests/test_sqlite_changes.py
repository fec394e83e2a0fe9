"""Who waits for a SQLite file is told of changes, by whatever process, and looks for itself where nothing can tell."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from program_end import output_at_end

from htcgrid.builtin import sqlite_changes
from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, Lease, Outcome, Result, Task

LONG = 20.0

PUT = """
import sys
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, Task
with SqliteSource(SqliteSource.Config(path=sys.argv[1]), Function()) as source:
    sys.stdin.readline()
    source.put([Task("t", b"1")])
    sys.stdin.readline()
"""


def source_at(path: Path) -> SqliteSource:
    return SqliteSource(SqliteSource.Config(path=path), Function())


def sink_at(path: Path) -> SqliteSink:
    return SqliteSink(SqliteSink.Config(path=path), Function())


def result(task_id: str) -> Result:
    return Result(Task(task_id, b"1"), Outcome(task_id, b"2"))


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    return thread, found


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks without having been told."""
    monkeypatch.setattr(sqlite_changes, "SELDOM_SECONDS", 10 * LONG)
    monkeypatch.setattr(sqlite_changes, "POLL_SECONDS", 10 * LONG)


@pytest.mark.usefixtures("never_looks")
def test_a_receive_is_woken_by_a_put_of_another_process(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with source_at(path) as source:
        submit = subprocess.Popen([sys.executable, "-c", PUT, path], stdin=subprocess.PIPE, text=True)
        waiting, found = in_thread(lambda: source.receive(1, LONG))
        until(lambda: source._file.changes._is_read)
        assert submit.stdin is not None
        submit.stdin.write("put\n")
        submit.stdin.flush()
        waiting.join(LONG / 2)
        assert [[lease.task.id for lease in leases] for leases in found] == [["t"]]  # type: ignore[attr-defined]
        output_at_end(submit, "end\n")


@pytest.mark.usefixtures("never_looks")
def test_a_put_and_a_return_in_this_process_wake_each_receive_that_waits(tmp_path: Path) -> None:
    with source_at(tmp_path / "grid.db") as source:
        receives = [in_thread(lambda: source.receive(1, LONG)) for _ in range(3)]
        until(lambda: source._file.changes._is_read)
        source.put([Task(str(number), b"1") for number in range(2)])
        until(lambda: sum(len(found) for _, found in receives) == 2)
        first = next(found[0] for _, found in receives if found)
        assert isinstance(first, list)
        lease: Lease = first[0]
        source.nack([lease])
        for thread, _ in receives:
            thread.join(LONG / 2)
        assert sorted(leases[0].attempt for _, (leases,) in receives) == [1, 1, 2]  # type: ignore[index]


@pytest.mark.usefixtures("never_looks")
def test_a_drain_ends_with_the_last_ack(tmp_path: Path) -> None:
    config = SqliteSource.Config(path=tmp_path / "grid.db", drain=True)
    with SqliteSource(config, Function()) as source:
        source.put([Task("t", b"1")])
        leases = source.receive(1, LONG)
        waiting, found = in_thread(lambda: source.receive(1, LONG))
        until(lambda: source._file.changes._is_read)
        source.ack(leases)
        waiting.join(LONG / 2)
        assert found == [()]


def test_who_waits_for_more_results_is_told_of_those_of_another_connection(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with sink_at(path) as reader, sink_at(path) as writer:
        settle(reader)
        waiting, found = in_thread(lambda: (reader.wait_for_more(LONG), reader.wait_for_more(LONG)))
        until(lambda: reader._file.changes._is_read)
        writer.put([result("a")])
        waiting.join(LONG / 2)
        assert found == [(True, True)]
        assert reader.wait_for_more(LONG)  # each thread is told for itself
        assert not reader.wait_for_more(0.01)


def test_ctrl_c_after_any_call_of_a_wait_is_what_the_caller_sees_and_others_are_still_told(tmp_path: Path) -> None:
    with sink_at(tmp_path / "grid.db") as sink:
        settle(sink)
        calls = 0
        while interrupted_after(calls, lambda: sink.wait_for_more(0.001)):
            calls += 1
            waiting, found = in_thread(lambda: (sink.wait_for_more(0), sink.wait_for_more(LONG)))
            sink.put([result(str(calls))])
            waiting.join(LONG / 2)
            assert len(found) == 1, calls
            settle(sink)
        assert calls > 5


def interrupted_after(calls: int, wait: Callable[[], object]) -> bool:
    """Whether Ctrl-C came after that many calls that the module makes, where Python heeds signals, and the caller saw it."""
    left = calls

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal left
        if event == "c_return" and frame.f_code.co_filename == sqlite_changes.__file__:
            left -= 1
            if left == -1:
                raise KeyboardInterrupt

    sys.setprofile(profile)
    try:
        wait()
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def settle(reader: SqliteSink) -> None:
    """Until nothing has changed: SQLite itself touches the log when a connection is opened."""
    while reader.wait_for_more(0.05):
        time.sleep(0.001)


@pytest.mark.timing
def test_what_is_put_between_the_look_and_the_wait_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with sink_at(path) as reader, sink_at(path) as writer:
        settle(reader)
        assert list(reader.scan()) == []
        writer.put([result("a")])
        began = time.monotonic()
        assert reader.wait_for_more(LONG)
        assert time.monotonic() - began < LONG / 2
        assert [number for number, _ in reader.scan()] == [1]


@pytest.mark.parametrize("call", ["htcgrid.builtin.sqlite_changes._watch", "os.eventfd"])
def test_where_the_file_cannot_be_watched_that_is_said_and_it_is_looked_at_again_and_again(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none_left(*_: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(call, none_left)
    path = tmp_path / "grid.db"
    with caplog.at_level(logging.WARNING), source_at(path) as source, source_at(path) as other:
        assert "Raise `sysctl fs.inotify.max_user_instances`" in caplog.text
        assert not source.receive(1, 0.05)
        waiting, found = in_thread(lambda: source.receive(1, LONG))
        other.put([Task("t", b"1")])
        waiting.join(LONG / 2)
        assert [len(leases) for leases in found] == [1]  # type: ignore[arg-type]


def test_a_close_ends_a_wait_and_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    source = source_at(tmp_path / "grid.db")
    for _ in range(3):
        source.open()
        source.put([Task("t", b"1")])
        source.receive(1, 0)
        source.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before

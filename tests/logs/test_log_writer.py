"""The lines of handlers on their way to a file or a stream: whole, bounded, and never in the way of the run."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from htcgrid.agent.options import AgentOptions
from htcgrid.logs.handler_logs import HandlerLogs
from htcgrid.logs.line_format import JsonLines, as_text
from htcgrid.logs.opening import handler_logs
from htcgrid.logs.targets import FolderTarget, TextTarget
from htcgrid.runtime.output_lines import LINE_BYTES
from htcgrid.spi import HandlerOutput, Lease, Rejected, Task

as_json = JsonLines()
LEASE = Lease(Task("t-1", b"{}", {"session_id": "s-1"}), 2)
LONG = 30.0


class Reader:
    """A target that is read only while it may be."""

    name = "a reader"

    def __init__(self) -> None:
        self.may_read = threading.Event()
        self.error: OSError | None = None
        self.text = b""

    def put(self, lines: bytes) -> None:
        self.may_read.wait(LONG)
        if self.error is not None:
            raise self.error
        self.text += lines

    def close(self) -> None:
        pass


def documents(text: bytes | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def messages(folder: Path) -> list[str]:
    return [line["message"] for file in sorted(folder.iterdir()) for line in documents(file.read_bytes())]


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- a line ---


def test_a_line_tells_task_session_attempt_environment_and_stream() -> None:
    text, number = as_json(LEASE, "e-1", b"first\nsecond\n", "stderr")
    assert number == 2
    first, second = documents(text)
    assert abs(first.pop("time") - time.time()) < LONG
    assert first == {
        "logger": "handler",
        "task": "t-1",
        "session": "s-1",
        "attempt": 2,
        "environment": "e-1",
        "stream": "stderr",
        "message": "first",
    }
    assert second["message"] == "second"


def test_a_line_that_was_printed_while_no_task_ran_has_none() -> None:
    [line] = documents(as_json(None, "e-1", b"loading\n", "stdout")[0])
    assert line["task"] is None
    assert line["session"] is None
    assert line["attempt"] is None


def test_a_message_stays_the_text_that_was_printed_also_where_that_is_json() -> None:
    printed = '{"level": "INFO", "message": "é"}'
    [line] = documents(as_json(LEASE, "e-1", printed.encode() + b"\n", "stdout")[0])
    assert line["message"] == printed


def test_no_byte_that_a_handler_prints_can_control_a_terminal_or_break_a_line() -> None:
    text, number = as_json(LEASE, "e-1", b"\x1b[31mred\x7f\xff\r\x00 \xe2\x80\xa8\n", "stdout")
    assert number == 1
    assert text.endswith("}\n")
    assert all(" " <= letter <= "~" for letter in text[:-1])
    assert json.loads(text)["message"] == "\x1b[31mred\x7f\\xff\r\x00 \u2028"


def test_a_line_that_is_too_long_is_cut_between_characters() -> None:
    printed = "é" * LINE_BYTES + "\n"
    text, number = as_json(LEASE, "e-1", printed.encode(), "stdout")
    parts = [line["message"] for line in documents(text)]
    assert "".join(parts) == printed[:-1]
    assert number == len(parts) > 1


def test_a_traceback_of_the_runtime_client_has_lines_again_as_text() -> None:
    text, number = as_text(LEASE, "e-1", b"[ERROR] E\rTraceback\r  File\n", "stdout")
    assert number == 1
    assert text[9:].splitlines() == ["t-1: [ERROR] E", "  Traceback", "    File"]


# --- the folder ---


def test_files_of_a_folder_are_rotated_and_none_is_removed_unless_asked(tmp_path: Path) -> None:
    options = AgentOptions(handler_logs="logs", handler_logs_bytes=500)
    with handler_logs(options, tmp_path, lambda _name: pytest.fail("a folder is no stream")) as logs:
        for number in range(40):
            logs.write(LEASE, "e-1", b"line %d\n" % number)
            if number % 10 == 9:
                time.sleep(0.05)  # what is written together is not split
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) > 1
    assert messages(tmp_path / "logs") == [f"line {number}" for number in range(40)]
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o600"}


def test_the_oldest_files_are_removed_where_a_number_is_kept(tmp_path: Path) -> None:
    (tmp_path / "handlers-of-another-agent.jsonl").touch()
    target = FolderTarget(tmp_path, 1, 3)
    for number in range(10):
        target.put(b"%d\n" % number)
    target.close()
    kept = sorted(tmp_path.glob("handlers-2*"))
    assert [file.read_bytes() for file in kept] == [b"7\n", b"8\n", b"9\n"]
    assert (tmp_path / "handlers-of-another-agent.jsonl").exists()


def test_a_program_may_open_a_folder_twice_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "gmtime", lambda *_: time.struct_time((2026, 1, 1, 0, 0, 0, 3, 1, 0)))
    one, other = FolderTarget(tmp_path, 1, 1), FolderTarget(tmp_path, 1, 1)
    for target, text in ((one, b"1\n"), (other, b"2\n"), (one, b"3\n"), (other, b"4\n")):
        target.put(text)
    one.close()
    other.close()
    assert sorted(file.read_bytes() for file in tmp_path.iterdir()) == [b"3\n", b"4\n"]


def test_a_folder_that_cannot_be_made_is_refused_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Rejected, match=r"handler_logs = .*file/logs.*: no file can be made there"):
        FolderTarget(tmp_path / "file" / "logs", 1, 0)


def test_what_a_full_disk_took_half_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = FolderTarget(tmp_path, 1 << 20, 0)
    target.put(b'{"message": "first"}\n')
    whole = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return whole(descriptor, bytes(data)[: len(data) // 2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        target.put(b'{"message": "lost"}\n')
    monkeypatch.undo()
    target.put(b'{"message": "second"}\n')
    assert messages(tmp_path) == ["first", "second"]


# --- a reader that is slow, or gone ---


def test_all_that_was_given_is_written_by_the_end() -> None:
    reader = Reader()
    reader.may_read.set()
    logs = HandlerLogs(reader)

    def write() -> None:
        for _ in range(1000):
            logs.write(LEASE, "e", b"x\n")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logs.close()
    assert len(documents(reader.text)) == 4000


def test_whoever_prints_waits_while_the_reader_stalls_so_that_memory_is_bounded() -> None:
    reader = Reader()
    logs = HandlerLogs(reader)
    written = []
    text = b"x" * 99_999 + b"\n"

    def work() -> None:
        for number in range(300):
            logs.write(LEASE, "e", text)
            written.append(number)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(lambda: len(written) > 50)
    time.sleep(0.3)
    assert len(written) < 150  # some 8 MB
    reader.may_read.set()
    thread.join(LONG)
    logs.close()
    assert len(documents(reader.text)) == 300


@pytest.mark.timing
def test_past_the_grace_time_nobody_waits_and_what_is_lost_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    logs = HandlerLogs(reader)
    deadline = time.monotonic() + 0.2
    logs.deadline = lambda: deadline
    began = time.monotonic()
    for _ in range(300):
        logs.write(LEASE, "e", b"x" * 99_999 + b"\n")
    logs.close()
    assert time.monotonic() - began < LONG / 2
    assert "300 lines that handlers printed were not written to a reader." in caplog.text
    reader.may_read.set()


def test_what_was_given_is_written_before_what_is_said_next() -> None:
    reader = Reader()
    reader.may_read.set()
    logs = HandlerLogs(reader)
    for number in range(10):
        logs.write(LEASE, "e", b"%d\n" % number)
        logs.settle()
        assert len(documents(reader.text)) == number + 1
    logs.close()


def test_a_stream_of_the_program_that_was_closed_does_not_end_the_writing_of_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, read = io.StringIO(), io.StringIO()
    closed.close()
    monkeypatch.setattr("sys.stdout", closed)
    logs = HandlerLogs(TextTarget("stdout"))
    with caplog.at_level(logging.WARNING, "htcgrid"):
        logs.write(LEASE, "e", b"lost\n")
        until(lambda: not logs.waiting)
        monkeypatch.setattr("sys.stdout", read)
        logs.write(LEASE, "e", b"kept\n")
        logs.close()
    assert [line["message"] for line in documents(read.getvalue())] == ["kept"]
    assert "sys.stdout cannot be written: I/O operation on closed file" in caplog.text


def test_a_target_that_fails_is_told_once_and_taken_up_again(caplog: pytest.LogCaptureFixture) -> None:
    reader = Reader()
    reader.may_read.set()
    reader.error = OSError(errno.ENOSPC, "No space left on device")
    logs = HandlerLogs(reader)
    with caplog.at_level(logging.WARNING, "htcgrid"):
        for _ in range(3):
            logs.write(LEASE, "e", b"lost\n")
            until(lambda: not logs.waiting)
        reader.error = None
        logs.write(LEASE, "e", b"kept\n")
        logs.close()
    assert [line["message"] for line in documents(reader.text)] == ["kept"]
    told = [record.getMessage() for record in caplog.records]
    assert [text for text in told if "No space left on device" in text] == [
        (
            "[agent] handler_logs: a reader cannot be written: No space left on device. The run goes on; what handlers print "
            "meanwhile is lost."
        )
    ]
    assert told[-1] == "3 lines that handlers printed were not written to a reader."


def test_nothing_is_wanted_unless_it_is_asked_for(tmp_path: Path) -> None:
    with handler_logs(AgentOptions(), tmp_path, lambda _name: pytest.fail("none was named")) as output:
        assert type(output) is HandlerOutput
        assert not output.is_wanted

"""What a container prints, as the engine passes it on."""

import fcntl
import os
import resource
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from htcgrid_local_docker.container_log import EMULATORS_LAST, LogStream
from htcgrid_local_docker.engine import Engine
from htcgrid_local_docker.sandbox import ContainerSandbox


class Stream:
    """An engine's answer that comes through a pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self.raw = self

    def fileno(self) -> int:
        return self._read

    def say(self, text: bytes) -> None:
        os.write(self._write, b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text)

    def raw_bytes(self, data: bytes) -> None:
        os.write(self._write, data)

    def end(self) -> None:
        os.close(self._write)
        self._write = -1

    def close(self) -> None:
        if self._read >= 0:
            os.close(self._read)
            self._read = -1
        if self._write >= 0:
            self.end()


@pytest.fixture
def stream() -> Any:
    stream = Stream()
    yield stream
    stream.close()


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`late(log, stream, text, ms)`: this text comes after so long a wait, however slow the machine is."""

    def late(log: LogStream, stream: Stream, text: bytes, milliseconds: float) -> None:
        left, poll, waited = [text], log._poll, 0.0

        def wait(allowed: float) -> list[tuple[int, int]]:
            nonlocal waited
            waited += allowed
            if waited >= milliseconds and left:
                stream.say(left.pop())
            return poll.poll(0)

        monkeypatch.setattr(log, "_poll", SimpleNamespace(poll=wait))

    return late


def test_a_tail_is_what_came_since_the_last_one(stream: Stream) -> None:
    log = LogStream(stream, None)
    stream.say(b"one\n")
    assert log.tail() == b"one\n"
    stream.say(b"two\n")
    assert log.tail() == b"two\n"


def test_a_frame_that_comes_in_pieces_is_put_together_and_handed_on_with_its_stream(stream: Stream) -> None:
    printed: list[tuple[bytes, str]] = []
    log = LogStream(stream, lambda text, name: printed.append((text, name)))
    stream.raw_bytes(b"\x02\0\0\0\0\0")
    log.drain()
    stream.raw_bytes(b"\0\x05hel")
    log.drain()
    stream.raw_bytes(b"lo")
    assert log.tail() == b"hello"
    assert printed == [(b"hello", "stderr")]


def test_a_tail_is_the_end_of_much(stream: Stream) -> None:
    log = LogStream(stream, None)
    for number in range(1000):
        stream.say(b"line %05d\n" % number)
    tail = log.tail()
    assert len(tail) == 4096
    assert tail.endswith(b"line 00999\n")


def test_what_comes_between_invocations_is_in_no_tail(stream: Stream) -> None:
    log = LogStream(stream, None)
    stream.say(b"late\n")
    log.forget()
    stream.say(b"mine\n")
    assert log.tail() == b"mine\n"


def test_the_end_of_a_line_is_waited_for(stream: Stream, late: Callable[..., None]) -> None:
    log = LogStream(stream, None)
    stream.say(b"line")
    late(log, stream, b"\n", 100)
    assert log.tail() == b"line\n"


def test_the_last_line_is_waited_for_though_others_came_long_before_the_answer(
    stream: Stream, late: Callable[..., None]
) -> None:
    log = LogStream(stream, None)
    stream.say(b"began\n")
    log.drain()  # as while the handler works
    late(log, stream, b"ended\n", 10)
    assert log.tail() == b"began\nended\n"


def test_a_handler_that_prints_only_as_it_begins_does_not_wait_each_time(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogStream(stream, None)
    waits: list[float] = []
    poll = log._poll

    def wait(milliseconds: float) -> list[tuple[int, int]]:
        waits.append(milliseconds)
        return poll.poll(0)

    monkeypatch.setattr(log, "_poll", SimpleNamespace(poll=wait))
    for _ in range(300):
        waits.clear()
        stream.say(b"began\n")
        log.drain()
        assert log.tail() == b"began\n"
    assert max(waits) == 0


@pytest.mark.parametrize(("silent", "late_ms", "printed_before"), [(30, 10, False), (100, 1, False), (1000, 5, True)])
def test_what_a_handler_prints_after_many_silent_invocations_is_waited_for(
    stream: Stream,
    monkeypatch: pytest.MonkeyPatch,
    late: Callable[..., None],
    silent: int,
    late_ms: int,
    printed_before: bool,
) -> None:
    log = LogStream(stream, None)
    poll = log._poll
    if printed_before:
        stream.say(b"before\n")
        assert log.tail() == b"before\n"
    monkeypatch.setattr(log, "_poll", SimpleNamespace(poll=lambda _milliseconds: []))
    for _ in range(silent):
        assert log.tail() == b""
    monkeypatch.setattr(log, "_poll", poll)
    late(log, stream, b"late\n", late_ms)
    assert log.tail() == b"late\n"


def test_a_wait_on_a_machine_that_stands_still_is_longer(stream: Stream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is late there too."""
    log = LogStream(stream, None)
    stream.say(b"before\n")
    assert log.tail() == b"before\n"
    now, poll, polls = 0.0, log._poll, 0

    def late(milliseconds: float) -> list[tuple[int, int]]:
        nonlocal now, polls
        if milliseconds:
            polls += 1
            now += 0.09 if polls < 10 else milliseconds / 1000
        if polls == 15:
            stream.say(b"late\n")
        return poll.poll(0)

    monkeypatch.setattr(log, "_poll", SimpleNamespace(poll=late))
    monkeypatch.setattr("htcgrid_local_docker.container_log.time", SimpleNamespace(monotonic=lambda: now))
    assert log.tail() == b"late\n"


def test_the_end_of_much_that_was_printed_is_waited_for_longer(stream: Stream) -> None:
    printed: list[bytes] = []
    log = LogStream(stream, lambda text, _stream: printed.append(text))
    much = b"x" * 99 + b"\n"

    def say() -> None:
        for _ in range(1000):
            stream.say(much)
        stream.say(b"half a")

    threading.Thread(target=say, daemon=True).start()
    while sum(map(len, printed)) < 100_000:
        log.drain()
    end = threading.Timer(0.6, stream.say, [b" line\n"])
    end.start()
    assert log.tail().endswith(b"\nhalf a line\n")
    end.join()


def test_the_emulators_last_line_is_waited_for(stream: Stream, late: Callable[..., None]) -> None:
    log = LogStream(stream, None, EMULATORS_LAST)
    stream.say(b"START RequestId: 1\n")
    late(log, stream, b"mine\nEND RequestId: 1\nREPORT RequestId: 1\n", 100)
    assert log.tail() == b"START RequestId: 1\nmine\nEND RequestId: 1\nREPORT RequestId: 1\n"


def test_what_the_first_invocation_printed_is_waited_for_where_all_output_is_wanted(
    stream: Stream, late: Callable[..., None]
) -> None:
    printed: list[bytes] = []
    log = LogStream(stream, lambda text, _stream: printed.append(text))
    late(log, stream, b"first\n", 100)
    assert log.tail() == b"first\n"
    assert printed == [b"first\n"]


def test_all_that_comes_is_handed_on_though_the_tail_is_its_end(stream: Stream) -> None:
    printed: list[bytes] = []
    log = LogStream(stream, lambda text, _stream: printed.append(text))
    lines = [b"line %05d\n" % number for number in range(3000)]
    for line in lines:
        stream.say(line)
        log.drain()
    log.forget()
    assert b"".join(printed) == b"".join(lines)


def test_a_log_is_read_whatever_the_number_of_its_descriptor(stream: Stream) -> None:
    """With a few hundred containers there are more than 1,024 descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    high = fcntl.fcntl(stream.fileno(), fcntl.F_DUPFD_CLOEXEC, 2000)
    try:
        log = LogStream(SimpleNamespace(raw=SimpleNamespace(fileno=lambda: high)), None)
        stream.say(b"printed\n")
        assert log.tail() == b"printed\n"
    finally:
        os.close(high)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Ending:
    """An engine that passes on a container's last line only as it removes it."""

    def __init__(self, stream: Stream) -> None:
        self.client = self
        self._stream = stream

    def speaking(self, _purpose: str) -> AbstractContextManager[None]:
        return nullcontext()

    def remove_container(self, *_: object, **__: object) -> None:
        self._stream.say(b"late\n")
        self._stream.end()


def test_the_line_that_came_after_the_last_answer_is_handed_on_too(stream: Stream) -> None:
    printed: list[bytes] = []
    sandbox = ContainerSandbox(cast("Engine", Ending(stream)), cast("Any", None))
    sandbox.printed = lambda text, _stream: printed.append(text)
    sandbox._container, sandbox._log = "c", LogStream(stream, sandbox.printed)
    sandbox.close()
    assert printed == [b"late\n"]

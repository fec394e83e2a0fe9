"""The end of a program that a test has started: bounded, and with what the program said where it does not come."""

import contextlib
import subprocess
import threading
import time
from typing import IO

import pytest


def output_at_end(process: subprocess.Popen[str], stdin: str | None = None, seconds: float = 60.0) -> tuple[str, str]:
    """The rest of standard output and error, once it has ended. It is killed after so long, and the test fails.

    Not by `Popen.communicate`: that reads the pipe, and misses lines that an earlier `readline` left in the
    stream's buffer.
    """
    until = time.monotonic() + seconds
    output, errors = _Rest(process.stdout), _Rest(process.stderr)
    threading.Thread(target=_give, args=(process.stdin, stdin), daemon=True).start()
    if output.ended(until) and errors.ended(until):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
            return output.text(), errors.text()
    process.kill()
    process.wait(seconds)
    pytest.fail(
        f"{process.args} had not ended after {seconds:g} s, or its output stayed open. It said:\n"
        f"{output.text()}{errors.text()}"
    )


class _Rest:
    """What a stream still gives, read by a thread line by line, so that a part of it can be shown."""

    def __init__(self, stream: IO[str] | None) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def ended(self, until: float) -> bool:
        self._thread.join(max(0.0, until - time.monotonic()))
        return not self._thread.is_alive()

    def text(self) -> str:
        return "".join(list(self._lines))

    def _read(self) -> None:
        if self._stream is not None and not self._stream.closed:
            with self._stream:
                for line in self._stream:
                    self._lines.append(line)


def _give(stream: IO[str] | None, text: str | None) -> None:
    if stream is not None and not stream.closed:
        with contextlib.suppress(BrokenPipeError), stream:  # it may end before it has read its input
            stream.write(text or "")

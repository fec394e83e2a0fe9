"""Waiting in the main thread until a signal, or another thread, asks the program to stop."""

import signal
from collections.abc import Iterable
from contextlib import suppress
from queue import Empty, SimpleQueue

_LOOK_SECONDS = 0.5
"""Python runs signal handlers in the main thread only, and a signal that arrives just before that thread begins to wait,
or that another thread receives, does not end the wait. So the wait is never longer than this."""


class StopRequest:
    """What a signal handler or any thread makes, and the main thread waits for."""

    def __init__(self) -> None:
        # Not an Event: a signal handler that interrupts the main thread in the event's `wait` or `set` cannot set it.
        self._made: SimpleQueue[None] = SimpleQueue()

    def make(self, *_signal_and_frame: object) -> None:
        """Ask the program to stop. It can be used as a signal handler."""
        self._made.put(None)

    def wait(self) -> None:
        """Until it has been made."""
        while True:
            with suppress(Empty):
                return self._made.get(timeout=_LOOK_SECONDS)

    def make_on(self, numbers: Iterable[int]) -> None:
        """Let each of these signals make it."""
        for number in numbers:
            signal.signal(number, self.make)


def stop_signals() -> list[signal.Signals]:
    """SIGTERM, Ctrl-C and the end of the terminal; the last one not under nohup, which asks to ignore it."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers

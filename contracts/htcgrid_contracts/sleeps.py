"""How long a call sleeps: one that tries again by itself sleeps between its tries."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

SHORT = 0.05
"""Seconds. Who sleeps for no longer waits for something that is under way."""


@contextmanager
def noted() -> Iterator[list[float]]:
    """The seconds of each longer `time.sleep` of this thread, while the block runs."""
    me, sleep = threading.get_ident(), time.sleep
    found: list[float] = []

    def noting(seconds: float) -> None:
        if threading.get_ident() == me and seconds > SHORT:
            found.append(seconds)
        sleep(seconds)

    with patch.object(time, "sleep", noting):
        yield found

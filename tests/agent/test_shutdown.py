from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# Two signals that come together, as from a wrapper that passes on the Ctrl-C that the terminal sent already. The
# second one is raised in every place in turn where Python can run its handler while the first one's is at work.
TWO_SIGNALS = f"""
import signal, sys, time
from htcgrid.agent.shutdown import Shutdown

def at_place(wanted):
    shutdown, place, done = Shutdown(), 0, False

    def look(frame, event, argument):
        nonlocal place, done
        frame.f_trace_opcodes = True
        place += 1
        if place == wanted:
            done = True
            sys.settrace(None)
            signal.raise_signal({signal.SIGTERM:d})
        return look

    def first(*_):
        sys.settrace(look)
        shutdown.drain(1000.0)
        sys.settrace(None)

    signal.signal({signal.SIGINT:d}, first)
    signal.signal({signal.SIGTERM:d}, lambda *_: shutdown.drain(0.0))
    signal.raise_signal({signal.SIGINT:d})
    assert shutdown.is_set()
    assert not done or shutdown.deadline <= time.monotonic(), wanted
    return done

place = 1
while at_place(place):
    place += 1
print(place)
"""


def test_a_signal_that_interrupts_the_handler_of_another_is_heeded_and_does_not_wait_for_it() -> None:
    try:
        found = subprocess.run(
            [sys.executable, "-c", TWO_SIGNALS], capture_output=True, text=True, timeout=30, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.fail("it waits for ever")
    assert found.returncode == 0, found.stderr
    assert int(found.stdout) > 20, "the places were not found"

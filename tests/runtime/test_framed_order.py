"""Answers that a worker keeps are read while a task runs: after those that it had sent before."""

from __future__ import annotations

import mmap
import socket
from typing import Any

from htcgrid.runtime import frames, shared_memory
from htcgrid.runtime.framed import FramedEnvironment
from htcgrid.spi import Function, Lease, Outcome, Task, Unstarted


def answer(sequence: int) -> bytes:
    payload = str(sequence).encode()
    return frames.ANSWER.pack(len(payload), 0, 0, frames.RESULT, sequence, 0, 0) + payload


def test_an_answer_that_was_sent_while_we_looked_comes_before_those_that_are_kept() -> None:
    no_fork_server: Any = None
    environment = FramedEnvironment(Function(), no_fork_server, lambda: False)
    environment._pending = {number: Lease(Task(str(number), b"1")) for number in (1, 2, 3)}
    environment._sequence = 3
    ours, theirs = socket.socketpair()
    page = mmap.mmap(-1, shared_memory.SIZE)
    with ours, theirs:
        ours.setblocking(False)
        environment._channel, environment._page = ours, page
        theirs.send(answer(1))
        kept = answer(2)
        page[shared_memory.OUTBOX_AT : shared_memory.OUTBOX_AT + len(kept)] = kept
        shared_memory.NOTE.pack_into(page, 0, len(kept), 0, 3)
        outcomes: list[Outcome | Unstarted] = []
        environment._peek(outcomes)
    assert [outcome.task_id for outcome in outcomes] == ["1", "2"]

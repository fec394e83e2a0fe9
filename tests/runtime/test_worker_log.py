"""Supervisor and worker read one log in turn, so that each task has what it printed, in order."""

import mmap
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from htcgrid.runtime import frames, shared_memory
from htcgrid.runtime.worker import FramedClient

_SECONDS = 0.1
"""What a thread that does not wait needs, many times over."""


class Worker:
    """The worker's side in this process, and what its supervisor holds of it."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.page = mmap.mmap(-1, shared_memory.SIZE)
        self.log, self.printing = os.pipe()
        os.set_blocking(self.log, False)
        self.client = FramedClient(self.theirs, self.page, self.log, "arn", 1000)
        self.client._ready = True

    def send(self, sequence: int) -> None:
        self.ours.sendall(frames.REQUEST.pack(sequence, 1000, 0, 0, 2) + b"i" * frames.REQUEST_ID_BYTES + b"{}")

    def begin(self) -> threading.Thread:
        """Have it take the next task; the thread ends when that begins."""
        thread = threading.Thread(target=self.client.wait_next_invocation, daemon=True)
        thread.start()
        return thread

    def answer(self) -> threading.Thread:
        thread = threading.Thread(target=self.client.post_invocation_result, args=("", "null"), daemon=True)
        thread.start()
        return thread

    def answered(self) -> bytes:
        return self.page[shared_memory.OUTBOX_AT :]


@pytest.fixture
def worker() -> Iterator[Worker]:
    yield (made := Worker())
    made.ours.close()
    made.theirs.close()
    for descriptor in (made.log, made.printing):
        os.close(descriptor)


def test_no_task_begins_while_the_supervisor_reads_the_log(worker: Worker) -> None:
    worker.page[shared_memory.READING_AT] = 1
    worker.send(1)
    begun = worker.begin()
    begun.join(_SECONDS)
    assert begun.is_alive()
    worker.page[shared_memory.READING_AT] = 0
    begun.join(60)
    assert not begun.is_alive()


def test_what_is_printed_last_is_read_after_what_the_supervisor_reads(worker: Worker) -> None:
    worker.send(1)
    worker.begin().join(60)
    os.write(worker.printing, b"first, last")
    worker.page[shared_memory.READING_AT] = 1
    answering = worker.answer()
    answering.join(_SECONDS)
    assert os.read(worker.log, 7) == b"first, "
    worker.page[shared_memory.READING_AT] = 0
    answering.join(60)
    assert b"last" in worker.answered()
    assert worker.page[shared_memory.TAKING_AT] == 0

"""An execution environment for Python: AWS's runtime client over a framed Unix socket.

Several small tasks may be on their way to the worker at once; the page of `shared_memory` says which of them it runs.
"""

import mmap
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import ceil

from htcgrid.runtime import frames, identity, shared_memory
from htcgrid.runtime.environment import ExecutionEnvironment, InitFailure, Running
from htcgrid.runtime.fork_server import ForkServer
from htcgrid.runtime.marked_output import MarkedOutput
from htcgrid.runtime.memory_watch import QUIET_SECONDS, SHORT_SECONDS, MemoryWatch
from htcgrid.runtime.request_frames import request_frames
from htcgrid.runtime.wakeup import Wakeup
from htcgrid.runtime.worker_process import WorkerProcess
from htcgrid.spi import FailureKind, Function, Outcome, Unavailable, Unstarted, error_documents, limits

_HEAD = frames.ANSWER.size
_READ_BYTES = 1 << 16
"""How many bytes to read at once. Allocating more costs far more than reading a small answer: the kernel maps and unmaps it."""
_LARGE_READ_BYTES = 1 << 18
"""The same in the middle of a large answer."""
_PIECE_BYTES = 1 << 13
_LATE_SECONDS = 2.0
"""How long a worker may take to begin a task when it is its turn, in addition to the task's own time."""
_AT_ONCE_SECONDS = 0.001
_MARK_BYTES = 8
_MANY = 8
"""With more environments than this, each checks less often whether another is idle, so that the total stays the same."""
_MOST_BYTES = 2 * limits.RESPONSE_BYTES
"""The most bytes of a frame. The worker itself keeps an answer within its limit; an initialisation error has no limit."""
_KINDS = {
    frames.RESULT: None,
    frames.ERROR: FailureKind.HANDLER_ERROR,
    frames.TOO_LARGE: FailureKind.PAYLOAD_TOO_LARGE,
}


class FramedEnvironment(ExecutionEnvironment):
    """A Python worker, forked from the fork server."""

    def __init__(
        self,
        function: Function,
        fork_server: ForkServer,
        others_idle: Callable[[], bool],
        watch: MemoryWatch | None = None,
    ) -> None:
        super().__init__(function)
        self._watch = watch
        self._is_watched = self._is_to_look = False
        self._wakeup = Wakeup()
        self._fork_server = fork_server
        self._asks_others = others_idle
        self._most_kb = function.memory << 10
        self._input = b""
        self._parts: list[bytes] = []
        self._missing = 0
        """How many bytes of a large answer are still to come; those that have come are in `_input` and `_parts`."""
        self._output = bytearray()
        self._is_full = False
        """Whether the channel has not taken all of `_output`."""
        self._failure: InitFailure | None = None
        self._is_started = self._is_refused = False
        self._seen: Running | None = None
        """The invocation that was seen last, with the time of its start by this process's clock."""
        self._turn = self._timeout = 0.0
        """When the turn of the first pending task came, and the timeout of a task."""
        self._next = 1
        """No task with a lower sequence number is pending."""
        self._printed: dict[int, bytes] = {}
        """What was read here of a task's output while it ran, by sequence number; the end of it."""
        self._marked: MarkedOutput | None = None
        """Reads the output if all of it is wanted; otherwise None."""
        self._poll = select.poll()

    def start(self) -> None:
        self._channel, theirs = socket.socketpair()
        page = os.memfd_create("shared_memory", os.MFD_CLOEXEC)
        os.ftruncate(page, shared_memory.SIZE)
        self._page = mmap.mmap(page, shared_memory.SIZE)
        request = {
            "command": [],
            "folder": str(self._function.code.resolve()),
            "handler": self._function.handler,
            "function_arn": identity.function_arn(
                self._function.function_name, self._function.aws_region, self._function.role_arn
            ),
            "limit": limits.RESPONSE_BYTES,
            "environment": self._variables(),
        }
        mark = b"\0" + os.urandom(_MARK_BYTES).hex().encode() if self.output.is_wanted else b""
        if mark:
            request["mark"] = mark.hex()
        try:
            self._process = WorkerProcess(self._fork_server, request, theirs.fileno(), page)
        except BaseException:
            self._channel.close()
            self._page.close()
            raise
        finally:
            theirs.close()
            os.close(page)
        self._is_started = True
        if mark:
            self._marked = MarkedOutput(self._process, self._page, mark, self.output, self.id, self._pending)
        self._channel.setblocking(False)
        self._channel_fd = self._channel.fileno()
        self._poll.register(self._channel_fd, select.POLLIN)
        self._poll.register(self._process.pidfd, select.POLLIN)
        self._poll.register(self._wakeup.open(), select.POLLIN)
        if self._watch is not None:
            self._watch.add(self, self._process.pid, self._function.memory)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.remove(self)
        self._wakeup.close()
        if self._is_started:  # else `start` has closed them
            with suppress(Unavailable):  # its parent has ended, and so has it
                self._process.kill()
            if self._marked is not None:
                self._marked.end()
            self._process.close()
            self._channel.close()
            self._page.close()

    # --- the transport ---

    def _submit(self, timeout: float) -> None:
        self._turn, self._timeout = time.monotonic(), timeout
        for piece in request_frames(self._pending.items(), timeout, _PIECE_BYTES):
            self._send(piece)  # the worker begins while we write the rest

    def _collect(self, wait: float) -> Sequence[Outcome | Unstarted]:
        self._send()
        if wait > SHORT_SECONDS:
            self._be_watched()
        # A system call lets another thread run, and with hundreds of threads it takes long to get a turn again.
        ready = dict(self._poll.poll(wait * 1000))
        if self._wakeup.is_set:
            self._wakeup.clear()
        outcomes: list[Outcome | Unstarted] = []
        has_ended = self._process.pidfd in ready
        if has_ended or ready.get(self._channel_fd, 0) & ~select.POLLOUT:
            while self._receive() >= (1 if has_ended else _READ_BYTES):
                self._decode(outcomes)
            self._decode(outcomes)
        if not outcomes:
            self._peek(outcomes)
        if has_ended:
            self._take_the_rest(outcomes)
        if outcomes:
            self._turn = time.monotonic()
            if self._is_watched and self._watch is not None:
                self._watch.leave(self)
                self._is_watched = False
        return outcomes

    # --- waiting ---

    def wake(self) -> None:
        self._wakeup.set()

    def look_now(self) -> None:
        """Check the memory of the running task. Another thread calls it."""
        self._is_to_look = True
        self._wakeup.set()

    def unread_bytes(self) -> int:
        return self._process.log.unread_bytes()

    def _be_watched(self) -> None:
        if self._watch is not None and not self._is_watched:
            self._is_watched = True
            self._watch.enter(self)

    def _look_seconds(self) -> float:
        if self._is_to_look:
            return _AT_ONCE_SECONDS
        if self._watch is None or self._process.log.is_chatty or not self._is_in_order():
            return super()._look_seconds()
        return QUIET_SECONDS

    def _is_in_order(self) -> bool:
        """Whether the worker runs the first pending task, so that its answer is what comes next."""
        noted = self._noted()
        return noted is None or noted.sequence == next(iter(self._pending), 0)

    def _wait_seconds(self, timeout: float, *, recalled: bool) -> float:
        wait = super()._wait_seconds(timeout, recalled=recalled)
        if len(self._pending) == 1 and self._noted() is None:
            # The task is about to begin; if it never does, it ends at its timeout all the same.
            left = self._turn + timeout - time.monotonic()
            return min(self._look_seconds(), left) if left > 0 else wait
        return wait

    def _spare_seconds(self) -> float:
        return super()._spare_seconds() * (1.0 if self._watch is None else max(1.0, self._watch.size / _MANY))

    def _send(self, more: bytes = b"") -> None:
        """Send what the channel has not taken yet, and `more` after it."""
        if self._output:
            self._output += more
        waiting = self._output or more
        if not waiting:
            return
        try:
            sent = self._channel.send(waiting)
        except BlockingIOError:
            sent = 0
        except (BrokenPipeError, ConnectionResetError):
            sent = len(waiting)  # the worker has ended, which its pidfd shows
        if waiting is self._output:
            del self._output[:sent]
        elif sent < len(more):
            self._output += memoryview(more)[sent:]
        if self._is_full != bool(self._output):
            self._is_full = not self._is_full
            self._poll.modify(self._channel_fd, select.POLLIN | (select.POLLOUT if self._is_full else 0))

    def _receive(self) -> int:
        """Read what has come; returns how many bytes that was. With `_READ_BYTES` or more there may be more."""
        try:
            chunk = self._channel.recv(_READ_BYTES if self._missing < _READ_BYTES else _LARGE_READ_BYTES)
        except (BlockingIOError, ConnectionResetError):
            return 0
        if self._missing > 0:
            self._parts.append(chunk)
            self._missing -= len(chunk)
        else:
            self._input = self._input + chunk if self._input else chunk
        return len(chunk)

    def _decode(self, outcomes: list[Outcome | Unstarted]) -> None:
        if self._missing > 0:
            return
        if self._parts:
            self._input = b"".join((self._input, *self._parts))
            self._parts.clear()
        self._input = left = self._input[self._read_frames(self._input, outcomes) :]
        if len(left) >= _HEAD:
            # A large answer comes in parts, which are put together once all are there.
            size, log_size, *_ = frames.ANSWER.unpack_from(left)
            self._missing = _HEAD + log_size + size - len(left)

    def _take_the_rest(self, outcomes: list[Outcome | Unstarted]) -> None:
        """Read what an ended worker has left."""
        while self._receive():
            self._decode(outcomes)
        if not self._is_refused:
            self._salvage(outcomes)
        if self._marked is not None:
            self._marked.end()

    def _salvage(self, outcomes: list[Outcome | Unstarted]) -> None:
        """Read the answers that the worker had not sent when it ended."""
        kept, _, _ = shared_memory.NOTE.unpack_from(self._page)
        self._read_frames(
            self._page[shared_memory.OUTBOX_AT : shared_memory.OUTBOX_AT + min(kept, shared_memory.OUTBOX_SIZE)],
            outcomes,
        )

    def _peek(self, outcomes: list[Outcome | Unstarted]) -> None:
        """Read the answers that the worker keeps while a task of the same batch takes long."""
        noted = shared_memory.NOTE.unpack_from(self._page)
        kept, _, running = noted
        if running and kept:
            answers = self._page[shared_memory.OUTBOX_AT : shared_memory.OUTBOX_AT + kept]
            # The worker writes answers only between two tasks. So the same note before and after, with a task running,
            # means that nothing was written during this read.
            if shared_memory.NOTE.unpack_from(self._page) == noted:
                while self._receive():  # first what was sent before these and has come meanwhile
                    self._decode(outcomes)
                self._read_frames(answers, outcomes)

    def _read_frames(self, data: bytes, outcomes: list[Outcome | Unstarted]) -> int:
        """Read all whole frames; returns where the first that is not whole begins.

        Runs once for each of tens of thousands of tasks a second, so the common case is in one place, without calls.
        """
        at, end, unpack, head_size = 0, len(data), frames.ANSWER.unpack_from, frames.ANSWER.size
        pending, append, environment, kinds = self._pending, outcomes.append, self.id, _KINDS
        age, turn = int((time.monotonic() - self._created) * 1e9), self._next
        most_kb, most_size, most_log, marked = self._most_kb, _MOST_BYTES, limits.LOG_TAIL_BYTES, self._marked
        least_mb, printed = ceil(self._peak_mb), self._printed
        while (log_at := at + head_size) <= end:
            size, log_size, peak, kind, sequence, started, duration = unpack(data, at)
            if (
                size > most_size
                or log_size > most_log
                or duration > age
                or not ((sequence == turn and kind in kinds) or self._may_come(kind, sequence))
            ):
                self._refuse()
                return end
            payload_at = log_at + log_size
            after = payload_at + size
            if after > end:
                break
            at = after
            if kind in kinds:
                # Before the lease is removed: what was printed is handed over with it.
                tail = marked.tail_of(sequence) if log_size and marked is not None else None
                lease = pending.pop(sequence, None)
                if lease is None:
                    continue  # answered already, or taken back
                turn = self._next = sequence + 1
                # Memory above the limit is pages of files, which the kernel can drop.
                memory_mb = (peak if peak < most_kb else most_kb) >> 10  # noqa: FURB136 - a call costs more than the line
                if least_mb:
                    memory_mb = max(memory_mb, least_mb)
                payload = data[payload_at:at] if kind != frames.TOO_LARGE else error_documents.response_too_large()
                duration_ms = duration / 1e6
                billed_ms, init_ms = ceil(duration_ms), None
                if self._init_ms:
                    init_ms, self._init_ms = self._init_ms, 0.0
                    billed_ms = ceil(duration_ms + init_ms)
                log = data[log_at:payload_at] if log_size else b""
                if tail is not None:
                    log = tail
                elif printed:
                    log = self._with_printed(sequence, log)
                append(
                    Outcome(
                        lease.task.id,
                        payload,
                        kinds[kind],
                        started / 1e9,
                        duration_ms,
                        billed_ms,
                        memory_mb,
                        log,
                        init_ms,
                        environment,
                    )
                )
            else:
                self._note(kind, sequence, duration, data[payload_at:at], outcomes)
        return at

    def _may_come(self, kind: int, sequence: int) -> bool:
        """Whether a worker may send this frame now. It answers in order, and may repeat what is not pending any more."""
        if kind in {frames.READY, frames.INIT_ERROR}:
            return self._init_ms is None
        if kind not in _KINDS and kind != frames.DROPPED:
            return False
        if sequence not in self._pending:
            return 0 < sequence <= self._sequence
        first, end = shared_memory.RECALL.unpack_from(self._page, shared_memory.RECALL_AT)
        return (kind in _KINDS or first <= sequence < end) and sequence == next(iter(self._pending))

    def _refuse(self) -> None:
        """End an environment that sent an impossible frame: something other than AWS's client writes into its socket.

        The task that runs gets the failure, so that a task that does this again and again is counted.
        """
        self._is_refused = True
        self._process.kill()

    def _note(
        self, kind: int, sequence: int, duration: int, payload: bytes, outcomes: list[Outcome | Unstarted]
    ) -> None:
        """Process a frame that is not an answer."""
        if kind == frames.READY:
            self._init_ms = duration / 1e6
            if self._marked is not None:
                self._marked.look()
        elif kind == frames.INIT_ERROR:
            self._failure = InitFailure(payload)
        elif (lease := self._pending.pop(sequence, None)) is not None:
            outcomes.append(Unstarted(lease.task.id))  # dropped, as it was told to

    def _init_failure(self) -> InitFailure | None:
        return self._failure

    def _running(self) -> Running | None:
        """What the worker has noted, if it agrees with this process's clock and the order of the tasks.

        The page belongs to the handler's process, which may write anything into it.
        """
        noted, first = self._noted(), next(iter(self._pending), 0)
        if self._is_refused:
            return Running(first, time.monotonic()) if first else None
        seen = self._seen if self._seen is not None and self._seen.sequence == first else None
        if noted is not None and noted.sequence == first:
            if seen is None:
                seen = self._seen = Running(first, min(noted.since, time.monotonic()))
            return seen
        since = seen.since if seen else self._turn + _LATE_SECONDS
        if first and time.monotonic() - since >= self._timeout:
            return Running(first, since)
        if noted is None and seen is None:
            return None
        if self._process.has_ended():
            return seen or (
                Running(first, self._turn) if noted is not None and noted.sequence in self._pending else None
            )
        # Its answer is on the way, or the worker has not begun it.
        return Running(noted.sequence, time.monotonic()) if noted is not None else None

    def _noted(self) -> Running | None:
        (sequence,) = shared_memory.RUNNING.unpack_from(self._page, shared_memory.RUNNING_AT)
        _, since, _ = shared_memory.NOTE.unpack_from(self._page)
        return Running(sequence, since / 1e9) if sequence else None

    def is_loading(self) -> bool:
        return not self._is_started or self._process.is_working()

    def _starved_seconds(self) -> float:
        return self._process.starved_seconds()

    def _others_idle(self) -> bool:
        return self._asks_others()

    def _recall(self, running: Running) -> None:
        shared_memory.RECALL.pack_into(self._page, shared_memory.RECALL_AT, running.sequence + 1, self._sequence + 1)

    # --- the process ---

    def _has_ended(self) -> bool:
        return self._process.has_ended()

    def _end(self) -> int:
        return self._process.kill()

    def _cause_of_end(self, request: str) -> tuple[FailureKind, bytes]:
        if self._is_refused:
            return FailureKind.EXIT, error_documents.impossible_answer(request)
        return super()._cause_of_end(request)

    def _memory_mb(self) -> float:
        self._read_log()
        self._is_to_look = False
        watch = self._watch if self._is_watched else None
        if watch is not None:
            watch.begin_look(self)
        used = self._process.memory_mb()
        if watch is not None:
            watch.end_look(self, used)
        return used

    def _charged_mb(self) -> float:
        return self._process.charged_mb()

    def _is_chatty(self) -> bool:
        return self._process.log.is_chatty

    def _read_log(self) -> None:
        """Read what the running task has printed so far; the worker sends the rest with its answer."""
        if self._marked is not None:
            self._marked.look()
            return
        self._page[shared_memory.READING_AT] = 1
        try:
            if self._page[shared_memory.TAKING_AT]:
                return  # the worker reads it, for its answer
            running = self._running()
            sequence = running.sequence if running else 0
            tail = self._process.log.tail()
        finally:
            self._page[shared_memory.READING_AT] = 0
        if tail:
            self._printed[sequence] = (self._printed.get(sequence, b"") + tail)[-limits.LOG_TAIL_BYTES :]

    def _with_printed(self, sequence: int, log: bytes) -> bytes:
        """All that a task printed, and before it what was printed while nothing ran."""
        parts = [self._printed.pop(number, b"") for number in (0, sequence)]
        return b"".join((*parts, log))[-limits.LOG_TAIL_BYTES :]

    def _log_tail(self) -> bytes:
        if self._marked is not None:
            return self._marked.last_tail()
        tail = b"".join((*self._printed.values(), self._process.log.tail()))
        self._printed.clear()
        return tail[-limits.LOG_TAIL_BYTES :]

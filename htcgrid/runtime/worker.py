"""The worker's side of the framed socket: a client that `awslambdaric.bootstrap.run` takes for AWS's own.

Runs inside the execution environment, so it imports only what a worker needs anyway. The loop in `bootstrap.run` gets an
event from `wait_next_invocation` and gives the handler's answer or error to `post_invocation_result` or
`post_invocation_error`. All run once a task, so they are written for speed.
"""

import fcntl
import mmap
import os
import resource
import select
import socket
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

from awslambdaric.lambda_runtime_client import BaseLambdaRuntimeClient

from htcgrid.runtime import frames, shared_memory

_FLUSH_NS = 1_000_000  # an answer waits no longer than this to be sent together with others
_READ_BYTES = 1 << 16
"""How many bytes to read at once: allocating more costs more than reading a small event. A large one is read in larger parts."""
_LARGE_READ_BYTES = 1 << 18
_HEAD = frames.REQUEST.size
_TRACE_AT = _HEAD + frames.REQUEST_ID_BYTES
_ANSWER_HEAD = frames.ANSWER.size
_LOG_TAIL_BYTES = 4096
_NOTHING = bytes(4)
_READER_SECONDS = 0.0001  # about what the supervisor needs
_NOTE_IN, _RECALL_FROM = shared_memory.NOTE.pack_into, shared_memory.RECALL.unpack_from
_RECALL_AT, _READING_AT = shared_memory.RECALL_AT, shared_memory.READING_AT
_REQUEST_FROM, _ANSWER_IN = frames.REQUEST.unpack_from, frames.ANSWER.pack_into
_READS_FROM, _READS_TO = shared_memory.READS_AT, shared_memory.READS_AT + shared_memory.READS.size
_MADV_WIPEONFORK = 18
"""Of Linux since 4.14; the mmap module has no name for it."""
_INIT_MESSAGE_LETTERS = 10_000
"""What is kept of the message of an initialisation error that is larger than the limit of an answer."""


class Invocation:
    """What `bootstrap.run` reads of an event; one object serves them all."""

    def __init__(self, function_arn: str) -> None:
        self.invoke_id = self.client_context = self.invocation_id = ""
        self.event_body = b""
        self.deadline_time_in_ms = 0
        self.invoked_function_arn = function_arn
        self.content_type = "application/json"
        self.cognito_identity = self.tenant_id = None
        self.x_amzn_trace_id: str | None = None


class FramedClient:
    """Speaks `frames` on a socket and keeps `shared_memory` up to date. `loaded` is called once the handler is loaded."""

    marshaller = BaseLambdaRuntimeClient.marshaller

    def __init__(
        self,
        channel: socket.socket,
        page: mmap.mmap,
        log: int,
        function_arn: str,
        limit: int,
        mark: bytes = b"",
        *,
        loaded: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel = channel
        self._page = page
        self._outbox = memoryview(page)[shared_memory.OUTBOX_AT :]
        self._log = log
        self._log_size = bytearray(4)
        self._mark = mark
        """Written after the output of each task, where the supervisor takes all that is printed."""
        self._marks_to = os.dup(1) if mark else -1
        self._marked_size = bytes(4)
        """How much the log held behind the last mark."""
        self._reads = bytes(8)
        self._ours = _forgotten_by_forks()
        """`[0]` is 1 in this process, and 0 in processes that the handler forks from it."""
        self._limit = limit
        self._loaded = loaded
        self._invocation = Invocation(function_arn)
        self._input = b""
        self._at = 0
        self._sequence = 0
        self._kept = 0
        self._monotonic_ns, self._time_ns = time.monotonic_ns, time.time_ns
        """Kept here, since a handler that freezes the time replaces the functions of the module."""
        self._began = self._flushed = self._monotonic_ns()
        self._started = self._time_ns()
        self._peak = 0
        self._ready = False

    # --- what bootstrap.run calls ---

    def wait_next_invocation(self) -> Invocation:
        if not self._ready:
            self._ready = True
            self._loaded()
            self._answer(frames.READY, b"")
        while True:
            if self._at + _HEAD > len(self._input):
                self._fill(_HEAD)
            sequence, timeout_ms, trace_size, context_size, event_size = _REQUEST_FROM(self._input, self._at)
            size = _TRACE_AT + trace_size + context_size + event_size
            if self._at + size > len(self._input):
                self._fill(size)
            trace_at = self._at + _TRACE_AT
            context_at = trace_at + trace_size
            event_at = context_at + context_size
            id_at, self._at = self._at + _HEAD, event_at + event_size
            began = self._began = self._monotonic_ns()
            # The note is written before the recall is read. The supervisor writes its recall and reads the note a moment
            # later, so it never takes back a task that has begun.
            _NOTE_IN(self._page, 0, self._kept, began, sequence)
            first, end = _RECALL_FROM(self._page, _RECALL_AT)
            self._sequence = sequence
            if not first <= sequence < end:
                break
            self._answer(frames.DROPPED, b"")
        if self._page[_READING_AT]:
            self._wait_for_the_reader()
        self._started = self._time_ns()
        data, invocation = self._input, self._invocation
        invocation.invoke_id = data[id_at:trace_at].decode()
        # Without one, AWS's client removes the trace of the last invocation, and `worker_environ` makes a new one.
        invocation.x_amzn_trace_id = data[trace_at:context_at].decode() if trace_size else None
        invocation.client_context = data[context_at:event_at].decode()
        invocation.event_body = data[event_at : self._at]
        invocation.deadline_time_in_ms = self._started // 1_000_000 + timeout_ms
        return invocation

    def post_invocation_result(
        self, _invoke_id: str, result: str | bytes, _content_type: str = "", _invocation_id: str | None = None
    ) -> None:
        payload = result.encode() if isinstance(result, str) else result
        if len(payload) > self._limit:
            self._answer(frames.TOO_LARGE, b"")
        else:
            self._answer(frames.RESULT, payload)

    def post_invocation_error(
        self, _invoke_id: str, error: str, _xray: str = "", _invocation_id: str | None = None
    ) -> None:
        payload = error.encode()
        if len(payload) > self._limit:
            self._answer(frames.TOO_LARGE, b"")
        else:
            self._answer(frames.ERROR, payload)

    def post_init_error(self, error: Any, _error_type: str | None = None) -> None:
        self._ready = True
        document = self.marshaller.marshal_response(error)[0].encode()
        if len(document) > self._limit:
            shown = {**error, "errorMessage": str(error["errorMessage"])[:_INIT_MESSAGE_LETTERS], "stackTrace": []}
            document = self.marshaller.marshal_response(shown)[0].encode()
        self._answer(frames.INIT_ERROR, document)
        self.flush()

    def restore_next(self) -> None:
        """Nothing to restore: workers are forked, not thawed."""

    def report_restore_error(self, error: Any) -> None:
        self.post_init_error(error)

    def _wait_for_the_reader(self) -> None:
        """Wait until the supervisor has read what was printed. Where the supervisor has ended, so does this process."""
        while self._page[_READING_AT]:
            time.sleep(_READER_SECONDS)

    # --- the socket ---

    def _fill(self, size: int) -> None:
        """Read until there are `size` bytes of input from `_at` on. Answers are sent first, since this may wait long."""
        self.flush()
        parts = [self._input[self._at :]]
        missing = size - len(parts[0])
        while missing > 0:
            chunk = self._channel.recv(_READ_BYTES if missing < _READ_BYTES else _LARGE_READ_BYTES)
            if not chunk:
                raise SystemExit(0)  # the supervisor has ended
            parts.append(chunk)
            missing -= len(chunk)
        self._input = b"".join(parts)
        self._at = 0

    def _answer(self, kind: int, payload: bytes) -> None:
        if not self._ours[0]:
            _end_forked_child()
        now = self._monotonic_ns()
        duration = now - self._began
        if now - self._flushed > _FLUSH_NS or not self._peak:
            self._peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        # What was printed during the initialisation stays in the log, for the first task's tail or for the supervisor.
        log = b""
        if self._mark:
            log = self._put_mark()
        elif self._sequence:
            fcntl.ioctl(self._log, termios.FIONREAD, self._log_size)
            if self._log_size != _NOTHING:
                log = self._log_tail()
        size, log_size = len(payload), len(log)
        head = (size, log_size, self._peak, kind, self._sequence, self._started, duration)
        kept, whole = self._kept, _ANSWER_HEAD + log_size + size
        if kept + whole > shared_memory.OUTBOX_SIZE:
            self.flush()
            kept = 0
            if whole > shared_memory.OUTBOX_SIZE:
                self._channel.sendall(frames.ANSWER.pack(*head) + log)
                self._channel.sendall(payload)
                _NOTE_IN(self._page, 0, 0, self._began, 0)
                return
        outbox, end = self._outbox, kept + whole
        _ANSWER_IN(outbox, kept, *head)
        if log_size:
            outbox[kept + _ANSWER_HEAD : end - size] = log
        outbox[end - size : end] = payload
        self._kept = end
        _NOTE_IN(self._page, 0, end, self._began, 0)
        if now - self._flushed > _FLUSH_NS:
            self.flush()

    def flush(self) -> None:
        """Send what is kept, then forget it: if the worker is killed in between, the supervisor reads it twice, and drops the
        second by its sequence number."""
        if self._kept and self._ours[0]:
            self._channel.sendall(self._outbox[: self._kept])
            self._kept = 0
            _NOTE_IN(self._page, 0, 0, self._began, 0)
        self._flushed = self._monotonic_ns()

    def _put_mark(self) -> bytes:
        """Write a mark behind what was printed since the last one; says whether there is one, as a log of one byte."""
        fcntl.ioctl(self._log, termios.FIONREAD, self._log_size)
        # After the line above: whoever has read before it has counted before it.
        reads = self._page[_READS_FROM:_READS_TO]
        if self._log_size == self._marked_size and reads == self._reads:
            return b""
        mark = self._mark + shared_memory.MARK_SEQUENCE.pack(self._sequence)
        while True:
            try:
                os.write(self._marks_to, mark)  # whole or not at all: it is shorter than PIPE_BUF
            except BlockingIOError:  # a program of the handler's has made its standard output so
                select.select([], [self._marks_to], [])
            else:
                break
        is_being_read = int.from_bytes(reads, sys.byteorder) & 1
        # What is read meanwhile is not known; what was printed before the first task is in its tail. Both ask for a mark.
        self._reads = b"" if is_being_read or not self._sequence else reads
        size = int.from_bytes(self._log_size, sys.byteorder) + len(mark)
        self._marked_size = size.to_bytes(4, sys.byteorder)
        return b"\1"

    def _log_tail(self) -> bytes:
        """The end of what was printed since the last answer; the log is emptied."""
        self._page[shared_memory.TAKING_AT] = 1
        if self._page[_READING_AT]:
            self._wait_for_the_reader()
        tail = self._read_log()
        self._page[shared_memory.TAKING_AT] = 0
        return tail

    def _read_log(self) -> bytes:
        tail = b""
        # No more than is there at first: what a process of the handler's goes on printing is the next task's.
        fcntl.ioctl(self._log, termios.FIONREAD, self._log_size)
        left = int.from_bytes(self._log_size, sys.byteorder)
        while left > 0:
            try:
                chunk = os.read(self._log, left)
            except BlockingIOError:
                break  # the supervisor has read it
            left -= len(chunk)
            tail = (tail + chunk)[-_LOG_TAIL_BYTES:]
        return tail


def _forgotten_by_forks() -> mmap.mmap:
    """A page that begins with a 1, and that the kernel clears in every process that is forked from this one.

    Reading it costs a tenth of a system call, and notices forks by C code as well.
    """
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page.madvise(_MADV_WIPEONFORK)
    page[0] = 1
    return page


def _end_forked_child() -> None:
    """End a process that the handler has forked, and that has returned from the handler as if it were the worker.

    Its parent answers the invocation: this process must not write to the socket that they share.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)

"""What a Python worker prints, assigned exactly to each task.

The worker writes a mark into its own log after what each task has printed, so the log need not be read at the moment when a
task ends. Text after the last mark belongs to a task for certain only if the same task ran before and after the read;
otherwise it waits for its mark.
"""

import mmap
from collections.abc import Mapping

from htcgrid.runtime import shared_memory
from htcgrid.runtime.log_pipe import LOG_BYTES_AT_ONCE
from htcgrid.runtime.output_lines import OutputLines
from htcgrid.runtime.worker_process import WorkerProcess
from htcgrid.spi import HandlerOutput, Lease, limits

_SEQUENCE_BYTES = shared_memory.MARK_SEQUENCE.size
_MOST_UNKNOWN = 4 * LOG_BYTES_AT_ONCE
"""More than this is passed on at once: a handler can write into the page, and one that always does must not fill memory."""


class MarkedOutput:
    """Reads one worker's log. Used by the thread that supervises it."""

    def __init__(
        self,
        process: WorkerProcess,
        page: mmap.mmap,
        mark: bytes,
        output: HandlerOutput,
        environment: str,
        pending: Mapping[int, Lease],
    ) -> None:
        self._process = process
        self._page = page
        self._mark = mark
        self._output = output
        self._environment = environment
        self._pending = pending
        self._reads = 0
        self._unknown = b""
        """What was read behind the last mark while one task ended and another began."""
        self._lines = OutputLines()
        self._tail = b""
        self._tails: dict[int, bytes] = {}

    def tail_of(self, sequence: int) -> bytes:
        """The log tail of a task that has answered, and whose answer says that it printed something."""
        while sequence in self._pending and sequence not in self._tails and self.read():
            pass
        return self._tails.pop(sequence, b"")

    def last_tail(self) -> bytes:
        """The end of what was printed by tasks that have not answered."""
        self.look()
        tail = b"".join((*self._tails.values(), self._tail))
        self._tails.clear()
        self._tail = b""
        return tail[-limits.LOG_TAIL_BYTES :]

    def look(self) -> None:
        """Read what was printed up to now."""
        while self.read() == LOG_BYTES_AT_ONCE:
            pass

    def end(self) -> None:
        """The worker has ended: its last output is a line too. Limited, because processes that it left may print for ever."""
        size = read = self.read()
        while read and size <= LOG_BYTES_AT_ONCE:
            read = self.read()
            size += read
        self._hand_on(self._lines.rest(), self._now()[0])

    def read(self) -> int:
        """Read what the pipe holds; returns how many bytes it held."""
        before = self._now()
        self._count()
        piece = self._process.read_piece()
        self._count()
        if not piece and not self._unknown:
            return 0
        data, self._unknown = self._unknown + piece, b""
        if len(piece) == LOG_BYTES_AT_ONCE:  # only then a mark may be cut
            data, self._unknown = self._without_cut_mark(data)
        text, *marked = data.split(self._mark)
        for each in marked:
            if len(each) < _SEQUENCE_BYTES:  # not one of the worker's
                continue
            (sequence,) = shared_memory.MARK_SEQUENCE.unpack_from(each)
            self._end_task(sequence, text)
            text = each[_SEQUENCE_BYTES:]
        is_known = before == self._now() and not self._unknown
        if text and (is_known or len(text) > _MOST_UNKNOWN):
            self._hand_on(self._lines.add(text), before[0])
            self._keep(text)
        else:
            self._unknown = text + self._unknown
        return len(piece)

    def _end_task(self, sequence: int, text: bytes) -> None:
        lines = self._lines
        if not lines.begun and not self._tail and text[-1:] == b"\n":  # the common case: all of a task in one piece
            self._output.write(self._pending.get(sequence), self._environment, text)
            self._tail = text[-limits.LOG_TAIL_BYTES :]
        else:
            whole = lines.add(text)
            self._hand_on(whole + lines.rest(), sequence)
            self._keep(text)
        if sequence in self._pending:  # otherwise printed during the initialisation, for the first tail
            self._tails[sequence] = self._tail
            self._tail = b""

    def _hand_on(self, lines: bytes, sequence: int) -> None:
        if lines:
            self._output.write(self._pending.get(sequence), self._environment, lines)

    def _keep(self, text: bytes) -> None:
        tail = text[-limits.LOG_TAIL_BYTES :]
        self._tail = (self._tail + tail)[-limits.LOG_TAIL_BYTES :] if self._tail else tail

    def _now(self) -> tuple[int, int]:
        """The sequence number of the task that runs, 0 for none, and when it began."""
        (sequence,) = shared_memory.RUNNING.unpack_from(self._page, shared_memory.RUNNING_AT)
        _, since, _ = shared_memory.NOTE.unpack_from(self._page)
        return sequence, since

    def _count(self) -> None:
        """Tell the worker that a read begins or has ended: the bytes left in the pipe do not say that."""
        self._reads += 1
        shared_memory.READS.pack_into(self._page, shared_memory.READS_AT, self._reads)

    def _without_cut_mark(self, data: bytes) -> tuple[bytes, bytes]:
        whole = len(self._mark) + _SEQUENCE_BYTES
        if not data.startswith(self._mark, len(data) - whole):
            for at in range(len(data) - whole + 1, len(data)):
                if self._mark.startswith(data[at : at + len(self._mark)]):
                    return data[:at], data[at:]
        return data, b""

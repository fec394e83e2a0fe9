"""Writes results to a file: each line is one result, a JSON object."""

import gzip
import logging
import os
import stat
import threading
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

from pydantic import Field

from htcgrid.builtin import manifest_file
from htcgrid.builtin.id_table import Ids, IdTable
from htcgrid.builtin.jsonl_batches import large_lines, lines, pieces_of
from htcgrid.builtin.jsonl_current import compact, every_result, failed
from htcgrid.builtin.jsonl_descriptor import locked, standard_output, synchronise, write_all
from htcgrid.builtin.jsonl_repair import resume
from htcgrid.runtime.printable import printable
from htcgrid.spi import GENERATION, Function, Plugin, Rejected, Result, ResultSink, Task, Unavailable, generation_of

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 0.5
_RESUME_LINES = 1000
_LARGE_BYTES = 4096
"""If answers are larger on average, they are written without a copy."""


class JsonlSink(ResultSink):
    """Appends results to a JSON Lines file. Tasks whose results are in it do not run again."""

    class Config(Plugin.Config):
        path: Path = Field(
            description='the file to append to; one whose name ends in ".gz" is written as gzip; "-" is standard output'
        )

    config: Config
    max_batch = 10_000
    lists_failures = True

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._path = str(config.path)
        self._name = "Standard output" if self._path == "-" else self._path
        self._handler = zlib.crc32(function.handler.encode())
        self._known = IdTable()
        self._states = IdTable()
        """For tasks that failed or were run again: their generation and success, as in `Head.state`."""
        self._failures = 0
        self._replaced = 0
        """How many lines hold failures that a later generation has replaced; they are dropped at the end."""
        self._lock = threading.Lock()
        self._fd = -1
        self._regular = False
        """Whether it is a regular file, which can be synced and cut, and not standard output, a pipe or a device."""
        self._is_terminal = False
        self._size = 0
        """The length of the file with all results that were put; what follows is a part of a batch and is cut off."""
        self._torn = False
        self._gone = ""
        """The reason why no more results can be put; empty while they can."""
        self._unsent = b""
        """For an output that is not a regular file: lines of results that were put and are not written yet."""

    def open(self) -> None:
        path = self._path
        if path == "-":
            self._fd = standard_output()
            self._is_terminal = os.isatty(self._fd)
            return
        try:
            self._fd = locked(path)
        except BlockingIOError:
            raise Rejected(
                f"[sink] path = {path!r}: another run is writing to it. Wait for it, or name another file."
            ) from None
        except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
            reason = getattr(error, "strerror", None) or error
            message = (
                f"[sink] path = {path!r} cannot be written: {reason}. Name a file in a folder that you may write to."
            )
            raise Rejected(message) from None
        self._is_terminal = os.isatty(self._fd)
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            self.keeps_runs = True
            self._resume()
            self._regular = True
            self._compact()

    def _resume(self) -> None:
        """Read which results the file has already."""
        try:
            heads = resume(self._fd, self.config.path)
            while some := list(islice(heads, _RESUME_LINES)):
                self._known.update(Ids([head.task_id for head in some]), [head.fingerprint for head in some])
                for head in some:
                    if head.failed or head.generation:
                        self._note(head.task_id, head.state)
        except OSError as error:
            message = f"[sink] path = {self._path!r} cannot be read or repaired: {error.strerror or error}."
            raise Rejected(message) from error
        self._size = os.fstat(self._fd).st_size

    def close(self) -> None:
        """Raises `Rejected` if the file was removed, or lacks results that were put."""
        # With a time limit: a `put` whose reader has stopped reading holds the lock, and the run must end nevertheless.
        held = self._lock.acquire(timeout=_CLOSE_SECONDS)
        try:
            if self._fd >= 0 and held and self._regular and not self._gone:
                self._check()
                self._compact()
        finally:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1
            if held:
                self._lock.release()

    def put(self, results: Sequence[Result]) -> None:
        with self._lock:
            ids = Ids([result.task.id for result in results])
            if any(self._known.get_all(ids)) or len(set(ids.task_ids)) < len(results):
                results = self._new(results)
                ids = Ids([result.task.id for result in results])
            if results:
                fingerprints = self._fingerprints([result.task for result in results])
                is_again = True in [GENERATION in result.task.attributes for result in results]
                self._append(list(self._written(results, fingerprints, is_again=is_again)))
                self._known.update(ids, fingerprints)
                for result in results:
                    if result.outcome.failure is not None or (is_again and GENERATION in result.task.attributes):
                        self._note(result.task.id, _state(result))
            elif self._regular:
                self._check()
            self._send()

    def _written(self, results: Sequence[Result], fingerprints: Sequence[int], *, is_again: bool) -> Iterator[bytes]:
        """The lines of these results, as bytes for the file, piece by piece: a text and its bytes are two copies.

        `is_again`: some are of a later generation.
        """
        for start, end, size in pieces_of([len(result.outcome.payload) for result in results]):
            some, marks = results[start:end], fingerprints[start:end]
            if size > _LARGE_BYTES * len(some) and not self._is_terminal and not self._path.endswith(".gz"):
                yield from large_lines(some, marks)
                continue
            text = lines(some, marks, is_again=is_again)
            encoded = (printable(text) if self._is_terminal else text).encode("utf-8", "surrogatepass")
            yield gzip.compress(encoded, 6) if self._path.endswith(".gz") else encoded

    def _new(self, results: Sequence[Result]) -> Sequence[Result]:
        """The results that the file does not have yet, or that replace a failure in it; each task once."""
        last: dict[str, Result] = {}
        for result in results:
            if result.task.id not in last or generation_of(last[result.task.id].task) < generation_of(result.task):
                last[result.task.id] = result
        return [
            result
            for task_id, result in last.items()
            if self._known.get(task_id) is None or self._is_redriven(result.task)
        ]

    def _is_redriven(self, task: Task) -> bool:
        """Whether the file has a failure of this task of an earlier generation."""
        state = self._states.get(task.id) or 1
        return bool((state - 1) & 1) and (state - 1) >> 1 < generation_of(task)

    def _note(self, task_id: str, state: int) -> None:
        """Remember the new state of a task that failed or was run again."""
        before = self._states.get(task_id)
        self._states[task_id] = state
        self._replaced += before not in {None, state}
        self._failures += ((state - 1) & 1) - (((before or 1) - 1) & 1)

    def _compact(self) -> None:
        """Drop the failures that were replaced."""
        if not self._replaced or not self._regular:
            return
        try:
            self._fd = compact(self._fd, self.config.path)
        except OSError as error:
            log.warning(
                "%s keeps the earlier failures of tasks that were run again, because a new file cannot be made in its "
                "folder: %s. htcgrid can read the file: the last line of a task counts.",
                *(self._path, error.strerror or error),
            )
            return
        self._replaced = 0
        self._size = os.fstat(self._fd).st_size

    def failed(self) -> Iterator[Result]:
        """Read from the file, even while a run writes it."""
        self._must_be_a_file()
        return failed(self.config.path)

    def every_result(self) -> Iterator[Result]:
        """Read from the file, even while a run writes it; without answers, and without environments of successes."""
        self._must_be_a_file()
        return every_result(self.config.path)

    def has_failed(self) -> bool:
        if self._fd < 0:
            return any(True for _ in self.failed())
        return self._failures > 0

    def open_to_read(self) -> None:
        self._must_be_a_file()

    def add_run(self, document: bytes) -> None:
        manifest_file.add(self.config.path, document)

    def runs(self) -> Iterator[bytes]:
        return manifest_file.lines(self.config.path)

    def _must_be_a_file(self) -> None:
        if self._path == "-" or not self.config.path.is_file():
            where = "is standard output" if self._path == "-" else "does not exist, or is not a regular file"
            raise Rejected(
                f"[sink] path = {self._path!r} {where}: no results can be read from it. Name a file of results."
            )

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        found = self._known.get_all(Ids([task.id for task in tasks]))
        if self._unsent:
            return ()  # a result counts once it is written; checked after the look-up, since a `put` may run in between
        if self._regular and any(found):
            with self._lock:
                self._check()
        known = [(task, number) for task, number in zip(tasks, found, strict=True) if number is not None]
        if self._failures:
            known = [pair for pair in known if GENERATION not in pair[0].attributes or not self._is_redriven(pair[0])]
        for (task, fingerprint), ours in zip(known, self._fingerprints([task for task, _ in known]), strict=True):
            if fingerprint != ours:
                message = (
                    f"{self.config.path} has a result for id {task.id!r}, but of another event or handler: it belongs to "
                    f"another job. Name another file in [sink] path, or move this one away. If you have changed only that "
                    "event, delete its line in the file, and its task runs again."
                )
                raise Rejected(message)
        return [task.id for task, _ in known]

    def _fingerprints(self, tasks: Sequence[Task]) -> list[int]:
        """For each task a number, never 0, that differs if another job has a task with the same id."""
        crc32, handler = zlib.crc32, self._handler
        return [crc32(task.payload, handler) or 1 for task in tasks]

    def _append(self, pieces: Sequence[bytes]) -> None:
        """Write these lines. A regular file gets all of them, synced, or none; for another output they are queued."""
        if not self._regular:
            self._unsent += b"".join(pieces)
            return
        try:
            self._cut_what_is_torn()
            self._check()
            self._torn = True
            write_all(self._fd, pieces)
            synchronise(self._fd)
        except OSError as error:
            with suppress(OSError):  # if this fails, it is repeated before the next write
                self._cut_what_is_torn()
            raise self._unavailable(error) from error
        self._size += sum(map(len, pieces))
        self._torn = False
        self._check()

    def _cut_what_is_torn(self) -> None:
        if self._torn:
            os.ftruncate(self._fd, self._size)
            self._torn = False

    def _check(self) -> None:
        """Raise `Rejected` if the file no longer has its name: everything written to it would be lost."""
        if self._gone:
            raise Rejected(self._gone)
        ours = os.fstat(self._fd)
        try:
            there = os.stat(self._path)  # noqa: PTH116 - once a batch
            same = (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
        except FileNotFoundError:
            same = False
        if same and (self._torn or ours.st_size == self._size):
            return
        what = "cut, or written by another program," if same else "removed or replaced"
        self._gone = (
            f"{self._path} was {what} while results were written to it, so the run is stopped. Restore the file, or start "
            "a new run, which runs the tasks whose results are missing."
        )
        raise Rejected(self._gone)

    def _send(self) -> None:
        """Write the queued lines. Written bytes cannot be removed: after `Unavailable`, the next `put` continues there."""
        try:
            while self._unsent:
                self._unsent = self._unsent[os.write(self._fd, self._unsent) :]
        except BrokenPipeError as error:
            raise Rejected(f"{self._name} was closed by its reader.") from error
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> Unavailable:
        return Unavailable(f"{self._name} cannot be written: {error.strerror}. Nothing is lost.")


def _state(result: Result) -> int:
    return 2 * generation_of(result.task) + (result.outcome.failure is not None) + 1

"""Tasks from a file: one JSON document a line is one event."""

import gzip
import heapq
import json
import os
import select
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from pydantic import Field
from pydantic_core import from_json

from htcgrid.builtin.id_table import IdTable
from htcgrid.spi import Depth, Function, Lease, Plugin, Rejected, Task, TaskSource

_READ_BYTES = 1 << 16


class Lines(Protocol):
    """Where lines come from. `next` gives None when the wait is over, b"" at the end."""

    def next(self, wait: float) -> bytes | None: ...

    def close(self) -> None: ...


class FileLines:
    """A file that is all there."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.close = file.close

    def next(self, wait: float) -> bytes | None:
        return self._file.readline()


class PipeLines:
    """Standard input or a pipe, where the next line may take its time."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._data = b""
        self._ended = False

    def next(self, wait: float) -> bytes | None:
        while (end := self._data.find(b"\n") + 1) == 0 and not self._ended:
            if not select.select([self._fd], [], [], wait)[0]:
                return None
            chunk = os.read(self._fd, _READ_BYTES)
            self._ended = not chunk
            self._data += chunk
        end = end or len(self._data)
        line, self._data = self._data[:end], self._data[end:]
        return line

    def close(self) -> None:
        """The descriptor is not ours."""


class JsonlSource(TaskSource):
    """Reads a JSON Lines file once, in order. What was not acked is there again in the next run."""

    class Config(Plugin.Config):
        path: Path = Field(description='a file of JSON lines; ".gz" is read as such; "-" is standard input')
        id_field: str = Field("", description="the key of each event that is its task's id; else the line number")

    config: Config
    max_batch = 2000

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._changed = threading.Condition()
        self._lines: Lines | None = None
        self._line = 0
        self._ended = False
        self._delayed: list[tuple[float, int, Lease]] = []
        self._seen = IdTable()
        self._path = str(config.path)
        name = "stdin" if self._path == "-" else config.path.name
        self._attributes = {"session_id": name}

    def open(self) -> None:
        path = self._path
        if path == "-":
            self._lines = PipeLines(sys.stdin.fileno())
            return
        try:
            file = open(path, "rb")  # noqa: PTH123, SIM115 - kept open; pathlib adds nothing
        except FileNotFoundError:
            raise Rejected(f"[source] path = {path!r}: there is no such file. Name a file of JSON lines.") from None
        except OSError as error:
            raise Rejected(f"[source] path = {path!r} cannot be read: {error.strerror}.") from None
        if path.endswith(".gz"):
            self._lines = FileLines(gzip.GzipFile(fileobj=file))
        else:
            self._lines = FileLines(file) if Path(path).is_file() else PipeLines(file.fileno())

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        deadline = time.monotonic() + wait
        most = min(max_tasks, self.max_batch)
        with self._changed:
            leases = self._due(most)
            while len(leases) < most and not self._ended:
                if not self._read(leases, 0.0 if leases else max(0.0, deadline - time.monotonic())):
                    break
            while not leases and self._ended and self._delayed and time.monotonic() < deadline:
                self._changed.wait(max(0.001, min(deadline, self._delayed[0][0]) - time.monotonic()))
                leases = self._due(most)
            return leases

    def ack(self, leases: Sequence[Lease]) -> None:
        """Nothing to do: a line is read once, and what has a result is known by the sink."""

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        due = time.monotonic() + delay
        with self._changed:
            for lease in leases:
                again = Lease(lease.task, lease.attempt + 1, lease.receipt, lease.invalid)
                heapq.heappush(self._delayed, (due, int(lease.receipt), again))
            self._changed.notify_all()

    @property
    def exhausted(self) -> bool:
        return self._ended and not self._delayed

    def depth(self) -> Depth:
        """How many lines there are to come; not known of a pipe or a compressed file."""
        path = self.config.path
        if path.suffix == ".gz" or not path.is_file():
            return Depth()
        with path.open("rb") as file:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
        return Depth(waiting=max(0, lines - self._line))

    def _due(self, most: int) -> list[Lease]:
        """What was given back and has waited long enough."""
        leases: list[Lease] = []
        while self._delayed and len(leases) < most and self._delayed[0][0] <= time.monotonic():
            leases.append(heapq.heappop(self._delayed)[2])
        return leases

    def _read(self, leases: list[Lease], wait: float) -> bool:
        """Add the next line's lease, if it holds one; says whether to go on reading."""
        if self._lines is None:
            raise Rejected("The source is closed.")
        try:
            line = self._lines.next(wait)
        except (OSError, EOFError) as error:
            raise Rejected(f"{self.config.path}, after line {self._line}: cannot be read: {error}.") from error
        if not line:
            self._ended = line == b""
            return False
        self._line += 1
        if not line.isspace():
            leases.append(self._lease(line))
        return True

    def _lease(self, line: bytes) -> Lease:
        number = str(self._line)
        payload = line.rstrip(b"\r\n")
        task_id, invalid = number, ""
        try:
            event = from_json(payload)
        except ValueError:
            event, invalid = self._parse_slowly(payload)
        if self.config.id_field:
            if not invalid:
                task_id, invalid = self._id_of(event)
            task_id = f"line-{number}" if invalid else task_id
        return Lease(Task(task_id, payload, self._attributes), 1, number, invalid)

    def _parse_slowly(self, payload: bytes) -> tuple[Any, str]:
        """Python's own parser takes lone surrogates, and says in words what is wrong."""
        try:
            return json.loads(payload), ""
        except ValueError as error:
            return None, f"{self._where()}: this is not JSON: {error}. Each line must be one JSON document."

    def _id_of(self, event: Any) -> tuple[str, str]:
        field = self.config.id_field
        value = event.get(field) if isinstance(event, dict) else None
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            return "", f"{self._where()}: id_field = {field!r}, but the event has no text or number of that name."
        task_id = str(value)
        first = self._seen.get(task_id)
        if first is not None:
            return "", f"{self._where()}: the id {task_id!r} stands on line {first} already. Ids must differ."
        self._seen[task_id] = self._line
        return task_id, ""

    def _where(self) -> str:
        return f"{self.config.path}, line {self._line}"

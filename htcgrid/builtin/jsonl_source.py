"""Tasks from a file: one JSON document a line is one event."""

import gzip
import heapq
import json
import os
import select
import sys
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any, Protocol

from pydantic import Field
from pydantic_core import from_json

from htcgrid.builtin.id_table import IdTable
from htcgrid.spi import Depth, Function, Lease, Plugin, Rejected, Task, TaskSource

_READ_BYTES = 1 << 16


class Lines(Protocol):
    """Where lines come from."""

    @property
    def ended(self) -> bool:
        """Whether there is nothing after what was taken."""
        ...

    def take(self, most: int, wait: float) -> list[bytes]:
        """Up to `most` lines; as soon as there is one, or none after about `wait` seconds."""
        ...

    def close(self) -> None: ...


class FileLines:
    """A file that is all there."""

    def __init__(self, file: IO[bytes] | gzip.GzipFile) -> None:
        self._file = file
        self.ended = False
        self.close = file.close

    def take(self, most: int, wait: float) -> list[bytes]:
        lines = list(islice(self._file, most))
        self.ended = len(lines) < most
        return lines


class PipeLines:
    """Standard input or a pipe, where the next line may take its time."""

    def __init__(self, fd: int, close: Callable[[], None]) -> None:
        self._fd = fd
        self.close = close
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._closed = False

    @property
    def ended(self) -> bool:
        return self._closed and not self._lines

    def take(self, most: int, wait: float) -> list[bytes]:
        deadline = time.monotonic() + wait
        while not self._lines and not self._closed:
            if not select.select([self._fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                break
            self._read()
        return [self._lines.popleft() for _ in range(min(most, len(self._lines)))]

    def _read(self) -> None:
        chunk = os.read(self._fd, _READ_BYTES)
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        self._lines.extend(line + b"\n" for line in whole)
        if not chunk:
            self._closed = True
            if self._rest:
                self._lines.append(self._rest)


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
        self._reading = threading.Lock()
        """A lock of its own: whoever gives back must not wait until a line comes out of a pipe."""
        self._lines: Lines | None = None
        self._line = 0
        self._ended = False
        self._delayed: list[tuple[float, int, Lease]] = []
        self._attempts: dict[str, int] = {}
        self._seen = IdTable()
        self._path = str(config.path)
        name = "stdin" if self._path == "-" else config.path.name
        self._attributes = {"session_id": name}

    def open(self) -> None:
        path = self._path
        if path == "-":
            self._lines = PipeLines(sys.stdin.fileno(), lambda: None)  # the descriptor is not ours
            return
        try:
            file = gzip.open(path) if path.endswith(".gz") else open(path, "rb")  # noqa: PTH123, SIM115 - kept open; pathlib adds nothing
        except FileNotFoundError:
            raise Rejected(f"[source] path = {path!r}: there is no such file. Name a file of JSON lines.") from None
        except OSError as error:
            raise Rejected(f"[source] path = {path!r} cannot be read: {error.strerror}.") from None
        self._lines = FileLines(file) if Path(path).is_file() else PipeLines(file.fileno(), file.close)

    def close(self) -> None:
        if self._lines is not None:
            self._lines.close()
            self._lines = None

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        deadline = time.monotonic() + wait
        most = min(max_tasks, self.max_batch)
        with self._changed:
            leases = self._due(most)
        if len(leases) < most and not self._ended:
            with self._reading:
                leases += self._read(most - len(leases), 0.0 if leases else wait)
        with self._changed:
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
                if lease.attempt == self._attempts.get(lease.receipt, 1):  # else it was given back before
                    again = Lease(lease.task, lease.attempt + 1, lease.receipt, lease.invalid)
                    self._attempts[lease.receipt] = again.attempt
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

    def _read(self, most: int, wait: float) -> list[Lease]:
        """Leases of the next lines; blank ones are passed over."""
        if self._lines is None:
            raise Rejected("The source is closed.")
        try:
            lines = self._lines.take(most, wait)
        except (OSError, EOFError, zlib.error) as error:
            raise Rejected(f"{self.config.path}, after line {self._line}: cannot be read: {error}.") from error
        self._ended = self._lines.ended
        leases = []
        attributes, has_ids = self._attributes, bool(self.config.id_field)
        for payload in map(bytes.rstrip, lines):
            self._line += 1
            if not payload:
                continue
            number = task_id = str(self._line)
            invalid = ""
            try:
                event = from_json(payload)
            except ValueError:
                event, invalid = self._parse_slowly(payload)
            if has_ids:
                if not invalid:
                    task_id, invalid = self._id_of(event)
                if invalid:
                    task_id = f"line-{number}"
            leases.append(Lease(Task(task_id, payload, attributes), 1, number, invalid))
        return leases

    def _parse_slowly(self, payload: bytes) -> tuple[Any, str]:
        """Python's own parser takes lone surrogates, and says in words what is wrong."""
        try:
            return json.loads(payload.decode()), ""
        except (ValueError, RecursionError) as error:
            return None, f"{self._where()}: this is not JSON: {error}. Each line must be one JSON document."

    def _id_of(self, event: Any) -> tuple[str, str]:
        field = self.config.id_field
        value = event.get(field) if isinstance(event, dict) else None
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            return "", f"{self._where()}: id_field = {field!r}, but the event has no text or number of that name."
        try:
            task_id = str(value)
            task_id.encode()
        except ValueError as error:
            return "", f"{self._where()}: id_field = {field!r}, but its value cannot be an id: {error}."
        first = self._seen.get(task_id)
        if first is not None:
            return "", f"{self._where()}: the id {task_id!r} stands on line {first} already. Ids must differ."
        self._seen[task_id] = self._line
        return task_id, ""

    def _where(self) -> str:
        return f"{self.config.path}, line {self._line}"

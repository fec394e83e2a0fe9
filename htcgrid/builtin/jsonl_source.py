"""Reads tasks from a file: each line is one event, a JSON document."""

import heapq
import re
import sys
import threading
import time
import zlib
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import Field
from pydantic_core import from_json

from htcgrid.builtin.id_table import IdTable
from htcgrid.builtin.jsonl_lines import LINE_BYTES, Lines, PipeLines, lines_of
from htcgrid.runtime.parsing import parsed
from htcgrid.spi import Function, Lease, Plugin, QueueStats, Rejected, States, Task, TaskSource

_BOM = b"\xef\xbb\xbf"
_NUL_BESIDE_ASCII = re.compile(rb"\0{0,3}[\t -~]\0{1,3}[\t -~]\0*")
"""The beginning of a document in UTF-16 or UTF-32, in either byte order."""


_COMPRESSED = {
    b"\x1f\x8b\x08": ("gzip", 'give it a name that ends in ".gz"'),
    b"\x28\xb5\x2f\xfd": ("Zstandard", "decompress it: `zstd -d`"),
    b"\xfd7zXZ\0": ("xz", "decompress it: `xz -d`"),
    b"BZh": ("bzip2", "decompress it: `bzip2 -d`"),
    b"PK\x03\x04": ("zip", "unpack it: `unzip`"),
    b"SQLite format 3\0": ("SQLite", 'name it in a source with plugin = "sqlite"'),
}
"""The first bytes of files that are not lines of text, with what to do about them."""


class JsonlSource(TaskSource):
    """Reads a JSON Lines file once, in order. The next run receives tasks again that have no result."""

    class Config(Plugin.Config):
        path: Path = Field(
            description='a file of JSON lines; one whose name ends in ".gz" is read as gzip; "-" is standard input'
        )
        id_field: str = Field(
            "",
            description="the key in each event whose value is the id of its task; if empty, the id is the number of the line",
        )

    config: Config
    max_batch = 2000

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._changed = threading.Condition()
        self._reading = threading.Lock()
        """The lock of reading is another one: a thread that returns leases must not wait for the next line of a pipe."""
        self._lines: Lines | None = None
        self._line = 0
        self._ended = False
        self._delayed: list[tuple[float, int, Lease]] = []
        self._returns = count()
        self._attempts: dict[object, int] = {}
        self._seen = IdTable()
        self._path = str(config.path)
        name = "stdin" if self._path == "-" else config.path.name
        self._attributes = {"session_id": name}

    def open(self) -> None:
        path = self._path
        if path == "-":
            if sys.stdin is None:
                raise Rejected("[source] path = '-', but standard input is closed. Name a file, or pipe lines into it.")
            self._lines = PipeLines(sys.stdin.fileno(), ours=False)
            return
        try:
            self._lines = lines_of(Path(path))
        except FileNotFoundError:
            raise Rejected(f"[source] path = {path!r}: the file does not exist. Name a file of JSON lines.") from None
        except (OSError, ValueError) as error:  # a NUL in a path is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise Rejected(f"[source] path = {path!r} cannot be read: {reason}.") from None

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
        """Do nothing: a line is read once, and the sink knows which tasks have a result."""

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        due = time.monotonic() + delay
        with self._changed:
            for lease in leases:
                if lease.attempt == self._attempts.get(lease.receipt, 1):  # otherwise it was returned already
                    again = Lease(lease.task, lease.attempt + 1, lease.receipt, lease.invalid)
                    self._attempts[lease.receipt] = again.attempt
                    heapq.heappush(self._delayed, (due, next(self._returns), again))
            self._changed.notify_all()

    @property
    def exhausted(self) -> bool:
        return self._ended and not self._delayed

    def stats(self, *, brief: bool = False) -> QueueStats:
        """How many lines were not read yet; not known for a pipe or a compressed file."""
        path = self.config.path
        if path.suffix == ".gz" or not path.is_file():
            return QueueStats()
        with path.open("rb") as file:
            lines, last = 0, b"\n"
            while chunk := file.read(1 << 20):
                lines, last = lines + chunk.count(b"\n"), chunk[-1:]
        lines += last != b"\n"  # the last line may have no end
        return QueueStats(States(waiting=max(0, lines - self._line)))

    def _due(self, most: int) -> list[Lease]:
        """The returned tasks whose delay is over."""
        leases: list[Lease] = []
        while self._delayed and len(leases) < most and self._delayed[0][0] <= time.monotonic():
            leases.append(heapq.heappop(self._delayed)[2])
        return leases

    def _read(self, most: int, wait: float) -> list[Lease]:
        """Leases of the next lines; blank lines are skipped."""
        if self._lines is None:
            raise Rejected("The source is closed.")
        try:
            lines = self._lines.take(most, wait)
        except (OSError, EOFError, zlib.error) as error:
            advice = " Check with `gzip -t` whether it is complete." if self.config.path.suffix == ".gz" else ""
            message = f"{self.config.path}, after line {self._line}: cannot be read: {error}.{advice}"
            raise Rejected(message) from error
        self._ended = self._lines.ended
        before, leases = self._line, []
        attributes, has_ids = self._attributes, bool(self.config.id_field)
        if lines and not self._line:
            lines[0] = self._first(lines[0])
        for number, line in enumerate(lines, before + 1):
            payload = b"" if line is None else line.rstrip()
            if not payload and line is not None:
                continue
            task_id = str(number)
            invalid = ""
            try:
                event = from_json(payload)
            except ValueError:
                self._line = number
                event, invalid = self._parse_slowly(payload) if line is not None else (None, self._too_long())
            if has_ids:
                self._line = number
                if not invalid:
                    task_id, invalid = self._id_of(event)
                if invalid:
                    task_id = f"line-{number}"
            leases.append(Lease(Task(task_id, payload, attributes), 1, number, invalid))
        self._line = before + len(lines)
        return leases

    def _first(self, payload: bytes | None) -> bytes | None:
        """The first line without a byte order mark. Raises `Rejected` if the file does not consist of lines of text."""
        if payload is None:
            return None
        if payload.startswith((b"\xff\xfe", b"\xfe\xff")) or _NUL_BESIDE_ASCII.match(payload):
            raise Rejected(
                f"{self.config.path} is UTF-16 or UTF-32, not UTF-8. Convert it, for example with `iconv -f UTF-16 -t UTF-8`."
            )
        for start, (kind, advice) in _COMPRESSED.items():
            if payload.startswith(start):
                raise Rejected(f"{self.config.path} is a {kind} file, not lines of JSON: {advice}.")
        return payload.removeprefix(_BOM)

    def _too_long(self) -> str:
        return (
            f"{self._where()}: this line is longer than {LINE_BYTES:,} bytes, and was not read. "
            "Each line must be one JSON document, and no plane accepts one of this size."
        )

    def _parse_slowly(self, payload: bytes) -> tuple[Any, str]:
        """Check a line again with Python's own parser, which accepts lone surrogates and says what is wrong."""
        try:
            return parsed(payload.decode()), ""
        except UnicodeDecodeError as error:
            reason = f"{error}. It must be UTF-8; `iconv -f ISO-8859-1 -t UTF-8` converts a file of Latin-1"
        except ValueError as error:
            reason = str(error)
        return None, f"{self._where()}: this is not JSON: {reason}. Each line must be one JSON document."

    def _id_of(self, event: Any) -> tuple[str, str]:
        field = self.config.id_field
        value = event.get(field) if isinstance(event, dict) else None
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            return "", f"{self._where()}: id_field = {field!r}, but the event has no text or number under that key."
        try:
            task_id = str(value)
            task_id.encode()
        except ValueError as error:
            return "", f"{self._where()}: id_field = {field!r}, but its value cannot be an id: {error}."
        first = self._seen.get(task_id)
        if first is not None:
            return "", f"{self._where()}: line {first} has the id {task_id!r} already. Each id may be used once."
        self._seen[task_id] = self._line
        return task_id, ""

    def _where(self) -> str:
        return f"{self.config.path}, line {self._line}"

"""What ran: a document of JSON a run, beside the results. A resumed or redriven run adds its own.

Where the results are in a file they are lines of a file of its own; other sinks keep them by `KeepsRuns`.
"""

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from htcgrid.agent.statistics import Summary
from htcgrid.cli.summary import Bill
from htcgrid.config import GridConfig
from htcgrid.runtime import code_files
from htcgrid.spi import HtcgridError, Plugin, Unavailable

_MOST_FILES = 2000
_WHOLE_BYTES = 16 << 20
"""Files above this are told apart by their size alone."""


@runtime_checkable
class KeepsRuns(Protocol):
    """A sink that keeps what ran beside its results. Several agents add to it at the same time."""

    def add_run(self, document: bytes) -> None:
        """Keep this document of JSON, of a few kilobytes, durably."""

    def runs(self) -> Iterator[bytes]:
        """All of them, in the order in which the runs began or were added."""


class _File:
    """The file beside a file of results."""

    def __init__(self, results: Path) -> None:
        self._path = results.with_name(f"{results.name}.manifest.jsonl")

    def __str__(self) -> str:
        return str(self._path)

    def add_run(self, document: bytes) -> None:
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, document + b"\n")  # in one piece, as several agents may share the file
            finally:
                os.close(fd)
        except OSError as error:
            raise Unavailable(str(error.strerror)) from error

    def runs(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as lines:
                yield from (line for line in lines if line.strip())
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(str(error.strerror)) from error


def place_of(results: Plugin) -> KeepsRuns | None:
    """Where the runs of a sink are kept; None where there is no such place."""
    path = getattr(results.config, "path", None)
    if isinstance(path, Path):
        return None if str(path) == "-" or not path.is_file() else _File(path)
    return results if isinstance(results, KeepsRuns) else None


def described(place: KeepsRuns) -> str:
    return str(place) if isinstance(place, _File) else "of these results"


@dataclass(slots=True)
class Manifest:
    """Begun before a run, so that it tells of the code that ran."""

    place: KeepsRuns
    grid: GridConfig
    command: str
    began: float = field(default_factory=time.time)
    code: str | None = None

    @classmethod
    def beside(cls, results: Plugin, grid: GridConfig, command: str) -> "Manifest | None":
        """None where there is no place for it."""
        place = place_of(results)
        return cls(place, grid, command, code=_code_digest(grid, results)) if place is not None else None

    def add(self, summary: Summary, plugins: Sequence[Plugin], status: int, say: Callable[[str], None]) -> None:
        """Write down how the run ended; where that cannot be done, the results are as good."""
        document = json.dumps(self._document(summary, plugins, status))
        try:
            self.place.add_run(document.encode())
        except HtcgridError as error:
            say(f"the manifest {described(self.place)} cannot be written: {error}. The results are not concerned.")

    def _document(self, summary: Summary, plugins: Sequence[Plugin], status: int) -> dict[str, Any]:
        settings = self.grid.settings
        function = settings.function
        plane = settings.planes[settings.plane]
        bill = Bill.of(plugins)
        tables = {"source": settings.source, "sink": settings.sink}
        return {
            "command": self.command,
            "began": _iso(self.began),
            "ended": _iso(time.time()),
            "exit_code": status,
            "htcgrid": importlib.metadata.version("htcgrid"),
            "python": platform.python_version(),
            "machine": platform.machine(),
            "plane": {"name": settings.plane, "plugin": plane.plugin, "image": _image(plane.options)},
            "function": {
                "name": function.function_name,
                "handler": function.handler,
                "runtime": function.runtime,
                "memory": function.memory,
                "timeout": function.timeout,
            },
            "config_sha256": hashlib.sha256(settings.model_dump_json(exclude_unset=True).encode()).hexdigest(),
            "code_sha256": self.code,
            "files": {name: str(table.options.get("path", "")) for name, table in tables.items() if table},
            "plugins": {name: table.plugin for name, table in tables.items() if table},
            "succeeded": summary.succeeded,
            "failed": summary.failures,
            "already_stored": summary.already_stored,
            "billed_ms": summary.billed_ms,
            "usage": bill.document(summary.finished) if bill else None,
        }


def _image(options: dict[str, Any]) -> str | None:
    image = options.get("image") or options.get("base_image")
    return str(image) if image else None


def _code_digest(grid: GridConfig, results: Plugin) -> str | None:
    """Of the files that a plane would pack, without what is read and written here; None where there are too many."""
    folder = grid.settings.function.code
    source = grid.settings.source
    paths = (source.options.get("path", "") if source else "", getattr(results.config, "path", ""))
    ours = tuple(name for path in paths if (name := Path(str(path)).name))
    digest = hashlib.sha256()
    try:
        files = code_files.collect(folder).files
        if len(files) > _MOST_FILES:
            return None
        for file in files:
            if Path(file.name).name.startswith(ours):
                continue
            digest.update(json.dumps([file.name, file.size]).encode())
            if file.size <= _WHOLE_BYTES:
                digest.update(file.path.read_bytes())
    except (HtcgridError, OSError):
        return None
    return digest.hexdigest()


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"

"""What ran: a line of JSON a run, in a file beside the results. A resumed or redriven run adds its own."""

import hashlib
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htcgrid.agent.statistics import Summary
from htcgrid.cli.summary import Bill
from htcgrid.config import GridConfig
from htcgrid.planes import code_files
from htcgrid.spi import HtcgridError, Plugin

_MOST_FILES = 2000
_WHOLE_BYTES = 16 << 20
"""Files above this are told apart by their size alone."""


@dataclass(slots=True)
class Manifest:
    """Begun before a run, so that it tells of the code that ran."""

    path: Path
    grid: GridConfig
    command: str
    began: float = field(default_factory=time.time)
    code: str | None = None

    @classmethod
    def beside(cls, results: Plugin, grid: GridConfig, command: str) -> "Manifest | None":
        """None where the results are not in a file, beside which it could be."""
        path = getattr(results.config, "path", None)
        if not isinstance(path, Path) or str(path) == "-" or not path.is_file():
            return None
        target = path.with_name(f"{path.name}.manifest.jsonl")
        return cls(target, grid, command, code=_code_digest(grid, path))

    def add(self, summary: Summary, plugins: Sequence[Plugin], status: int, say: Callable[[str], None]) -> None:
        """Write down how the run ended; where that cannot be done, the results are as good."""
        line = json.dumps(self._document(summary, plugins, status)) + "\n"
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, line.encode())  # in one piece, as several agents may share the file
            finally:
                os.close(fd)
        except OSError as error:
            say(f"the manifest {self.path} cannot be written: {error.strerror}. The results are not concerned.")

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


def _code_digest(grid: GridConfig, results: Path) -> str | None:
    """Of the files that a plane would pack, without what is read and written here; None where there are too many."""
    folder = grid.settings.function.code
    source = grid.settings.source
    tasks = Path(str(source.options.get("path", ""))).name if source else ""
    digest = hashlib.sha256()
    try:
        files = code_files.collect(folder).files
        if len(files) > _MOST_FILES:
            return None
        for file in files:
            if Path(file.name).name.startswith((results.name, tasks or results.name)):
                continue
            digest.update(json.dumps([file.name, file.size]).encode())
            if file.size <= _WHOLE_BYTES:
                digest.update(file.path.read_bytes())
    except (HtcgridError, OSError):
        return None
    return digest.hexdigest()


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"

"""The manifest: one JSON document for each run, beside the results. A resumed or redriven run adds its own.

The sink stores it in `ResultSink.add_run`.
"""

import hashlib
import importlib.metadata
import json
import platform
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from htcgrid.agent.statistics import Summary
from htcgrid.cli.summary import Bill
from htcgrid.config import GridConfig
from htcgrid.runtime import code_files
from htcgrid.spi import HtcgridError, Plugin, ResultSink

_MOST_FILES = 2000
_WHOLE_BYTES = 16 << 20
"""For larger files only the size is part of the digest."""


@dataclass(slots=True)
class Manifest:
    """The record of one run. Made before the run, so that its digest is of the code that ran."""

    sink: ResultSink
    grid: GridConfig
    command: str
    code: "_CodeDigest"
    began: float = field(default_factory=time.time)

    @classmethod
    def beside(cls, results: ResultSink, grid: GridConfig, command: str) -> "Manifest | None":
        """The manifest; None if the sink keeps none. Called after the sink is opened and before the plane is opened."""
        if not results.keeps_runs:
            return None
        code = _CodeDigest(grid, results)
        code.start()
        return cls(results, grid, command, code)

    def add(self, summary: Summary, plugins: Sequence[Plugin], status: int, say: Callable[[str], None]) -> None:
        """Store it in the sink, with how the run ended. An error is only reported: the results are complete without it."""
        self.code.join()
        document = json.dumps(self._document(summary, plugins, status))
        try:
            self.sink.add_run(document.encode())
        except HtcgridError as error:
            say(f"the manifest of these results cannot be written: {error}. The results themselves are complete.")

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
            "code_sha256": self.code.value,
            "files": {name: str(table.options.get("path", "")) for name, table in tables.items() if table},
            "plugins": {name: table.plugin for name, table in tables.items() if table},
            "succeeded": summary.succeeded,
            "failed": summary.failures,
            "already_stored": summary.already_stored,
            "billed_ms": summary.billed_ms,
            "usage": bill.document(summary.finished) if bill else None,
        }


class _CodeDigest(threading.Thread):
    """Reads the code while the plane starts: a folder may hold gigabytes."""

    def __init__(self, grid: GridConfig, results: Plugin) -> None:
        super().__init__(name="htcgrid-code-digest", daemon=True)
        self._grid = grid
        self._results = results
        self.value: str | None = None

    def run(self) -> None:
        self.value = _code_digest(self._grid, self._results)


def _image(options: dict[str, Any]) -> str | None:
    image = options.get("image") or options.get("base_image")
    return str(image) if image else None


def _code_digest(grid: GridConfig, results: Plugin) -> str | None:
    """The digest of the files that a plane would pack, without files of tasks and results; None if there are too many."""
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

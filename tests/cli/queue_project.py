"""A project with a queue in a folder, and htcgrid's own program run in it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from program_end import output_at_end

from htcgrid.cli.main import status_of

HTCGRID = Path(sys.executable).with_name("htcgrid")

CONFIG = """\
[function]
handler = "handlers.handler"
timeout = 20
[source]
plugin = "sqlite"
path = "queue.db"
lease_seconds = {lease}
[sink]
plugin = "sqlite"
path = "results.db"
[planes.local]
plugin = "process"
workers = {workers}
"""

HANDLERS = """\
import os, signal, time

def handler(event, context):
    with open("ran", "a") as file:
        file.write(context.client_context.custom["task_id"] + "\\n")
    if event.get("sleep"):
        time.sleep(event["sleep"])
    if event.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    if event.get("raise"):
        raise ValueError("no such price")
    return {"n": event["n"]}
"""


class Project:
    """Commands end within a minute, or the test fails."""

    def __init__(self, folder: Path, *, lease: float = 60.0, workers: int = 1) -> None:
        self.folder = folder
        (folder / "htcgrid.toml").write_text(CONFIG.format(lease=lease, workers=workers))
        # The handler notes each start in a file of the project, whatever folder it runs in.
        (folder / "handlers.py").write_text(HANDLERS.replace('"ran"', repr(str(folder / "ran"))))

    def run(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [HTCGRID, *arguments], cwd=self.folder, input=given, capture_output=True, text=True, timeout=60, check=False
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [HTCGRID, *arguments], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def events(self, *events: Any, name: str = "events.jsonl") -> str:
        (self.folder / name).write_text("".join(json.dumps(event) + "\n" for event in events))
        return name

    def submit(self, *events: Any, session: str = "s", options: tuple[str, ...] = ()) -> None:
        """In this process, which saves a third of a second of a processor: for what a test is not about."""
        said = StringIO()
        with chdir(self.folder), redirect_stdout(said):
            status = status_of(["submit", self.events(*events), "--session", session, *options])
        assert (status, said.getvalue()) == (0, f"{session}\n")

    def results(self, *arguments: str) -> list[dict[str, Any]]:
        return lines(self.run("results", *arguments).stdout)

    def drain(self) -> subprocess.CompletedProcess[str]:
        """Run all that is in the queue."""
        return self.run("run", "--quiet", "--set", "source.drain=true")

    def ran(self) -> list[str]:
        """The tasks that a handler has begun, in order."""
        path = self.folder / "ran"
        return path.read_text().split() if path.exists() else []


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def stop(process: subprocess.Popen[str]) -> str:
    """Ask an agent to end; what it said on standard error."""
    process.send_signal(signal.SIGTERM)
    _, said = output_at_end(process)
    assert process.returncode in {0, 1}, said
    return said


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not come to be in time"
        time.sleep(0.02)

"""A project in a folder, and the real program run in it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from program_end import output_at_end

from htcgrid.cli.main import status_of

LONG = 60.0

CONFIG = """\
[function]
handler = "job.handler"

[source]
plugin = "jsonl"
path = "tasks.jsonl"

[sink]
plugin = "jsonl"
path = "results.jsonl"

[planes.local]
plugin = "process"
workers = 2

[planes.single]
plugin = "process"
workers = 1
"""

HANDLER = """\
import os, time

def handler(event, context):
    if isinstance(event, dict):
        if "print" in event: print(event["print"])
        if "raise" in event: raise ValueError(event["raise"])
        if "exit" in event: os._exit(event["exit"])
        if "touch" in event: open(event["touch"], "w").close()
        if "sleep" in event: time.sleep(event["sleep"])
        if "variable" in event: return os.environ.get(event["variable"])
        if "custom" in event: return context.client_context.custom
    return event
"""


@dataclass
class Project:
    """A folder with a config, a handler and tasks."""

    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def tasks(self, *events: object) -> None:
        self.write("tasks.jsonl", "".join(json.dumps(event) + "\n" for event in events))

    def results(self, name: str = "results.jsonl") -> list[dict[str, Any]]:
        path = self.folder / name
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def ids(self) -> list[str]:
        return sorted((result["id"] for result in self.results()), key=int)

    def start(self, *arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
        """`htcgrid ARGUMENTS` in the folder, in a session of its own."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HTCGRID_")}
        program = subprocess.Popen(
            [sys.executable, "-m", "htcgrid", *arguments],
            cwd=self.folder,
            env=clean | (env or {}),
            text=True,
            start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        self.started.append(program)
        return program

    def htcgrid(self, *arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Done:
        """The same, to its end."""
        options = {"stdin": subprocess.PIPE} if stdin is not None else {}
        return finished(self.start(*arguments, env=env, **options), stdin)


@dataclass(frozen=True)
class Done:
    """How a program ended."""

    status: int
    out: str
    err: str

    @property
    def summary(self) -> dict[str, Any]:
        [line] = [line for line in self.err.splitlines() if line.startswith('{"summary"')]
        summary: dict[str, Any] = json.loads(line)["summary"]
        return summary


def finished(program: subprocess.Popen[str], stdin: str | None = None) -> Done:
    out, err = output_at_end(program, stdin, LONG)
    assert "Traceback" not in err, err
    return Done(program.returncode, out, err)


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    made.write("htcgrid.toml", CONFIG)
    made.write("job.py", HANDLER)
    made.tasks({"x": 1}, {"x": 2}, {"x": 3})
    yield made
    for program in made.started:
        program.kill()
        program.wait()
        for stream in (program.stdin, program.stdout, program.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture(autouse=True)
def untuned(monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` sets up its own process for the work of an agent; where a test calls it, that process is the tests'."""
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_levels: None)
    monkeypatch.setattr("sys.setswitchinterval", lambda _seconds: None)
    monkeypatch.setattr("htcgrid.cli.c_heap.share", lambda: None)


@pytest.fixture
def inside(project: Project, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """`htcgrid ARGUMENTS` in this very process, where what is asked is only what it refuses and how."""

    for name in [name for name in os.environ if name.startswith("HTCGRID_")]:
        monkeypatch.delenv(name)

    def run(*arguments: str) -> Done:
        monkeypatch.chdir(project.folder)
        status = status_of(list(arguments))
        return Done(status, *capfd.readouterr())

    return run


@pytest.fixture
def finish() -> Callable[[subprocess.Popen[str]], Done]:
    return finished


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for a condition, generously."""

    def wait(condition: Callable[[], object]) -> None:
        end = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < end, "it never came true"
            time.sleep(0.01)

    return wait

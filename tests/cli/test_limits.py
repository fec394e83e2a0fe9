"""What the machine, a name or a file does not let a command do: one sentence, never "a bug", nothing lost."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from htcgrid.cli import machine_limits

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done, Project

    Inside = Callable[..., Done]

pytestmark = pytest.mark.slow  # most start programs that may do little

WORDS = {
    "files of the process": (OSError(errno.EMFILE, "Too many open files"), "`ulimit -n`"),
    "files of the machine": (OSError(errno.ENFILE, "Too many open files in system"), "fs.file-max"),
    "processes": (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "`ulimit -u`"),
    "threads": (RuntimeError("can't start new thread"), "`ulimit -u`"),
    "memory": (MemoryError(), "`ulimit -v`"),
    "memory for a library": (ImportError("x.so: failed to map segment from shared object"), "`ulimit -v`"),
    "memory of the kernel": (OSError(errno.ENOMEM, "Cannot allocate memory"), "`ulimit -v`"),
    "a full disk": (OSError(errno.ENOSPC, "No space left on device", "/x/y"), "(/x/y). Free some space"),
    "a quota": (OSError(errno.EDQUOT, "Disk quota exceeded"), "raise the quota"),
    "a read-only disk": (OSError(errno.EROFS, "Read-only file system"), "TMPDIR"),
    "a broken disk": (OSError(errno.EIO, "Input/output error"), "dmesg"),
    "no folder for temporary files": (
        FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"),
        "set TMPDIR",
    ),
}


@pytest.mark.parametrize("what", WORDS)
def test_a_limit_is_told_with_what_to_raise(what: str, inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    error, said = WORDS[what]

    def fail() -> None:
        raise KeyError("around it") from error

    monkeypatch.setattr("htcgrid.plugins.installed", fail)
    done = inside("plugins")
    assert done.status == 3
    assert said in done.err
    assert len(done.err.splitlines()) == 1


@pytest.mark.parametrize("what", ["files of the process", "memory", "memory for a library"])
def test_a_plugin_that_a_limit_keeps_from_being_loaded_is_not_blamed(
    what: str, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, said = WORDS[what]

    def fail(_point: object) -> None:
        raise error

    monkeypatch.setattr("importlib.metadata.EntryPoint.load", fail)
    done = inside("run")
    assert (done.status, len(done.err.splitlines())) == (3, 1)
    assert said in done.err


def test_an_error_that_is_no_limit_is_still_shown_whole() -> None:
    assert machine_limits.advice(FileNotFoundError(errno.ENOENT, "No such file or directory", "x")) is None
    assert machine_limits.advice(RuntimeError("something else")) is None


def test_the_file_that_was_opened_last_is_not_named_as_the_cause_of_too_many() -> None:
    said = machine_limits.advice(OSError(errno.EMFILE, "Too many open files", "/proc/7/fd"))
    assert said is not None
    assert said.startswith("Too many open files. This process may have")


@pytest.mark.parametrize("workers", [30, 300])
@pytest.mark.parametrize("transport", ["socket", "http"])
def test_too_few_files_for_so_many_workers(project: Project, workers: int, transport: str) -> None:
    arguments = ["--set", f"planes.local.workers={workers}", "--set", f"planes.local.transport={transport}"]
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))  # noqa: E731
    project.tasks(*[{"sleep": 2}] * 30)  # shorter ones the first workers could end before there are too many
    program = [sys.executable, "-m", "htcgrid", "run", *arguments]
    done = subprocess.run(
        program, cwd=project.folder, preexec_fn=few, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3
    assert done.stderr.startswith("htcgrid: Too many open files. This process may have 48 files open. Raise that limit")
    assert project.results() == []
    project.write("job.py", "def handler(event, context):\n    return event\n")
    assert project.htcgrid("run").status == 0
    assert len(project.results()) == 30


def test_no_thread_to_be_had(project: Project) -> None:
    little = "import _thread, sys\n"
    little += 'def none(*_words, **_more): raise RuntimeError("can\'t start new thread")\n'
    little += "_thread.start_new_thread = none\n"
    little += "_thread.start_joinable_thread = none\n"
    little += "from htcgrid.cli import main\nmain(sys.argv[1:])\n"
    done = subprocess.run(
        [sys.executable, "-c", little, "run"],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr.startswith("htcgrid: No further thread can be started. Raise the limit on processes and threads")
    assert len(done.stderr.splitlines()) == 1


NOT_UTF8 = os.fsdecode(b"\xff\xfe")


@pytest.mark.parametrize(
    "arguments",
    [
        ["results", NOT_UTF8],
        ["results", "--session", NOT_UTF8],
        ["results", "--ids", "ids.txt"],
        ["cancel", NOT_UTF8],
        ["cancel", "--session", NOT_UTF8],
        ["submit", "tasks.jsonl", "--session", NOT_UTF8],
        ["run", "--source", NOT_UTF8],
        ["run", "--plane", NOT_UTF8],
        ["check", "--set", f"function.environment.A={NOT_UTF8}"],
        ["check", "-c", NOT_UTF8],
        ["new-plugin", NOT_UTF8, "--kind", "invoker"],
    ],
    ids=lambda words: " ".join(words[:2]).encode("ascii", "replace").decode(),
)
def test_what_is_not_utf8_is_refused(project: Project, inside: Inside, arguments: list[str]) -> None:
    text = (project.folder / "htcgrid.toml").read_text().replace('"jsonl"', '"sqlite"').replace(".jsonl", ".db")
    project.write("htcgrid.toml", text)
    (project.folder / "ids.txt").write_bytes(b"\xff\xfe\n")
    done = inside(*arguments)
    assert done.status == 2
    assert "Traceback" not in done.err


def test_an_event_that_is_not_utf8_is_the_handlers_error(project: Project) -> None:
    done = project.htcgrid("invoke", NOT_UTF8)
    assert (done.status, done.err) == (1, "")
    assert "errorType" in done.out


@pytest.mark.parametrize(
    "arguments",
    [["init", "tasks.jsonl/x"], ["new-plugin", "x", "--kind", "invoker", "--folder", "tasks.jsonl/x"]],
    ids=lambda words: words[0],
)
def test_a_folder_that_cannot_be_made(inside: Inside, arguments: list[str]) -> None:
    done = inside(*arguments)
    assert done.status == 2
    assert "cannot be written: Not a directory." in done.err


def test_a_project_that_did_not_fit_on_the_disk_is_written_by_the_same_command_later(
    project: Project, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_text

    def full(path: Path, *words: str, **more: str) -> int:
        if path.name == "handler.py":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        done = inside("init", "new")
    assert (done.status, done.err) == (2, "htcgrid: new cannot be written: No space left on device.\n")
    assert inside("init", "new").status == 0


def test_a_machine_without_proc(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: not str(path).startswith("/proc/"))
    done = inside("run")
    assert done.status == 2
    assert "through /proc, which is not mounted here" in done.err

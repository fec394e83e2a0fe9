"""The config file in any encoding, of any kind, and variables that are not JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Done, Project

    Inside = Callable[..., Done]


def test_a_byte_order_mark_is_passed_over(project: Project, inside: Inside) -> None:
    path = project.folder / "htcgrid.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert inside("check").status == 0


ENCODINGS = {
    "utf-16": "looks like UTF-16, or no text at all. Save it as UTF-8.",
    "utf-16-le": "looks like UTF-16, or no text at all. Save it as UTF-8.",
    "utf-16-be": "looks like UTF-16, or no text at all. Save it as UTF-8.",
    "utf-32": "looks like UTF-16, or no text at all. Save it as UTF-8.",
    "latin-1": "the byte 0xe9 on line 2 is not UTF-8. Save the file as UTF-8.",
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_another_encoding_is_named(project: Project, inside: Inside, encoding: str) -> None:
    (project.folder / "htcgrid.toml").write_bytes("# config\n# é\n".encode(encoding))
    done = inside("check")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert done.err.startswith("htcgrid: htcgrid.toml is not TOML: ")
    assert ENCODINGS[encoding] in done.err


def replaced(path: Path, make: Callable[[], object]) -> None:
    """Another thing in the place of the file."""
    path.unlink()
    make()


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "zeros": (lambda path: path.write_bytes(bytes(1000)), "is not TOML: "),
    "a number too long": (lambda path: path.write_text(f"x = {'9' * 5000}"), "is not TOML: "),
    "nested too deep": (lambda path: path.write_text(f"x = {'[' * 100_000}"), "nested too deep"),
    "endless": (lambda path: os.truncate(path, 50_000_000), "has 50,000,000 bytes: that is too long for a config."),
    "a pipe that nobody writes to": (
        lambda path: replaced(path, lambda: os.mkfifo(path)),
        "is not a file but a pipe or device.",
    ),
    "a device": (
        lambda path: replaced(path, lambda: path.symlink_to("/dev/zero")),
        "is not a file but a pipe or device.",
    ),
    "a folder": (lambda path: replaced(path, path.mkdir), "cannot be read: Is a directory."),
    "a link to nothing": (lambda path: replaced(path, lambda: path.symlink_to("nothing")), "there is no such file."),
    "a link to itself": (lambda path: replaced(path, lambda: path.symlink_to(path)), "cannot be read: Too many levels"),
}


@pytest.mark.parametrize("what", FILES)
def test_a_config_file_that_is(what: str, project: Project, inside: Inside) -> None:
    make, said = FILES[what]
    make(project.folder / "htcgrid.toml")
    done = inside("check")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert said in done.err


def test_an_empty_config_file_says_what_to_write(project: Project, inside: Inside) -> None:
    project.write("htcgrid.toml", "")
    assert inside("check").status == 2
    done = inside("run")
    assert done.status == 2
    assert "[source] is missing. Write, for example:" in done.err


def test_a_folder_that_is_gone(project: Project) -> None:
    line = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    program = ["sh", "-c", line, "sh", sys.executable, "-m", "htcgrid", "check"]
    done = subprocess.run(program, cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("htcgrid: The current folder is not there any more")


# From Python 3.14 on, how deep JSON may be depends on the stack of the thread: this much is read to its end.
TOO_DEEP = "it is nested" if sys.version_info < (3, 14) else "Expecting value"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HTCGRID_FUNCTION", '{"hidden"', "HTCGRID_FUNCTION is not JSON, as a table or list must be: Expecting ':'"),
        ("HTCGRID_PLANES", "hidden", "HTCGRID_PLANES is not JSON, as a table or list must be: Expecting value"),
        ("HTCGRID_FUNCTION__ENVIRONMENT", "{hidden", "HTCGRID_FUNCTION__ENVIRONMENT is not JSON"),
        ("HTCGRID_FUNCTION__COMMAND", "hidden words", "HTCGRID_FUNCTION__COMMAND is not JSON"),
        ("HTCGRID_FUNCTION", "[" * 50_000, f"HTCGRID_FUNCTION is not JSON, as a table or list must be: {TOO_DEEP}"),
        ("HTCGRID_PLANE__X", "hidden", "environment: HTCGRID_PLANE__X is not a setting."),
        ("HTCGRID_", "hidden", "environment: HTCGRID_ is not a setting."),
    ],
)
def test_a_variable_that_cannot_be_read_is_named_and_its_value_is_not(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    done = inside("check")
    assert (done.status, len(done.err.splitlines())) == (2, 1)
    assert said in done.err
    assert "hidden" not in done.err
    assert len(done.err) < 500


def test_a_long_value_is_not_shown_whole(inside: Inside) -> None:
    done = inside("check", "--set", f"agent.grace={'x' * 5000}")
    assert done.status == 2
    assert "... (5,002 characters)" in done.err
    assert len(done.err) < 1000


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o000])
def test_files_of_ours_heed_the_umask_and_nobody_else_may_write_results(project: Project, mask: int) -> None:
    """Into a file, into SQLite, and what `init` writes."""
    project.start("init", "new", umask=mask).wait()
    project.start("run", umask=mask).wait()
    sqlite = ["--set", "sink.plugin=sqlite", "--set", "sink.path=r.db"]
    project.start("run", *sqlite, umask=mask).wait()
    for name in ("results.jsonl", "r.db"):
        assert (project.folder / name).stat().st_mode & 0o777 == 0o644 & ~mask, name
    assert (project.folder / "new" / "handler.py").stat().st_mode & 0o777 == 0o666 & ~mask

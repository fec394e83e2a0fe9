"""Python's development mode, in which nothing may be left open, whatever goes wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

HANDLER = "def handler(event, context):\n    return event\n"
PROGRAM = """
import gc, sys, tempfile
from htcgrid import Grid
{before}
try:
    with Grid.open(settings={{"function": {{"handler": "job.handler", "code": "."}}}}) as grid:
        print(list(grid.map([1, 2])))
except Exception as error:
    print(type(error).__name__, error)
gc.collect()
"""


def said(folder: Path, before: str) -> str:
    """What a program prints that runs with every warning an error."""
    (folder / "job.py").write_text(HANDLER)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM.format(before=before)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout.strip()


def test_nothing_is_left_open_after_a_run(tmp_path: Path) -> None:
    assert said(tmp_path, "") == "[1, 2]"


def test_nothing_is_left_open_where_no_home_can_be_made(tmp_path: Path) -> None:
    text = said(tmp_path, "tempfile.tempdir = '/dev/null'")
    assert (
        "The handlers' home cannot be made: Not a directory. Name a folder that this user may write to as TMPDIR."
        in text
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("OSError(7, 'too long')", "too long"),
        ("BlockingIOError(11, 'busy')", "The program that workers are forked from cannot be started"),
    ],
)
def test_nothing_is_left_open_where_no_program_can_be_started(tmp_path: Path, error: str, text: str) -> None:
    (home := tmp_path / "home").mkdir()
    fails = f"import subprocess\ndef fails(*_, **__): raise {error}\nsubprocess.Popen = fails"
    assert text in said(tmp_path, f"tempfile.tempdir = {str(home)!r}\n{fails}")
    assert not list(home.iterdir())

"""After failures: what a run says of them, `failures`, `redrive`, and exit codes that scripts can trust."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conftest import Project

BROKEN = """\
def handler(event, context):
    print("pricing", event["n"])
    if event["n"] % 7 == 0:
        raise ValueError(f"no price for {event['n']}")
    return event["n"]
"""
MENDED = "def handler(event, context): return event['n']\n"


def prepared(project: Project, count: int = 30, handler: str = BROKEN) -> None:
    project.write("job.py", handler)
    project.tasks(*({"n": n} for n in range(1, count + 1)))


def on_a_terminal(project: Project, *arguments: str) -> str:
    """What a command says where its standard error is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 200))
    program = project.start(*arguments, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += (chunk := os.read(ours, 4096))
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
    os.close(ours)
    program.wait(60)
    return said.decode()


def test_the_summary_shows_what_failed_in_groups_and_what_to_give_next(project: Project) -> None:
    prepared(project)
    said = on_a_terminal(project, "run", "--plane", "single")
    assert "task 7 failed: handler_error: ValueError: no price for 7 at job.py:4 in handler" in said
    assert said.count(" failed: handler_error") == 1
    assert "1. 4 x handler_error: ValueError: no price for N  at job.py:4 in handler" in said
    assert "| pricing 7" in said
    assert "htcgrid failures" in said
    assert "htcgrid redrive" in said


def test_elsewhere_the_groups_stand_in_the_json_line(project: Project) -> None:
    prepared(project)
    summary = project.htcgrid("run", "--quiet", "--plane", "single").summary
    [group] = summary["failure_groups"]
    assert (group["count"], group["example_id"], group["log"]) == (4, "7", ["pricing 7"])
    assert (group["message"], group["place"]) == ("no price for N", "job.py:4 in handler")
    assert summary["commands"]["run again"] == "htcgrid redrive"


def test_the_exit_code_is_1_as_long_as_the_results_hold_failures(project: Project) -> None:
    prepared(project)
    assert project.htcgrid("run").status == 1
    project.write("job.py", MENDED)
    again = project.htcgrid("run")
    assert (again.status, again.summary["already_stored"]) == (1, 30)


def test_the_progress_counts_all_tasks_though_some_are_taken_already(project: Project) -> None:
    prepared(project, 300, MENDED)
    assert "300/300" in on_a_terminal(project, "run")


def test_help_and_the_operations_page_name_every_exit_code(project: Project) -> None:
    from pathlib import Path  # noqa: PLC0415

    from htcgrid.cli.main import EXIT_CODES  # noqa: PLC0415

    shown = subprocess.run(
        [sys.executable, "-m", "htcgrid", "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "999"}
    ).stdout
    words = " ".join(shown.split())
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in words
        assert f"| {code} |" in page


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]

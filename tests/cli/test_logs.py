"""What is going on is logged: as JSON lines, or as text on a terminal; never what tasks hold."""

from __future__ import annotations

import json
import logging
import os
import pty
from typing import TYPE_CHECKING, Any

import pytest

from htcgrid.builtin.jsonl_source import JsonlSource
from htcgrid.cli import log_output
from htcgrid.cli.main import status_of
from htcgrid.spi import Unavailable

if TYPE_CHECKING:
    from conftest import Project


def logged(err: str) -> list[dict[str, Any]]:
    """The log, of what a command printed on standard error; every line of it must be JSON."""
    return [line for line in map(json.loads, err.splitlines()) if "level" in line]


def messages(err: str) -> str:
    return "\n".join(line["message"] for line in logged(err))


def test_only_warnings_are_shown_unless_more_is_asked_for(project: Project) -> None:
    assert logged(project.htcgrid("run").err) == []


def test_verbose_tells_how_agent_and_environments_fare_as_json_lines(project: Project) -> None:
    project.tasks({"x": 1}, {"exit": 3})
    done = project.htcgrid("run", "--verbose", "--set", "agent.attempts.exit=2")
    told = logged(done.err)
    assert [line["level"] for line in told if line["level"] != "info"] == ["warning"]  # the first failure of its group
    assert all(line["logger"].startswith("htcgrid.") and line["time"] > 1e9 for line in told)
    text = messages(done.err)
    assert "The agent starts with 2 environments." in text
    assert "is ready; its start took" in text
    assert "has ended while it ran the task 2: exit." in text
    assert "Task 2: exit at attempt 1. It runs again in" in text
    assert "The agent ends: 1 tasks succeeded, 1 failed." in text


def test_the_log_holds_no_event_no_answer_no_output_and_no_variable(project: Project) -> None:
    secrets = ["in-the-event", "in-the-output", "in-a-variable"]
    project.tasks({"raise": "what the user is told", "print": secrets[1], "x": secrets[0]})
    variable = json.dumps({"PASSWORD": secrets[2]})
    done = project.htcgrid("run", "--log-level", "debug", env={"HTCGRID_FUNCTION__ENVIRONMENT": variable})
    assert done.summary["failed"] == 1
    assert not [secret for secret in secrets if secret in messages(done.err)]


def test_on_a_terminal_the_log_is_lines_of_text_above_the_progress_bar(project: Project) -> None:
    ours, theirs = pty.openpty()
    program = project.start("run", "-v", stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # Linux's word for the end of a terminal
        pass
    os.close(ours)
    assert program.wait(60) == 0
    starts = [line for line in shown.decode().splitlines() if "The agent starts" in line]
    assert [line.split(maxsplit=1)[1] for line in starts] == [
        "INFO htcgrid.agent.agent: The agent starts with 2 environments."
    ]
    assert b" tasks" in shown  # the bar


def test_a_source_that_was_away_is_told_when_it_goes_and_when_it_is_back(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, tries = JsonlSource.receive, []

    def shaky(*arguments: Any) -> Any:
        tries.append(arguments)
        if len(tries) < 3:
            raise Unavailable("The disk is away.")
        return whole(*arguments)

    monkeypatch.setattr(JsonlSource, "receive", shaky)
    monkeypatch.chdir(project.folder)
    assert status_of(["run", "--log-level", "info"]) == 0
    told = [(line["level"], line["message"]) for line in logged(capsys.readouterr().err)]
    away = [message for level, message in told if level == "warning"]
    assert [message.partition(" Trying again in ")[0] for message in away] == ["The disk is away."] * 2
    (back,) = [message for _, message in told if message.startswith("Available again after")]
    assert back.endswith("It had said: The disk is away.")


def test_warnings_can_be_left_out(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tries: list[int] = []
    whole = JsonlSource.open

    def warned(source: JsonlSource) -> None:
        tries.append(1)
        whole(source)
        logging.getLogger("htcgrid.of_a_plugin").warning("careful")

    monkeypatch.setattr(JsonlSource, "open", warned)
    monkeypatch.chdir(project.folder)
    assert status_of(["run", "--quiet"]) == 0
    assert messages(capsys.readouterr().err) == "careful"
    assert status_of(["run", "--quiet", "--log-level", "error"]) == 0
    assert messages(capsys.readouterr().err) == ""
    assert len(tries) == 2


def test_an_error_is_logged_with_its_traceback_and_other_libraries_are_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sdk = logging.getLogger("an_sdk")
    sdk.addHandler(logging.NullHandler())
    with log_output.shown():
        logging.getLogger(log_output.TREE).setLevel(logging.DEBUG)
        sdk.warning("GET https://example.org/?signature=123")
        logging.getLogger("htcgrid.of_a_plugin").error("broken", exc_info=ValueError("why"))
    (broken,) = logged(capsys.readouterr().err)
    assert (broken["logger"], broken["level"], broken["message"]) == ("htcgrid.of_a_plugin", "error", "broken")
    assert broken["traceback"].endswith("ValueError: why\n")
    assert logging.getLogger(log_output.TREE).level == logging.NOTSET
    assert not logging.getLogger(log_output.TREE).handlers

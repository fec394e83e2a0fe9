"""Leases, dead letters and a queue that is away: the real program on a sqlite queue."""

import json
from pathlib import Path
from typing import Any

import pytest
from queue_project import Project, stop

from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.cli.main import status_of
from htcgrid.spi import Function, Unavailable


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.slow
def test_a_task_that_takes_three_times_its_lease_runs_once(tmp_path: Path) -> None:
    project = Project(tmp_path, lease=4.0)  # a busy machine holds an agent up for seconds
    project.submit({"n": 1, "sleep": 12})
    agents = [project.start("run", "--quiet") for _ in range(2)]
    assert [line["output"] for line in project.results("--session", "s", "--wait")] == [{"n": 1}]
    for agent in agents:
        stop(agent)
    assert project.ran() == ["s_1"]


def test_a_task_that_kills_its_worker_each_time_is_set_aside_after_three_tries(project: Project) -> None:
    project.submit({"n": 1, "die": True}, {"n": 2})
    assert project.drain().returncode == 1
    assert project.ran().count("s_1") == 3
    results = {line["id"]: line for line in project.results()}
    assert results["s_2"]["output"] == {"n": 2}
    assert (results["s_1"]["failure"], results["s_1"]["attempt"]) == ("exit", 3)

    with SqliteSource(SqliteSource.Config(path=project.folder / "queue.db"), Function()) as source:
        (dead,) = source.dead_letters()
    assert dead.task.id == "s_1"
    assert json.loads(dead.task.payload) == {"n": 1, "die": True}
    assert dead.reason.startswith("exit at attempt 3:")
    assert "signal: killed" in dead.reason


@pytest.mark.parametrize("method", ["put", "cancel"])
def test_a_queue_that_is_away_for_a_moment_is_asked_again(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    whole, tries = getattr(SqliteSource, method), []

    def shaky(*arguments: object) -> object:
        tries.append(arguments)
        if len(tries) < 3:
            raise Unavailable("The queue is being moved.")
        return whole(*arguments)

    monkeypatch.setattr(SqliteSource, method, shaky)
    monkeypatch.chdir(project.folder)
    assert status_of(["submit", project.events({"n": 1}), "--session", "s"]) == 0
    assert status_of(["cancel", "s_1"]) == 0
    assert "The queue is being moved. Trying again in" in capsys.readouterr().err
    assert [line["failure"] for line in project.results("s_1")] == ["cancelled"]


def test_a_queue_that_stays_away_is_told_with_exit_code_3_and_what_was_put(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, tries = SqliteSource.put, []

    def lost(*arguments: Any) -> None:
        tries.append(arguments)
        if len(tries) > 1:
            raise Unavailable("The queue is gone.")
        whole(*arguments)

    monkeypatch.setattr(SqliteSource, "put", lost)
    monkeypatch.chdir(project.folder)
    project.events(*[{"n": n} for n in range(1500)])
    arguments = ["submit", "events.jsonl", "--session", "s", "--set", "agent.unavailable_limit=0"]
    assert status_of(arguments) == 3
    captured = capsys.readouterr()
    assert "1,000 tasks of session s are in the queue." in captured.err
    assert "The queue is gone." in captured.err
    assert captured.out == ""

"""status: the real program on a sqlite queue."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from program_end import output_at_end
from queue_project import Project, eventually, stop

from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, Task


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def status(project: Project) -> dict[str, Any]:
    done = project.run("status", "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_states_sessions_results_and_failures_are_counted(project: Project) -> None:
    project.submit({"n": 1}, {"n": 2, "raise": True}, {"n": 3, "die": True}, session="old")
    project.drain()
    project.submit({"n": 1}, {"n": 2}, session="new")
    project.run("cancel", "new_1")
    found = status(project)
    assert found["queue"]["states"] == {"waiting": 1, "delayed": 0, "leased": 0, "cancelled": 1, "dead": 1}
    assert list(found["queue"]["sessions"]) == ["old", "new"]
    assert 0 <= found["queue"]["oldest_seconds"] < 60
    assert found["results"]["stored"] == 4
    assert found["results"]["failures"] == {"exit": 1, "handler_error": 1, "cancelled": 1}
    assert found["results"]["per_second"] > 0


def test_agents_are_named_with_what_they_hold_and_go_when_they_end(project: Project) -> None:
    project.submit({"n": 1, "sleep": 15})
    agent = project.start("run", "--quiet", "--set", "agent.grace=0")
    eventually(lambda: bool(project.ran()))
    found = status(project)["queue"]
    ((name, holder),) = found["agents"].items()
    assert name.endswith(f"-{agent.pid}")
    assert holder["leased"] == 1
    assert found["states"]["leased"] == 1
    stop(agent)
    assert status(project)["queue"]["agents"] == {}


def test_an_agent_that_was_killed_stays_named_and_another_tells_of_its_tasks(tmp_path: Path) -> None:
    project = Project(tmp_path, lease=1.5)
    project.submit({"n": 1, "sleep": 3})
    killed = project.start("run", "--quiet")
    eventually(lambda: bool(project.ran()))
    killed.kill()
    output_at_end(killed)
    assert next(iter(status(project)["queue"]["agents"])).endswith(f"-{killed.pid}")
    other = project.start("run", "--quiet")
    assert project.results("--session", "s", "--wait")[0]["output"] == {"n": 1}
    said = stop(other)
    assert re.search(
        rf"tasks of agent \S+-{killed.pid} are handed out again, .* lease, which ended .* ago: 's_1'", said
    )


def test_the_text_shows_the_same(project: Project) -> None:
    project.submit({"n": 1}, session="old")
    project.drain()
    project.submit({"n": 1}, {"n": 2}, session="new")
    shown = project.run("status").stdout
    assert re.search(r"^queue sqlite\n +waiting  2\n +delayed  0\n", shown)
    assert re.search(r" oldest waits  \d+\.\d s\n +agents  0\n +session new  waiting 2\n", shown)
    assert re.search(
        r"^results sqlite\n +stored  1\n +failed  0\n +rate  [\d.,]+ tasks/s, so what is in the queue",
        shown,
        re.MULTILINE,
    )


def test_many_sessions_are_cut_short_in_the_text_alone(project: Project) -> None:
    tasks = [Task(f"t{number}", b"{}", {"session_id": f"s{number}"}) for number in range(22)]
    with SqliteSource(SqliteSource.Config(path=project.folder / "queue.db"), Function(timeout=20)) as queue:
        queue.put(tasks)
    assert "and 2 sessions more; --json has them all" in project.run("status").stdout
    assert len(status(project)["queue"]["sessions"]) == 22


def test_a_grid_in_which_nothing_stands_says_so(project: Project) -> None:
    project.events({"n": 1})
    (project.folder / "htcgrid.toml").write_text(
        '[function]\nhandler = "handlers.handler"\n[planes.local]\nplugin = "process"\n'
    )
    done = project.run("status")
    assert (done.returncode, done.stdout) == (2, "")
    assert "This config has nothing to show: the plane has no deployed workers" in done.stderr


def test_a_queue_that_is_unavailable_is_told_after_the_rest(project: Project) -> None:
    project.submit({"n": 1})
    project.drain()
    done = project.run("status", "--set", "source.path=nowhere/queue.db")
    assert done.returncode == 2
    assert "results sqlite" in done.stdout
    assert "there is no folder" in done.stderr


def test_a_source_with_a_depth_alone_shows_that(project: Project) -> None:
    project.events({"n": 1}, {"n": 2})
    (project.folder / "htcgrid.toml").write_text(
        '[function]\nhandler = "handlers.handler"\n[source]\nplugin = "jsonl"\npath = "events.jsonl"\n'
        '[planes.local]\nplugin = "process"\n'
    )
    done = project.run("status", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["queue"]["states"]["waiting"] == 2

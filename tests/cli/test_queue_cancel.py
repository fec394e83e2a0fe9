"""Tasks that are cancelled: the real program on a sqlite queue."""

import time
from pathlib import Path

import pytest
from queue_project import Project, eventually, stop


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_waiting_tasks_of_a_cancelled_session_never_run_and_have_a_result_each(project: Project) -> None:
    project.submit({"n": 1}, {"n": 2}, session="stopped")
    project.submit({"n": 3}, session="kept")
    done = project.run("cancel", "--session", "stopped")
    assert (done.returncode, done.stdout) == (0, "2 tasks cancelled.\n")
    project.drain()
    assert project.ran() == ["kept_1"]
    results = project.results("--session", "stopped")
    assert [(line["id"], line["failure"]) for line in results] == [
        ("stopped_1", "cancelled"),
        ("stopped_2", "cancelled"),
    ]


def test_cancelling_twice_leaves_one_result_each(project: Project) -> None:
    project.submit({"n": 1}, {"n": 2})
    for _ in range(2):
        assert project.run("cancel", "--session", "s").returncode == 0
    assert [line["id"] for line in project.results()] == ["s_1", "s_2"]


def test_ids_that_are_not_in_the_queue_are_named_with_exit_code_1(project: Project) -> None:
    project.submit({"n": 1})
    project.drain()
    project.submit({"n": 1}, session="t")
    done = project.run("cancel", "t_1", "s_1", "nonsense")
    assert (done.returncode, done.stdout) == (1, "1 tasks cancelled.\n")
    assert "nonsense, s_1." in done.stderr
    assert {line["id"]: line["status"] for line in project.results()} == {"s_1": "succeeded", "t_1": "failed"}


def test_a_session_that_is_not_there_is_said(project: Project) -> None:
    project.submit({"n": 1})
    done = project.run("cancel", "--session", "typo")
    assert done.stdout == "0 tasks cancelled.\n"
    assert "no task of session typo" in done.stderr


def test_nothing_named_is_wrong_usage(project: Project) -> None:
    assert project.run("cancel").returncode == 2


@pytest.mark.timing
def test_a_running_task_is_stopped_soon_after_the_next_heartbeat(tmp_path: Path) -> None:
    lease = 1.5
    project = Project(tmp_path, lease=lease)
    options = ["--set", "function.timeout=300"]
    project.submit({"n": 1, "sleep": 200}, {"n": 2})
    agent = project.start("run", "--quiet", *options)
    eventually(lambda: project.ran() == ["s_1"])
    project.run("cancel", "s_1")
    began = time.monotonic()
    eventually(lambda: project.ran() == ["s_1", "s_2"])
    assert time.monotonic() - began < lease / 3 + 2.0
    eventually(lambda: len(project.results()) == 2)
    stop(agent)
    assert [(line["id"], line["status"]) for line in project.results()] == [("s_1", "failed"), ("s_2", "succeeded")]


def test_the_log_names_leases_that_were_extended_and_lost(tmp_path: Path) -> None:
    project = Project(tmp_path, lease=1.0)
    project.submit({"n": 1, "sleep": 200}, {"n": 2})
    agent = project.start("run", "--quiet", "--verbose", "--set", "function.timeout=300")
    eventually(lambda: project.ran() == ["s_1"])
    project.run("cancel", "s_1")
    eventually(lambda: project.ran() == ["s_1", "s_2"])
    said = stop(agent)
    assert "1 leases were lost, to another agent or by a cancel: s_1" in said
    assert "leases by 1 s." in said

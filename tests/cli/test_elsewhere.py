"""On another system than Linux. None was at hand: what only Linux has is taken out of Python here, of the workers' too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from htcgrid.runtime.plain_sandbox import PlainSandbox

if TYPE_CHECKING:
    from conftest import Project

PARENT = """
import os, sys, time

def handler(event, context):
    if event:
        os.kill(os.getppid(), event)
        time.sleep(60)
    with open(f"/proc/{os.getppid()}/environ") as file:
        return file.read()
"""
ENDS = """
import os, time

def handler(event, context):
    if event > 0:
        os._exit(event)
    os.kill(os.getpid(), -event)
    time.sleep(60)
"""
pytestmark = pytest.mark.slow
ELSEWHERE = str(Path(__file__).parents[1] / "parts" / "elsewhere")


def htcgrid(project: Project, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": ELSEWHERE, "ELSEWHERE_NOTES": str(project.folder)}
    command = [sys.executable, "-m", "htcgrid", *arguments]
    return subprocess.run(
        command, cwd=project.folder, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.fixture
def reduced(project: Project) -> Project:
    """Workers are on that system as well, and note that."""
    added = f"""
[planes.reduced]
plugin = "process"
supervision = "reduced"
workers = 2

[function.environment]
PYTHONPATH = "{ELSEWHERE}"
ELSEWHERE_NOTES = "{project.folder}/workers"
"""
    (project.folder / "workers").mkdir()
    project.write("htcgrid.toml", (project.folder / "htcgrid.toml").read_text() + added)
    return project


@pytest.fixture
def on_linux(project: Project) -> Project:
    """The reduced plane where there is `/proc`."""
    added = '\n[planes.reduced]\nplugin = "process"\nsupervision = "reduced"\nworkers = 2\n'
    project.write("htcgrid.toml", (project.folder / "htcgrid.toml").read_text() + added)
    return project


def test_a_run_says_in_a_sentence_that_it_needs_linux_and_what_to_do(project: Project) -> None:
    done = htcgrid(project, "run", "--quiet")
    assert done.returncode == 2, done.stderr
    assert 'The plane "process" needs Linux, and this is Darwin.' in done.stderr
    assert "Docker" in done.stderr
    assert 'supervision = "reduced"' in done.stderr
    assert "Traceback" not in done.stderr


def test_tasks_run_on_the_reduced_plane_and_a_second_run_finds_their_results(reduced: Project) -> None:
    reduced.tasks(*({"n": n, "print": f"task {n}"} for n in range(200)))
    done = htcgrid(reduced, "run", "--quiet", "--plane", "reduced")
    assert done.returncode == 0, done.stderr
    assert [result["output"]["n"] for result in sorted(reduced.results(), key=lambda each: int(each["id"]))] == [
        *range(200)
    ]
    assert list((reduced.folder / "workers").iterdir()), "no worker was on that system"
    assert "Traceback" not in done.stderr
    again = htcgrid(reduced, "run", "--quiet", "--plane", "reduced")
    assert again.returncode == 0, again.stderr
    assert len(reduced.results()) == 200


def test_failures_have_their_kinds_on_the_reduced_plane(reduced: Project) -> None:
    reduced.tasks({"raise": "no"}, {"exit": 3, "print": "the last words"}, {"sleep": 600}, {"fine": True})
    done = htcgrid(reduced, "run", "--quiet", "--plane", "reduced", "--set", "function.timeout=2")
    assert done.returncode == 1, done.stderr
    found = {result["id"]: result.get("failure") for result in reduced.results()}
    assert found == {"1": "handler_error", "2": "exit", "3": "timeout", "4": None}


def test_check_says_what_the_reduced_plane_lacks(reduced: Project) -> None:
    done = htcgrid(reduced, "check", "--plane", "reduced", "--open")
    assert 'planes.reduced: supervision = "reduced": memory is neither limited nor measured' in done.stdout
    assert "ok     planes.reduced\n" in done.stdout


def test_keys_that_the_reduced_plane_cannot_keep_are_refused(reduced: Project) -> None:
    for key in ("preload=true", 'transport="socket"', 'user="nobody"'):
        done = htcgrid(reduced, "run", "--quiet", "--plane", "reduced", "--set", f"planes.reduced.{key}")
        assert done.returncode == 2, key
        assert f'supervision = "reduced" cannot be combined with {key.partition("=")[0]}' in done.stderr


def test_a_handler_that_ends_its_parent_ends_its_environment_and_not_the_agent(on_linux: Project) -> None:
    on_linux.write("job.py", PARENT)
    numbers = [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    on_linux.tasks(*numbers, 0)
    done = on_linux.htcgrid("run", "--quiet", "--plane", "reduced")
    assert done.status == 1, done.err
    found = {int(result["id"]): result.get("error", {}).get("errorMessage") for result in on_linux.results()}
    names = ["killed", "terminated", "interrupt", "hangup"]
    assert [found[1 + n].rpartition("signal: ")[2] for n in range(len(names))] == names
    assert found[5] is None


def test_a_handlers_parent_shows_it_none_of_the_agents_variables(on_linux: Project) -> None:
    on_linux.write("job.py", PARENT)
    on_linux.tasks(0)
    done = on_linux.htcgrid("run", "--quiet", "--plane", "reduced", env={"AGENTS_OWN": "hunter2"})
    assert done.status == 0, done.err
    shown = on_linux.results()[0]["output"]
    assert "AWS_LAMBDA_FUNCTION_NAME" in shown
    assert "AGENTS_OWN" not in shown


def test_a_handler_that_closes_every_descriptor_is_answered_for(reduced: Project) -> None:
    reduced.write("job.py", "import os\ndef handler(event, context):\n    os.closerange(3, 256)\n    return event\n")
    reduced.tasks(1, 2, 3)
    done = htcgrid(reduced, "run", "--quiet", "--plane", "reduced", "--set", "planes.reduced.workers=1")
    assert done.returncode == 0, done.stderr
    assert [result["output"] for result in reduced.results()] == [1, 2, 3]


def test_a_worker_has_the_variables_and_signals_that_it_was_given_and_no_more_from_its_parent() -> None:
    program = 'trap "echo is not ignored" PIPE; kill -PIPE $$; env'
    sandbox = PlainSandbox(["sh", "-c", program], "/", {"LANG": "C", "PATH": os.environ["PATH"]})
    sandbox.start({"OWN": "1"})
    try:
        sandbox.process.wait(60)
        printed = {line.partition("=")[0] for line in sandbox.log_tail().decode().splitlines()}
    finally:
        sandbox.close()
    assert printed - {"_", "PWD", "SHLVL"} == {"LANG", "OWN", "PATH", "is not ignored"}


@pytest.mark.parametrize(
    ("code", "reason"), [(3, "exit status 3"), (-9, "signal: killed"), (-15, "signal: terminated")]
)
def test_a_worker_that_ends_is_reported_with_its_own_status(reduced: Project, code: int, reason: str) -> None:
    reduced.write("job.py", ENDS)
    reduced.tasks(code)
    done = htcgrid(reduced, "run", "--quiet", "--plane", "reduced")
    assert done.returncode == 1, done.stderr
    assert reduced.results()[0]["error"]["errorMessage"].endswith(reason)

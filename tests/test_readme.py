"""README.md, followed to the letter."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from htcgrid.spi import FAILURES, FailureKind

PAGE = (Path(__file__).parents[1] / "README.md").read_text()


def block(language: str, having: str) -> str:
    """The code block of the page that holds these words."""
    (text,) = (text for text in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if having in text)
    return str(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with what the page shows: handler and config."""
    (tmp_path / "handler.py").write_text(block("python", "GREETING"))
    (tmp_path / "htcgrid.toml").write_text(block("toml", "[planes.local]"))
    (tmp_path / "tasks.jsonl").write_text('{"name": "Ada"}\n{"name": "Grace"}\n')
    return tmp_path


def htcgrid(project: Path, *arguments: str) -> str:
    """What the program prints; it must end well."""
    command = [sys.executable, "-m", "htcgrid", *arguments]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    (tmp_path / "pi.py").write_text(block("python", "import random"))
    command = [sys.executable, "pi.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    _, shown = block("console", "$ python pi.py").split("$ python pi.py\n")
    assert (done.stdout, done.returncode) == (shown, 0), done.stderr


def test_a_result_has_the_keys_that_the_page_shows(project: Path) -> None:
    htcgrid(project, "run")
    shown = json.loads(block("json", "fingerprint"))
    (result,) = (
        result
        for line in (project / "results.jsonl").read_text().splitlines()
        if (result := json.loads(line))["id"] == shown["id"]
    )
    same_in_every_run = ("fingerprint", "status", "output", "attempt")
    assert list(result) == list(shown)
    assert [result[key] for key in same_in_every_run] == [shown[key] for key in same_in_every_run]


def test_the_page_names_every_kind_of_failure_and_its_attempts() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", PAGE, re.MULTILINE))
    for kind in FailureKind:
        attempts = str(FAILURES[kind].attempts) if kind != FailureKind.INVALID_EVENT else "never runs"
        assert rows[kind].startswith(attempts), kind


def test_every_page_that_the_page_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    missing = [link for link in links if not (Path(__file__).parents[1] / link).exists()]
    assert not missing


def test_the_project_of_the_page_runs(project: Path) -> None:
    htcgrid(project, "run")
    results = [json.loads(line) for line in (project / "results.jsonl").read_text().splitlines()]
    assert {result["id"]: result["output"] for result in results} == {"1": "Hello, Ada!", "2": "Hello, Grace!"}


def test_the_queue_of_the_page_is_served_by_an_agent_for_the_shell_and_for_python(project: Path) -> None:
    parts = re.split(r"\n(?=\[)", (project / "htcgrid.toml").read_text())
    kept = [part for part in parts if not part.startswith(("[source]", "[sink]"))]
    (project / "htcgrid.toml").write_text("\n".join([*kept, block("toml", "queue.db")]))
    (project / "call.py").write_text(block("python", 'Grid.open("htcgrid.toml")'))
    agent = subprocess.Popen([sys.executable, "-m", "htcgrid", "run", "--quiet"], cwd=project)
    try:
        session = htcgrid(project, "submit", "tasks.jsonl").strip()
        answers = htcgrid(project, "results", "--session", session, "--wait").splitlines()
        called = subprocess.run([sys.executable, "call.py"], cwd=project, capture_output=True, text=True, check=False)
    finally:
        agent.terminate()
        assert agent.wait() == 0
    assert {json.loads(answer)["output"] for answer in answers} == {"Hello, Ada!", "Hello, Grace!"}
    assert called.stdout.splitlines() == ["Hello, Ada!", "Hello, Grace!"], called.stderr


@pytest.mark.slow
def test_every_plane_of_the_page_is_a_plane_that_can_be_configured_so(project: Path) -> None:
    with (project / "htcgrid.toml").open("a") as config:
        config.write(block("toml", "[planes.cloud]"))
    for plane in ("local", "docker", "cluster", "cloud"):
        htcgrid(project, "check", "--plane", plane)

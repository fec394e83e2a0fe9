"""`pytest --plane`: one test on many planes, run as a user runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

GRID = """
[function]
handler = "greet.handler"
code = "src"

[planes.local]
plugin = "process"
workers = 1

[planes.other]
plugin = "process"
workers = 2

[planes.far]
plugin = "not_installed"
"""

HANDLER = """
def handler(event, context):
    if "fail" in event:
        raise ValueError(event["fail"])
    return "Hello " + event["name"]
"""

TESTS = """
import os
import pytest
from htcgrid_contracts import LambdaError

def test_greets(lambda_function):
    assert lambda_function({"name": "Ada"}) == "Hello Ada"

def test_fails(lambda_function):
    with pytest.raises(LambdaError) as caught:
        lambda_function({"fail": "no name"})
    assert caught.value.document["errorType"] == "ValueError"
    assert caught.value.document["errorMessage"] == "no name"
    assert caught.value.kind == "handler_error"
    assert "ValueError: no name" in str(caught.value)

OPENED = []  # kept alive: Python gives the id of an object that is gone to the next one

def test_environments_live_on(plane, lambda_function):
    OPENED.append(plane)
    with open("opened", "a") as opened:
        opened.write(f"{os.getpid()} {id(plane)}\\n")

def test_environments_live_on_still(plane):
    test_environments_live_on(plane, None)

def test_without_a_plane():
    assert True
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "greet.py").write_text(HANDLER)
    (tmp_path / "htcgrid.toml").write_text(GRID)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_greet.py").write_text(TESTS)
    return tmp_path


def run(project: Path, *arguments: str) -> tuple[int, str]:
    # Hypothesis takes a second to load, and a project like this one has no use for it.
    without = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]
    command = [sys.executable, "-m", "pytest", "-v", "-rs", *without, *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout + done.stderr)
    return done.returncode, done.stdout + done.stderr


def test_a_test_runs_on_each_plane_that_is_named(project: Path) -> None:
    status, output = run(project, "--plane", "local,other")
    assert status == 0
    assert "test_greets[local] PASSED" in output
    assert "test_greets[other] PASSED" in output
    assert output.count("test_without_a_plane PASSED") == 1


def test_a_plane_is_opened_once_for_all_its_tests(project: Path) -> None:
    assert run(project, "--plane", "local,other")[0] == 0
    lines = (project / "opened").read_text().splitlines()
    assert len(lines) == 4
    assert len(set(lines)) == 2


def test_without_a_name_the_plane_of_the_config_is_used(project: Path) -> None:
    status, output = run(project)
    assert status == 0
    assert "test_greets[configured] PASSED" in output


def test_a_plane_that_is_not_installed_is_skipped_with_the_reason(project: Path) -> None:
    status, output = run(project, "--plane", "local,far")
    assert status == 0
    assert "test_greets[local] PASSED" in output
    assert "test_greets[far] SKIPPED" in output
    assert "There is no compute plane named 'not_installed'. Installed: " in output


def test_a_plane_that_is_unavailable_fails_when_planes_are_strict(project: Path) -> None:
    status, output = run(project, "--plane", "local,far", "--strict-planes")
    assert status == 1
    assert "There is no compute plane named 'not_installed'" in output


def test_a_plane_that_the_config_does_not_have_is_an_error(project: Path) -> None:
    status, output = run(project, "--plane", "locla")
    assert status == 1
    assert "[planes] has only: local, other, far" in output


def test_a_config_elsewhere_is_named(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (project / "test_greet.py").rename(elsewhere / "test_greet.py")
    (elsewhere / "pytest.ini").write_text("[pytest]\n")
    status, output = run(elsewhere, f"--grid={project / 'htcgrid.toml'}", "--plane=local")
    assert status == 0
    assert "test_greets[local] PASSED" in output


@pytest.mark.parametrize(("start", "named"), [("deep", "."), (".", "deep"), (".", "deep/test_greet.py::test_greets")])
def test_the_config_is_found_here_or_beside_the_tests_that_are_named(project: Path, start: str, named: str) -> None:
    """A project within a repository: pytest's root is the repository."""
    root = project / "pytest.ini"
    root.write_text("[pytest]\n")
    (project / "deep").mkdir()
    for path in list(project.iterdir()):
        if path.name not in {"deep", "pytest.ini"}:
            path.rename(project / "deep" / path.name)
    status, output = run(project / start, named, "--plane=local", "-k", "test_greets")
    assert status == 0, output
    assert "test_greets[local] PASSED" in output


def test_without_a_config_the_error_says_what_to_do(project: Path) -> None:
    (project / "htcgrid.toml").unlink()
    status, output = run(project, "-k", "greets")
    assert status == 1
    assert "there is no such file. `htcgrid init` writes one" in output


@pytest.mark.slow
def test_each_worker_of_xdist_opens_a_plane_once(project: Path) -> None:
    pytest.importorskip("xdist")
    status, _ = run(project, "--plane", "local,other", "-n", "2")
    assert status == 0
    opened = set((project / "opened").read_text().splitlines())
    workers = [line.split()[0] for line in opened]
    assert all(workers.count(worker) <= 2 for worker in workers)


def test_the_tests_of_a_plane_are_a_group_of_xdist(project: Path) -> None:
    pytest.importorskip("xdist")
    status, output = run(project, "--plane", "local,other", "-m", "xdist_group")
    assert status == 0
    assert "8 passed, 1 deselected" in output


def test_a_run_that_uses_no_plane_needs_no_config(project: Path) -> None:
    (project / "htcgrid.toml").unlink()
    status, _ = run(project, "-k", "without_a_plane")
    assert status == 0


@pytest.mark.slow
def test_the_example_of_the_options_passes_on_the_plane_of_its_config() -> None:
    pytest.importorskip("QuantLib", reason="prices the options; `make demo` installs it")
    example = Path(__file__).parents[2] / "examples" / "options"
    command = [sys.executable, "-m", "pytest", "--plane=local", "--grid=htcgrid.toml", "-p", "no:cacheprovider", "-q"]
    done = subprocess.run([*command, "test_pricing.py"], cwd=example, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout

"""examples/options, unchanged, in containers: the same bytes as on this machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from results_lines import outputs

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "options"
TASKS = 2000


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """The first of the example's tasks."""
    data = {"PYTHONPATH": str(ROOT / ".make" / "data")}
    made = subprocess.run([sys.executable, EXAMPLE / "make_tasks.py"], env=data, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"make_tasks.py needs what `make .make/examples` installs: {made.stderr.decode()[-200:]}")
    with (EXAMPLE / "tasks.jsonl").open() as tasks:
        lines = [line for line, _ in zip(tasks, range(TASKS), strict=False)]
    (tmp_path / "tasks.jsonl").write_text("".join(lines))
    return tmp_path / "tasks.jsonl"


@pytest.fixture
def quantlib(tmp_path: Path) -> Path:
    """What the example imports, for the Python of the image: containers reach no package index."""
    folder = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--python-version", "3.11"]
    done = subprocess.run([*pip, "--target", str(folder), "QuantLib"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"QuantLib cannot be installed here: {done.stderr[-200:]}")
    return folder


def run(config: Path, plane: str, settings: dict[str, str]) -> None:
    flags = ["--config", str(config), "--plane", plane, "--quiet"]
    flags += [f"--set={key}={value}" for key, value in settings.items()]
    script = f"from htcgrid.cli import main; main(['run', *{flags!r}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_example_gives_the_same_bytes_in_containers_as_on_this_machine(
    python_image: str, events: Path, quantlib: Path, tmp_path: Path
) -> None:
    (tmp_path / "site.env").write_text("PYTHONPATH=/opt/python\n")
    docker = {
        "plugin": "local_docker",
        "base_image": python_image,
        "workers": "2",
        "env_file": str(tmp_path / "site.env"),
        "volumes": json.dumps([f"{quantlib}:/opt/python:ro"]),
    }
    results = {}
    for plane in ("local", "docker"):
        results[plane] = tmp_path / f"{plane}.jsonl"
        files = {"source.path": str(events), "sink.path": str(results[plane])}
        run(EXAMPLE / "htcgrid.toml", plane, files | {f"planes.docker.{key}": value for key, value in docker.items()})
    local = outputs(results["local"])
    assert len(local) == TASKS
    assert outputs(results["docker"]) == local

"""examples/options, unchanged, through AWS's Invoke API: the same bytes as on this machine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serve_program import Server

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "options"


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """The example's tasks."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / ".make" / "data")}
    make: list[str | Path] = [sys.executable, EXAMPLE / "make_tasks.py"]
    made = subprocess.run(make, env=environment, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"make_tasks.py needs what `make .make/examples` installs: {made.stderr[-200:]}")
    return EXAMPLE / "tasks.jsonl"


@pytest.fixture
def service() -> Iterator[str]:
    server = Server(EXAMPLE / "htcgrid.toml")
    yield server.url
    server.stop()


def test_the_example_gives_the_same_bytes_on_the_service_as_on_this_machine(
    events: Path, service: str, tmp_path: Path
) -> None:
    cloud = {"plugin": "aws_lambda", "region": "eu-west-1", "endpoint_url": service, "qualifier": "$LATEST"}
    program = Path(sys.executable).with_name("htcgrid")
    outputs = {}
    for plane in ("local", "cloud"):
        results = tmp_path / f"{plane}.jsonl"
        settings: dict[str, object] = {"source.path": events, "sink.path": results}
        if plane == "cloud":
            settings |= {f"planes.cloud.{key}": value for key, value in cloud.items()}
        flags = [f"--set={key}={value}" for key, value in settings.items()]
        command: list[str | Path] = [
            program,
            "run",
            "--quiet",
            "--config",
            EXAMPLE / "htcgrid.toml",
            "--plane",
            plane,
            *flags,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        outputs[plane] = _outputs(results)
    assert len(outputs["local"]) > 5000
    assert outputs["cloud"] == outputs["local"]


def _outputs(results: Path) -> dict[str, str]:
    """The output of each task, as it stands in the file."""
    found = {}
    for line in results.read_text().splitlines():
        output = line.partition('"output":')[2].lstrip()
        found[json.loads(line)["id"]] = output[: json.JSONDecoder().raw_decode(output)[1]]
    return found

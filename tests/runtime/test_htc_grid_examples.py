"""The workloads of examples/htc-grid on the process plane."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "htc-grid"


def answers(folder: Path, tmp_path: Path) -> list[Any]:
    """The answers of the example's own tasks, in order."""
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    if (copy / "Makefile").is_file():
        subprocess.run(["make", "-C", copy], check=True, capture_output=True)
    program = Path(sys.executable).with_name("htcgrid")
    done = subprocess.run([program, "run"], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in (copy / "results.jsonl").read_text().splitlines()]
    assert len(results) == len((copy / "tasks.jsonl").read_text().splitlines())
    return [result["output"] for result in results]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mock_python", "mock_cpp"])
def test_the_mock_computation_computes_as_long_as_its_event_says(name: str, tmp_path: Path) -> None:
    if name == "mock_cpp":
        missing = [program for program in ("g++", "make", "bash", "curl") if shutil.which(program) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} is not installed")
    assert answers(EXAMPLES / name, tmp_path) == [{"computed_ms": 20, "turned": True, "data": ""}] * 4


@pytest.mark.slow  # needs QuantLib, which the tests of the core do without
def test_american_options_are_worth_at_least_as_much_as_european_ones(tmp_path: Path) -> None:
    for answer in answers(EXAMPLES / "portfolio", tmp_path):
        european_call, american_call, european_put, american_put = answer["prices"]
        assert american_put > european_put > 0
        assert american_call > 0.99 * european_call > 0
        assert answer["value"] == pytest.approx(10 * sum(answer["prices"]))

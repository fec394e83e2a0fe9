"""`htcgrid compare` of the options example: processes, Docker and a cluster give the same answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import kubernetes_images as images
import pytest

EXAMPLE = images.ROOT / "examples" / "options"
EVENTS = 200


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """The first of the example's tasks."""
    data = {"PYTHONPATH": str(images.ROOT / ".make" / "data")}
    made = subprocess.run([sys.executable, EXAMPLE / "make_tasks.py"], env=data, capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"make_tasks.py needs what `make .make/examples` installs: {made.stderr.decode()[-200:]}")
    lines = (EXAMPLE / "tasks.jsonl").read_text().splitlines(keepends=True)[:EVENTS]
    (tmp_path / "events.jsonl").write_text("".join(lines))
    return tmp_path / "events.jsonl"


@pytest.mark.parametrize("plane", ["docker", "cluster"])
def test_the_options_example_has_no_difference(
    plane: str, events: Path, namespace: str, agent_image: str, tmp_path: Path
) -> None:
    image = images.options_image()
    tables: dict[str, dict[str, object]] = {
        "docker": {"plugin": "local_docker", "base_image": image, "workers": 1},
        "cluster": {"plugin": "eks", "namespace": namespace, "image": image, "agent_image": agent_image},
    }
    set_ = [part for key, value in tables[plane].items() for part in ("--set", f"planes.{plane}.{key}={value}")]
    command: list[str | Path] = [
        Path(sys.executable).with_name("htcgrid"),
        "compare",
        "--config",
        EXAMPLE / "htcgrid.toml",
        *set_,
    ]
    report = tmp_path / "report.xml"
    done = subprocess.run(
        [*command, "--planes", f"local,{plane}", "--json", "--id-field", "date", "--junit", report, events],
        capture_output=True,
        text=True,
        check=False,
    )
    compared = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each for each in compared if not each["agrees"]] == []
    assert (done.returncode, len(compared)) == (0, EVENTS), done.stderr
    assert all(each["billed_ms"][plane] > 0 for each in compared)
    suite = ET.parse(report).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == (str(EVENTS), "0")

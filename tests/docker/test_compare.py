"""`htcgrid compare` of two machines: x86-64 here, arm64 through QEMU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

HANDLER = """
import platform

def handler(event, context):
    values = event["values"]
    # As libraries do that add with as many lanes as the processor has.
    lanes = 2 if platform.machine() == "aarch64" else 4
    return {"sum": sum(sum(values[lane::lanes]) for lane in range(lanes))}
"""
EXACT, INEXACT = [1.0, 2.0, 3.0, 4.0], [0.1 * n for n in range(1, 12)]
CONFIG = """
[function]
handler = "work.handler"
timeout = 60
memory = 256
[planes.x86]
plugin = "local_docker"
base_image = "{x86}"
workers = 1
[planes.arm]
plugin = "local_docker"
base_image = "{arm}"
workers = 1
"""


def test_the_ids_that_differ_are_named_and_none_does_within_a_tolerance(
    python_image: str, arm64_image: str, tmp_path: Path
) -> None:
    (tmp_path / "work.py").write_text(HANDLER)
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(x86=python_image, arm=arm64_image))
    events = [{"id": "exact", "values": EXACT}, {"id": "inexact", "values": INEXACT}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    tmp_path.chmod(0o755)
    status, differing = compared(tmp_path)
    assert (status, differing) == (1, ["inexact"])
    assert compared(tmp_path, "--rel-tol", "1e-12") == (0, [])


def compared(folder: Path, *options: str) -> tuple[int, list[str]]:
    """The exit code and the ids that differ."""
    program = Path(sys.executable).with_name("htcgrid")
    command: list[str | Path] = [
        program,
        "compare",
        "--planes",
        "x86,arm",
        "--id-field",
        "id",
        "--json",
        *options,
        "events.jsonl",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2, done.stderr
    return done.returncode, [each["id"] for each in found if not each["agrees"]]

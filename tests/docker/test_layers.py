"""Layers in a container: all of them are its /opt."""

from __future__ import annotations

from pathlib import Path

from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.spi import Function, Lease, Outcome, Task

HANDLER = """
import sys
sys.path.append("/opt/python")  # AWS's images do so; that of these tests is smaller
import shared, both

def handler(event, context):
    return [shared.NAME, both.NAME]
"""


def test_a_handler_finds_all_layers_below_opt_and_the_last_one_wins(python_image: str, tmp_path: Path) -> None:
    for name, modules in {"first": ("shared", "both"), "second": ("both",)}.items():
        for module in modules:
            path = tmp_path / name / "python" / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"NAME = {name!r}\n")
    code = tmp_path / "code"
    code.mkdir()
    (code / "work.py").write_text(HANDLER)
    tmp_path.chmod(0o755)
    function = Function(handler="work.handler", code=code, layers=(tmp_path / "first", tmp_path / "second"))
    with LocalDockerInvoker(Options(base_image=python_image, workers=1), function) as plane:
        [outcome] = plane.invoke([Lease(Task("t", b"1"))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.payload == b'["first", "second"]', outcome

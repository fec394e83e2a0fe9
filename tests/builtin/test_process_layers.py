"""Layers on the process plane: where a handler finds what is in them."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Outcome, Rejected, Task

HANDLER = """
import subprocess
import shared, both

def handler(event, context):
    return [shared.NAME, both.NAME, subprocess.run(["tool"], capture_output=True, text=True).stdout.strip()]
"""
HTCGRID = Path(sys.executable).with_name("htcgrid")


def layer(folder: Path, name: str, **modules: str) -> Path:
    for module, text in modules.items():
        path = folder / name / "python" / f"{module}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    tool = folder / name / "bin" / "tool"
    tool.parent.mkdir(parents=True, exist_ok=True)
    tool.write_text(f"#!/bin/sh\necho tool of {name}\n")
    tool.chmod(0o755)
    return folder / name


def called(code: Path, layers: tuple[Path, ...], transport: str) -> Any:
    function = Function(handler="work.handler", code=code, layers=layers)
    config = ProcessInvoker.Config.model_validate({"workers": 1, "transport": transport})
    with ProcessInvoker(config, function) as plane:
        [outcome] = plane.invoke([Lease(Task("t", b"1"))], 20.0)
    assert isinstance(outcome, Outcome)
    return json.loads(outcome.payload)


@pytest.mark.parametrize("transport", ["socket", "http"])
def test_a_handler_finds_modules_and_programs_of_its_layers_and_the_last_one_wins(
    tmp_path: Path, transport: str
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "work.py").write_text(HANDLER)
    first = layer(tmp_path, "first", shared="NAME = 'first'", both="NAME = 'first'")
    second = layer(tmp_path, "second", both="NAME = 'second'")
    assert called(code, (first, second), transport) == ["first", "second", "tool of second"]


def test_a_layer_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(HANDLER)
    with pytest.raises(Rejected, match="htcgrid layer"):
        called(tmp_path, (tmp_path / "missing",), "socket")


def test_a_layer_is_made_of_requirements_and_run_by_a_path_beside_the_config(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "shared-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("shared.py", "NAME = 'from a wheel'\n")
        wheel.writestr("shared-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: shared\nVersion: 1.0\n")
        wheel.writestr("shared-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("shared-1.0.dist-info/RECORD", "")
    (tmp_path / "requirements.txt").write_text(f"--no-index\n--find-links {tmp_path}\nshared==1.0\n")
    (tmp_path / "work.py").write_text("import shared\n\ndef handler(event, context):\n    return shared.NAME\n")
    (tmp_path / "htcgrid.toml").write_text('[function]\nhandler = "work.handler"\nlayers = ["made"]\n')
    made = _run(tmp_path, "layer", "requirements.txt", "made")
    assert made.returncode == 0, made.stderr
    again = _run(tmp_path, "layer", "requirements.txt", "made")
    assert (again.returncode, "not empty" in again.stderr) == (2, True)
    (tmp_path / "elsewhere").mkdir()
    done = _run(tmp_path / "elsewhere", "invoke", "-c", "../htcgrid.toml", "1")
    assert done.stdout.strip() == '"from a wheel"', done.stderr


def _run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HTCGRID, *arguments], cwd=folder, capture_output=True, text=True, check=False)

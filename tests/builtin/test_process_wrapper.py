"""What starts the runtime on the service, and the function's LOG_LEVEL beside an emulator that has one of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Outcome, Rejected, Task

HANDLER = (
    "import os\n\ndef handler(event, context):\n    return [os.environ.get('WRAPPED'), os.environ.get('LOG_LEVEL')]\n"
)
WRAPPER = '#!/bin/sh\nexport WRAPPED="$AWS_LAMBDA_FUNCTION_NAME"\nexec "$@"\n'


def plane(code: Path, environment: dict[str, str], **options: Any) -> ProcessInvoker:
    (code / "work.py").write_text(HANDLER)
    function = Function(handler="work.handler", code=code, environment=environment)
    return ProcessInvoker(ProcessInvoker.Config.model_validate({"workers": 1, **options}), function)


def called(plane: ProcessInvoker) -> Any:
    with plane:
        [outcome] = plane.invoke([Lease(Task("t", b"1"))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is None, outcome
    return json.loads(outcome.payload)


@pytest.fixture
def wrapper(tmp_path: Path) -> Path:
    path = tmp_path / "wrap"
    path.write_text(WRAPPER)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("written", ["wrap", "/var/task/wrap", "{}/wrap"])
def test_a_wrapper_starts_the_runtime(tmp_path: Path, wrapper: Path, written: str) -> None:
    environment = {"AWS_LAMBDA_EXEC_WRAPPER": written.format(wrapper.parent)}
    assert called(plane(tmp_path, environment)) == ["work", None]


def test_a_wrapper_starts_the_runtime_in_the_emulator(tmp_path: Path, wrapper: Path, rie: Path) -> None:
    environment = {"AWS_LAMBDA_EXEC_WRAPPER": str(wrapper)}
    assert called(plane(tmp_path, environment, transport="rie", rie=rie)) == ["work", None]


def test_a_wrapper_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="AWS_LAMBDA_EXEC_WRAPPER"):
        plane(tmp_path, {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/wrap"}).open()


def test_a_wrapper_on_the_transport_that_cannot_run_it_is_refused(tmp_path: Path, wrapper: Path) -> None:
    with pytest.raises(Rejected, match="would not run"):
        plane(tmp_path, {"AWS_LAMBDA_EXEC_WRAPPER": str(wrapper)}, transport="socket").open()


@pytest.mark.parametrize("level", ["CRITICAL", "nonsense"])
def test_the_log_level_of_a_function_is_not_the_emulators(tmp_path: Path, rie: Path, level: str) -> None:
    assert called(plane(tmp_path, {"LOG_LEVEL": level}, transport="rie", rie=rie)) == [None, level]

"""The behaviours of the parity table, in a container and on the process plane: the same answers, byte for byte."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid5

import pytest
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Invoker, Lease, Outcome, Task

PARITY = Path(__file__).parents[1] / "parity"
TIMEOUT = 10
DIFFERENCES = {
    "where": "the code lies in /var/task",
    "variable_LAMBDA_TASK_ROOT": "the code lies in /var/task",
    "signals": "no signal is ignored in a container; a process of a shell inherits what that ignores",
    "module_that_raises": "the stack goes through files of Python, which lie elsewhere in the image",
    "pipes_are_plain": "descriptors are the engine's",
}


def _table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_table", PARITY / "test_parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = _table()


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    shutil.copytree(PARITY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PARITY / "inits", folder, dirs_exist_ok=True)
    folder.chmod(0o755)
    return folder


def function(code: Path, handler: str) -> Function:
    runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Function(handler=handler, name="parity", code=code, timeout=TIMEOUT, runtime=runtime)


@pytest.fixture(scope="module")
def here(code: Path) -> Iterator[Invoker]:
    config = ProcessInvoker.Config(workers=1, transport="http")
    with ProcessInvoker(config, function(code, "handlers.handler")) as plane:
        yield plane


@pytest.fixture(scope="module")
def there(code: Path, python_image: str) -> Iterator[Invoker]:
    options = Options(base_image=python_image, workers=1)
    with LocalDockerInvoker(options, function(code, "handlers.handler")) as plane:
        yield plane


def outcomes(plane: Invoker, behaviour: str, events: list[Any], code: Path) -> list[tuple[str, str]]:
    seen = []
    for number, event in enumerate(events):
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        lease = Lease(Task(str(uuid5(UUID(int=0), f"{behaviour} {number}")), payload))
        (outcome,) = plane.invoke([lease], TIMEOUT)
        assert isinstance(outcome, Outcome)
        text = outcome.payload.decode(errors="surrogateescape").replace(str(code), "/var/task")
        seen.append((outcome.failure or "", text))
    return seen


@pytest.mark.parametrize("behaviour", [name for name in TABLE.BEHAVIOURS if name != "time_of_the_deadline"])
def test_as_on_the_process_plane(behaviour: str, here: Invoker, there: Invoker, code: Path) -> None:
    events = TABLE.BEHAVIOURS[behaviour]
    expected = outcomes(here, behaviour, events, code)
    found = outcomes(there, behaviour, events, code)
    if behaviour in DIFFERENCES:
        pytest.xfail(DIFFERENCES[behaviour])
    assert found == expected


@pytest.mark.parametrize("behaviour", TABLE.INITS)
def test_initialising_as_on_the_process_plane(behaviour: str, code: Path, python_image: str) -> None:
    (code / "wrong_syntax.py").write_text("def handler(event, context)\n    return 1\n")
    served = function(code, TABLE.INITS[behaviour])
    with ProcessInvoker(ProcessInvoker.Config(workers=1, transport="http"), served) as plane:
        expected = outcomes(plane, behaviour, [{}], code)
    with LocalDockerInvoker(Options(base_image=python_image, workers=1), served) as plane:
        found = outcomes(plane, behaviour, [{}], code)
    if behaviour in DIFFERENCES:
        pytest.xfail(DIFFERENCES[behaviour])
    assert found == expected

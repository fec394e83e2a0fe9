"""The behaviours of the parity table, in a pod and on the process plane: the same answers, byte for byte."""

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid5

import pytest
from htcgrid_eks.invoker import EksInvoker

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Invoker, Lease, Outcome, Task

PARITY = Path(__file__).parents[1] / "parity"
TIMEOUT = 10
_STACK = (
    r'File \\"[^"]*importlib[^"]*\\", line \d+'  # another release of the same Python lies, and has lines, elsewhere
)
NOT_COMPARED = {
    "time_of_the_deadline": "it is never the same twice",
    "signals": "no signal is ignored in a container; a process here inherits what its shell ignores",
}
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the image has Python 3.11: so must this machine"
)
Seen = list[tuple[str, str]]


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
    (folder / "wrong_syntax.py").write_text("def handler(event, context)\n    return 1\n")
    return folder


@pytest.fixture(scope="module")
def config(namespace: str, agent_image: str, lambda_image: str) -> EksInvoker.Config:
    return EksInvoker.Config(image=lambda_image, agent_image=agent_image, namespace=namespace, cpu="20m")


def function(code: Path, handler: str) -> Function:
    runtime = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return Function(handler=handler, name="parity", code=code, timeout=TIMEOUT, runtime=runtime)


@pytest.fixture(scope="module")
def here(code: Path) -> Iterator[Invoker]:
    config = ProcessInvoker.Config(workers=1, transport="http")
    with ProcessInvoker(config, function(code, "handlers.handler")) as plane:
        yield plane


@pytest.fixture(scope="module")
def there(code: Path, config: EksInvoker.Config) -> Iterator[Invoker]:
    with EksInvoker(config, function(code, "handlers.handler")) as plane:
        yield plane


def outcomes(plane: Invoker, behaviour: str, events: list[Any], code: Path) -> Seen:
    seen = []
    for number, event in enumerate(events):
        payload = event if isinstance(event, bytes) else json.dumps(event).encode()
        lease = Lease(Task(str(uuid5(UUID(int=0), f"{behaviour} {number}")), payload))
        within = event.get("within", TIMEOUT) if isinstance(event, dict) else TIMEOUT
        outcome = invoke(plane, lease, within)
        text = outcome.payload.decode(errors="surrogateescape").replace(str(code), "/var/task")
        seen.append((outcome.failure or "", re.sub(_STACK, "<importlib>", text)))
    return seen


def invoke(plane: Invoker, lease: Lease, timeout: float) -> Outcome:
    """As an agent does: what was given back, because its environment had just ended, is handed in again."""
    while True:
        (report,) = plane.invoke([lease], timeout)
        if isinstance(report, Outcome):
            return report


@pytest.mark.parametrize("behaviour", [name for name in TABLE.BEHAVIOURS if name not in NOT_COMPARED])
def test_as_on_the_process_plane(behaviour: str, here: Invoker, there: Invoker, code: Path) -> None:
    events = TABLE.BEHAVIOURS[behaviour]
    assert outcomes(there, behaviour, events, code) == outcomes(here, behaviour, events, code)


def test_timeouts_as_on_the_process_plane(here: Invoker, there: Invoker, code: Path) -> None:
    events = [{"do": "exits_with_0"}, {"do": "counts"}, {"do": "sleeps", "seconds": 60, "within": 1}, {"do": "counts"}]
    assert outcomes(there, "timeout", events, code) == outcomes(here, "timeout", events, code)


@pytest.fixture(scope="module")
def initialised(code: Path, config: EksInvoker.Config) -> dict[str, Seen]:
    """The first outcome of each way to begin, of pods that are made a few at a time."""

    def first(behaviour: str) -> Seen:
        with EksInvoker(config, function(code, TABLE.INITS[behaviour])) as plane:
            return outcomes(plane, behaviour, [{}], code)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(TABLE.INITS, pool.map(first, TABLE.INITS), strict=True))


@pytest.mark.parametrize("behaviour", TABLE.INITS)
def test_initialising_as_on_the_process_plane(behaviour: str, code: Path, initialised: dict[str, Seen]) -> None:
    config = ProcessInvoker.Config(workers=1, transport="http")
    with ProcessInvoker(config, function(code, TABLE.INITS[behaviour])) as plane:
        expected = outcomes(plane, behaviour, [{}], code)
    assert initialised[behaviour] == expected

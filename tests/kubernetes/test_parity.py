"""The behaviours of the parity table, in a pod and on the process plane: the same answers, byte for byte."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from htcgrid_eks.invoker import EksInvoker
from parity_sides import BEHAVIOURS, INITS, TASK_ROOT, TIMEOUTS, outcomes, plain, pythons_code

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Invoker

TIMEOUT = 10
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the image has Python 3.11: so must this machine"
)
Seen = list[tuple[str, str]]


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pythons_code(tmp_path_factory.mktemp("parity"))


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


def seen(plane: Invoker, behaviour: str, events: list[Any], code: Path) -> Seen:
    found = outcomes(plane, behaviour, events, TIMEOUT)
    return [(outcome.failure or "", plain(outcome.payload, {str(code): TASK_ROOT})) for outcome in found]


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_as_on_the_process_plane(behaviour: str, here: Invoker, there: Invoker, code: Path) -> None:
    events = BEHAVIOURS[behaviour]
    assert seen(there, behaviour, events, code) == seen(here, behaviour, events, code)


def test_timeouts_as_on_the_process_plane(here: Invoker, there: Invoker, code: Path) -> None:
    assert seen(there, "timeout", TIMEOUTS, code) == seen(here, "timeout", TIMEOUTS, code)


@pytest.fixture(scope="module")
def initialised(code: Path, config: EksInvoker.Config) -> dict[str, Seen]:
    """The first outcome of each way to begin, of pods that are made a few at a time."""

    def first(behaviour: str) -> Seen:
        with EksInvoker(config, function(code, INITS[behaviour])) as plane:
            return seen(plane, behaviour, [{}], code)

    with ThreadPoolExecutor(4) as pool:
        return dict(zip(INITS, pool.map(first, INITS), strict=True))


@pytest.mark.parametrize("behaviour", INITS)
def test_initialising_as_on_the_process_plane(behaviour: str, code: Path, initialised: dict[str, Seen]) -> None:
    config = ProcessInvoker.Config(workers=1, transport="http")
    with ProcessInvoker(config, function(code, INITS[behaviour])) as plane:
        expected = seen(plane, behaviour, [{}], code)
    assert initialised[behaviour] == expected

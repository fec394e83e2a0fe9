"""The behaviours of the parity table in a container of the Python image: as on the process plane, byte for byte."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_parity import Sides, sides
from parity_sides import BEHAVIOURS, INITS, TIMEOUTS, pythons_code

RUNTIME = "python3.11"
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the images have Python 3.11: so must this machine"
)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pythons_code(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def started(code: Path, python_image: str) -> Iterator[Sides]:
    with sides(python_image, code, "handlers.handler", RUNTIME) as started:
        yield started


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_as_on_the_process_plane(behaviour: str, started: Sides) -> None:
    started.compare(behaviour, BEHAVIOURS[behaviour])


def test_timeouts_as_on_the_process_plane(started: Sides) -> None:
    started.compare("timeout", TIMEOUTS)


@pytest.mark.parametrize("behaviour", INITS)
def test_initialising_as_on_the_process_plane(behaviour: str, code: Path, python_image: str) -> None:
    with sides(python_image, code, INITS[behaviour], RUNTIME) as started:
        started.compare(behaviour, [{}])

"""The behaviours of the parity table in a container for Graviton, through QEMU: as on the process plane of this machine."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_parity import Sides, sides
from parity_sides import BEHAVIOURS, INITS, pythons_code

RUNTIME = "python3.11"
pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the images have Python 3.11: so must this machine"
)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pythons_code(tmp_path_factory.mktemp("parity"))


@pytest.fixture(scope="module")
def started(code: Path, arm64_image: str) -> Iterator[Sides]:
    with sides(arm64_image, code, "handlers.handler", RUNTIME, architecture="arm64") as started:
        yield started


# `remaining` is asked for within 0.9 s, which QEMU takes on a busy machine; the contract asks for the context too.
@pytest.mark.parametrize("behaviour", [name for name in BEHAVIOURS if name != "remaining"])
def test_as_on_the_process_plane(behaviour: str, started: Sides) -> None:
    started.compare(behaviour, BEHAVIOURS[behaviour])


@pytest.mark.parametrize("behaviour", INITS)
def test_initialising_as_on_the_process_plane(behaviour: str, code: Path, arm64_image: str) -> None:
    with sides(arm64_image, code, INITS[behaviour], RUNTIME, architecture="arm64") as started:
        started.compare(behaviour, [{}])

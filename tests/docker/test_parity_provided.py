"""The behaviours of the parity table that a plain `bootstrap` has, in a container of the OS-only image: as on the process plane."""

from collections.abc import Iterator

import pytest
from docker_parity import LANGUAGES, Sides, known, sides
from parity_sides import TIMEOUTS

BEHAVIOURS = known("provided/bootstrap", r"^    (\w+)\)")
CODE = LANGUAGES / "provided"
RUNTIME = "provided.al2023"
INITS = {
    "function_that_is_missing": "handlers.no_such_function",
    "module_that_exits": "exits.handler",
    "module_that_is_killed": "is_killed.handler",
}


@pytest.fixture(scope="module")
def started(provided_image: str) -> Iterator[Sides]:
    with sides(provided_image, CODE, "handlers.handler", RUNTIME) as started:
        yield started


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_as_on_the_process_plane(behaviour: str, started: Sides) -> None:
    started.compare(behaviour, BEHAVIOURS[behaviour])


def test_timeouts_as_on_the_process_plane(started: Sides) -> None:
    started.compare("timeout", TIMEOUTS)


@pytest.mark.parametrize("behaviour", INITS)
def test_initialising_as_on_the_process_plane(behaviour: str, provided_image: str) -> None:
    with sides(provided_image, CODE, INITS[behaviour], RUNTIME) as started:
        started.compare(behaviour, [{}])


def test_most_of_the_table_is_asked() -> None:
    assert len(BEHAVIOURS) > 80

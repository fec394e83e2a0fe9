"""The behaviours of the parity table that Node has, in a container of the Node image: as on the process plane."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker_parity import LANGUAGES, Sides, known, sides
from parity_sides import TIMEOUTS

BEHAVIOURS = known("node/handlers.mjs", r"^  (\w+): ")
INITS = {
    "module_that_is_missing": "no_such_module.handler",
    "function_that_is_missing": "handlers.no_such_function",
    "handler_without_a_dot": "handlers",
    "module_that_raises": "raises.handler",
    "module_that_imports_what_is_missing": "imports_what_is_missing.handler",
    "module_with_wrong_syntax": "wrong_syntax.handler",
    "module_that_exits": "exits.handler",
    "module_in_a_package": "package/deep.handler",
}


@pytest.fixture(scope="module")
def code(node_modules: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outside, AWS's client lies beside the handler; in the image it has a place of its own."""
    code = tmp_path_factory.mktemp("node") / "code"
    shutil.copytree(LANGUAGES / "node", code)
    (code / "node_modules").symlink_to(node_modules)
    return code


def node(code: Path, image: str, handler: str) -> contextlib.AbstractContextManager[Sides]:
    client = (code / "node_modules").resolve() / "aws-lambda-ric"
    return sides(image, code, handler, "nodejs20.x", paths={str(client): "/var/runtime/aws-lambda-ric"})


@pytest.fixture(scope="module")
def started(code: Path, node_image: str) -> Iterator[Sides]:
    with node(code, node_image, "handlers.handler") as started:
        yield started


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_as_on_the_process_plane(behaviour: str, started: Sides) -> None:
    started.compare(behaviour, BEHAVIOURS[behaviour])


def test_timeouts_as_on_the_process_plane(started: Sides) -> None:
    started.compare("timeout", TIMEOUTS)


@pytest.mark.parametrize("behaviour", INITS)
def test_initialising_as_on_the_process_plane(behaviour: str, code: Path, node_image: str) -> None:
    with node(code, node_image, INITS[behaviour]) as started:
        started.compare(behaviour, [{}])


def test_most_of_the_table_is_asked() -> None:
    assert len(BEHAVIOURS) > 90

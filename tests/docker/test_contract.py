"""The plane, through the conformance kit: each transport, each kind of image."""

from pathlib import Path
from typing import Any, ClassVar

import docker
import pytest
from docker_parts import Relay, is_rootless
from htcgrid_contracts import InvokerContract, contract_function
from htcgrid_contracts.common import not_asked
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.spi import Function, Invoker, Plugin

AWAY = {
    "test_a_plane_that_went_away_is_unavailable",
    "test_a_plane_that_went_away_names_what_it_had_begun",
    "test_a_plane_that_came_back_serves_again",
}


class DockerContract(InvokerContract):
    """What these have in common: two containers, and a folder that handlers see too."""

    wait_factor = 2.0
    """To end a container the engine starts programs, on processors that the tests keep busy."""

    given: ClassVar[dict[str, Any]] = {}

    # AWS's images look below /opt by themselves; those of these tests are smaller. test_layers.py asks this.
    test_a_layer_is_on_the_path_of_the_handler_or_refused = None  # type: ignore[assignment]

    @pytest.fixture
    def options(self, python_image: str) -> dict[str, Any]:
        return {"base_image": python_image}

    @pytest.fixture
    def invoker(
        self, options: dict[str, Any], function: Function, shared: Path, relay: Relay, request: pytest.FixtureRequest
    ) -> LocalDockerInvoker:
        self.relay = relay
        host = relay.open() if request.node.originalname in AWAY else ""
        config = Options(**options, **self.given, workers=2, volumes=(f"{shared}:/mnt/shared",), host=host)
        return LocalDockerInvoker(config, function)

    @pytest.fixture
    def tmp_path(self, shared: Path, request: pytest.FixtureRequest) -> Path:
        """Within the folder that handlers see, and open to the user that they run as."""
        folder = shared / f"{type(self).__name__}-{abs(hash(request.node.name))}"
        folder.mkdir()
        folder.chmod(0o777)
        return folder

    def marks(self, folder: Path) -> str:
        return f"/mnt/shared/{folder.name}"

    def take_away(self, plugin: Plugin) -> None:
        self.relay.close()

    def bring_back(self, plugin: Plugin) -> None:
        self.relay.open()

    @pytest.fixture
    def missing(self, function: Function, engine: object) -> Plugin:
        return LocalDockerInvoker(Options(image="local/no-such-image:1", pull="never"), function)


class OfTheOpenPlane(DockerContract):
    """Without the rules that open planes of their own, which are asked of Python: each takes seconds to start containers."""

    @pytest.fixture(autouse=True)
    def _of_the_open_plane(self, request: pytest.FixtureRequest) -> None:
        if "plane" not in request.fixturenames:
            not_asked("it opens planes of its own")


class TestPython(DockerContract):
    pass


class TestPythonBehindTheEmulator(DockerContract):
    given: ClassVar = {"transport": "rie"}
    behind_emulator = True

    @pytest.fixture
    def options(self, python_image: str, engine: docker.APIClient) -> dict[str, Any]:
        """A rootless engine has no network that leads to this machine alone: its ports are published."""
        return {"base_image": python_image, **({"network": "bridge"} if is_rootless(engine) else {})}


class TestNode(DockerContract):
    known_gaps: ClassVar = {
        "test_a_handler_that_raises_is_a_handler_error": "AWS's client for Node names the stack `trace`",
        "test_an_answer_that_json_cannot_hold_is_a_handler_error": "AWS's client for Node has no MarshalError",
        "test_an_event_comes_back_as_it_was_sent[2**53 + 1]": "JavaScript has no such number",
        "test_an_answer_keeps_its_numbers_and_the_order_of_its_keys": "JavaScript has one kind of number",
        "test_an_environment_that_ends_while_it_is_idle_fails_no_task": "AWS's client for Node lets timers run with the next task",
    }

    @pytest.fixture
    def options(self, node_image: str) -> dict[str, Any]:
        return {"base_image": node_image}

    @pytest.fixture
    def function(self) -> Function:
        return in_language("node", contract_function())

    def serving(self, invoker: Invoker, function: Function) -> Invoker:
        return super().serving(invoker, in_language("node", function))


class TestProvided(OfTheOpenPlane):
    known_gaps: ClassVar = {
        "test_the_memory_limit_is_neither_lower_nor_higher_than_given": "bash holds what its handler eats more than once"
    }

    @pytest.fixture
    def options(self, provided_image: str) -> dict[str, Any]:
        return {"base_image": provided_image}

    @pytest.fixture
    def function(self) -> Function:
        return in_language("provided", contract_function())

    def serving(self, invoker: Invoker, function: Function) -> Invoker:
        return super().serving(invoker, in_language("provided", function))


class TestArm64(OfTheOpenPlane):
    """Emulated: everything takes some ten times as long, the start of a container above all."""

    wait_factor = 5.0
    short_timeout = 3.0

    @pytest.fixture
    def options(self, arm64_image: str) -> dict[str, Any]:
        return {"base_image": arm64_image}

    @pytest.fixture
    def function(self) -> Function:
        return contract_function(timeout=60).model_copy(update={"architecture": "arm64"})


def in_language(name: str, function: Function) -> Function:
    runtime = {"node": "nodejs20.x", "provided": "provided.al2023"}[name]
    return function.model_copy(update={"code": Path(__file__).parent / "handlers" / name, "runtime": runtime})

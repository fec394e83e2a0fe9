"""The plane, through the conformance kit: each transport, each kind of image."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from docker_parts import Relay
from htcgrid_contracts import InvokerContract
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.spi import Function, Plugin

AWAY = "test_a_plane_that_went_away_is_unavailable"


class DockerContract(InvokerContract):
    """What these have in common: two containers, and a folder that handlers see too."""

    patience = 2.0
    """To end a container the engine starts programs, on processors that the tests keep busy."""

    given: ClassVar[dict[str, Any]] = {}

    @pytest.fixture
    def options(self, python_image: str) -> dict[str, Any]:
        return {"base_image": python_image}

    @pytest.fixture
    def invoker(
        self, options: dict[str, Any], function: Function, shared: Path, relay: Relay, request: pytest.FixtureRequest
    ) -> LocalDockerInvoker:
        self.relay = relay
        host = relay.open() if request.node.originalname == AWAY else ""
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

    @pytest.fixture
    def missing(self, function: Function, engine: object) -> Plugin:
        return LocalDockerInvoker(Options(image="local/no-such-image:1", pull="never"), function)


class TestPython(DockerContract):
    pass


class TestPythonBehindTheEmulator(DockerContract):
    given: ClassVar = {"transport": "rie"}

"""A real Docker Engine and the images of `.ci/images`; without them these tests are skipped, with the reason."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException, ImageNotFound
from docker_parts import OwnEngine, Relay, is_rootless

PYTHON = "local/lambda-python:3.11"
NODE = "local/lambda-node:20"
PROVIDED = "local/lambda-provided:1"
SDK_LEAVES_SOCKETS = r"ignore:unclosed <socket.socket fd=\d+, family=1:ResourceWarning"
"""Docker's SDK does not close the socket with which it could not connect."""
ARM64 = "local/lambda-python-arm64:3.11"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent.name == "docker":
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.filterwarnings(SDK_LEAVES_SOCKETS))


@pytest.fixture(autouse=True)
def _sdk_leaves_sockets() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.APIClient]:
    """The engine, reached by the SDK alone: what tests look at bypasses the plugin."""
    try:
        client = docker.APIClient(version="auto")
    except DockerException as error:
        pytest.skip(f"no Docker Engine: {error}")
    yield client
    client.close()


def image(engine: docker.APIClient, name: str) -> str:
    try:
        engine.inspect_image(name)
    except ImageNotFound:
        pytest.skip(f"no image {name}; .ci/images builds it")
    return name


@pytest.fixture(scope="session")
def python_image(engine: docker.APIClient) -> str:
    return image(engine, PYTHON)


@pytest.fixture(scope="session")
def node_image(engine: docker.APIClient) -> str:
    return image(engine, NODE)


@pytest.fixture(scope="session")
def provided_image(engine: docker.APIClient) -> str:
    return image(engine, PROVIDED)


@pytest.fixture(scope="session")
def arm64_image(engine: docker.APIClient) -> str:
    return image(engine, ARM64)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the user of a container may write to."""
    folder = tmp_path_factory.mktemp("shared")
    folder.chmod(0o777)
    return folder


@pytest.fixture
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    relay = Relay(tmp_path_factory.mktemp("relay") / "docker.sock")
    yield relay
    relay.close()


@pytest.fixture(scope="session")
def docker_itself(engine: docker.APIClient) -> None:
    """For a rule about what only Docker does."""
    if any(part["Name"] == "Podman Engine" for part in engine.version()["Components"]):
        pytest.skip("not asked: this rule is about Docker, and the engine is Podman")


@pytest.fixture(scope="session")
def limits_kept(engine: docker.APIClient) -> None:
    """For a rule about the memory and the processes of containers."""
    if is_rootless(engine) and engine.info()["CgroupVersion"] == "1":
        pytest.skip("not asked: a rootless engine keeps no limits with control groups version 1")


@pytest.fixture(scope="session")
def second_engine(
    docker_itself: None, python_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OwnEngine]:
    """Running at the start of each test that uses it, with the Python image."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a second engine needs root and dockerd")
    second = OwnEngine(tmp_path_factory.mktemp("engine"))
    second.start()
    second.load(python_image)
    yield second
    second.remove()

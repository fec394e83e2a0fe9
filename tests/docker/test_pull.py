"""Pulling from a real registry: policies, progress, credentials of Docker's own config."""

import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound
from docker_parts import load_image, until
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options
from ports import free_port

from htcgrid.spi import Function, Rejected

USER = {"username": "ali", "password": "sesame"}
HTPASSWD = "ali:$2b$05$znr2PZL5qWdvx7.K4/J3BOciMZ.dOZfRS9Jb8ZfgLRaq2vMGU.nha\n"


@pytest.fixture(scope="module")
def registry(docker_itself: None, engine: docker.APIClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a registry that wants a login."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no docker-registry; apt-get install docker-registry")
    folder = tmp_path_factory.mktemp("registry")
    port = free_port()
    (folder / "htpasswd").write_text(HTPASSWD)
    config = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    until(lambda: listens(port), 20, "the registry is up")
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def image(engine: docker.APIClient, registry: str) -> Iterator[str]:
    """An image that the registry has and the engine has not."""
    name = f"{registry}/probe:1"
    publish(engine, name, "first")
    yield name
    remove(engine, name)


@pytest.fixture
def logged_in(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = base64.b64encode(f"{USER['username']}:{USER['password']}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": token}}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def publish(engine: docker.APIClient, name: str, content: str) -> None:
    load_image(engine, name, "amd64", {"bootstrap": content.encode()}, {"Labels": {"content": content}})
    for event in engine.push(name, auth_config=USER, stream=True, decode=True):
        assert "error" not in event, event
    remove(engine, name)


def remove(engine: docker.APIClient, name: str) -> None:
    try:
        engine.remove_image(name, force=True)
    except ImageNotFound:
        return


def opened(name: str, pull: str = "missing") -> None:
    with LocalDockerInvoker(Options.model_validate({"image": name, "pull": pull}), Function()):
        pass


def content(engine: docker.APIClient, name: str) -> str:
    return str(engine.inspect_image(name)["Config"]["Labels"]["content"])


@pytest.mark.usefixtures("logged_in")
def test_an_image_that_is_missing_is_pulled_with_progress(
    engine: docker.APIClient, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened(image)
    assert content(engine, image) == "first"
    said = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert said[0] == f"pulling the image {image}"
    assert said[-1] == f"pulled the image {image}"


@pytest.mark.usefixtures("logged_in")
def test_a_newer_image_is_pulled_where_that_is_asked_for(engine: docker.APIClient, image: str) -> None:
    opened(image)
    publish(engine, image, "second")
    opened(image)
    assert content(engine, image) == "second"
    load_image(engine, image, "amd64", {"bootstrap": b"stale"}, {"Labels": {"content": "stale"}})
    opened(image)
    assert content(engine, image) == "stale"
    opened(image, "always")
    assert content(engine, image) == "second"


@pytest.mark.usefixtures("logged_in")
def test_an_image_that_the_registry_has_not(registry: str) -> None:
    with pytest.raises(Rejected, match="neither on this engine nor in its registry"):
        opened(f"{registry}/no-such-image:1")


def test_without_a_login_the_error_says_so(image: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(Rejected, match="docker login"):
        opened(image)

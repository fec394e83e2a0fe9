"""A namespace of its own on the cluster that KUBECONFIG names, for each module of these tests."""

import json
import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_images as images
import pytest
from kubernetes_commands import Kubectl
from kubernetes_grid import until
from kubernetes_redis import redis_server


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keys-live", type=float, default=20, help="seconds that keys live in test_short_lived_keys.py")
    parser.addoption("--minutes", type=float, default=0.5, help="how long it runs tasks")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.kubernetes)
            item.add_marker(pytest.mark.timeout(600))
    # The file that takes minutes comes first, so that it is not left alone at the end of a run of several processes.
    items.sort(key=lambda item: item.path.name != "test_sidecar_contract.py")


@pytest.fixture(scope="session")
def cluster() -> None:
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("needs a Kubernetes cluster: set KUBECONFIG, or run .ci/cluster kubernetes and export what it says")
    found = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip(f"the cluster that KUBECONFIG names does not answer: {found.stderr.strip()}")


@pytest.fixture(scope="session")
def agent_image(cluster: None) -> str:
    return images.agent_image()


@pytest.fixture(scope="session")
def lambda_image(cluster: None) -> str:
    return images.lambda_image()


@pytest.fixture(scope="module")
def namespace(cluster: None) -> Iterator[str]:
    name = f"htcgrid-test-{uuid.uuid4().hex[:8]}"
    subprocess.run(["kubectl", "create", "namespace", name], check=True, capture_output=True)
    # The cluster makes its service account in its own time, and refuses pods until then.
    pod = ["kubectl", "-n", name, "run", "probe", "--image=none", "--restart=Never", "--dry-run=server"]
    until(lambda: subprocess.run(pod, check=False, capture_output=True).returncode == 0, 60, "a namespace for pods")
    yield name
    subprocess.run(["kubectl", "delete", "namespace", name, "--wait=false"], check=True, capture_output=True)


@pytest.fixture(scope="module")
def kubectl(namespace: str) -> Kubectl:
    """Call it with kubectl's arguments, and `stdin` if any; returns what it prints."""

    def kubectl(*arguments: str, stdin: Any = None, check: bool = True) -> str:
        text = stdin if stdin is None or isinstance(stdin, str) else json.dumps(stdin)
        done = subprocess.run(
            ["kubectl", "-n", namespace, *arguments], input=text, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    return kubectl


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Iterator[str]:
    """A redis-server that pods reach."""
    with redis_server(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture(scope="session")
def redis_address(redis_url: str) -> tuple[str, int]:
    """Host and port of that server."""
    server = urlsplit(redis_url)
    assert server.hostname
    assert server.port
    return server.hostname, server.port


@pytest.fixture(scope="session")
def node_address(redis_address: tuple[str, int]) -> str:
    """The node's, which processes, containers and pods reach alike."""
    return redis_address[0]

"""A namespace that gives every container limits of its own, as many clusters' namespaces do."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_commands import Kubectl, htcgrid, node_takes_pods, soon, went_well
from kubernetes_grid import write_grid

LIMITS = [{"type": "Container", "default": {"cpu": "2", "ephemeral-storage": "1Gi"}, "defaultRequest": {"cpu": "10m"}}]


@pytest.fixture
def config(
    tmp_path: Path, redis_url: str, namespace: str, agent_image: str, lambda_image: str, kubectl: Kubectl
) -> Iterator[Path]:
    kind = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "defaults"}, "spec": {"limits": LIMITS}}
    kubectl("apply", "-f", "-", stdin=kind)
    facts = {"url": redis_url, "namespace": namespace, "agent_image": agent_image, "lambda_image": lambda_image}
    file = write_grid(tmp_path, 'name = "limited"\npods = 1\n', stream="limited", **facts)
    yield file
    htcgrid("undeploy", "-c", str(file))


def test_a_grid_whose_pods_were_given_limits_is_up_to_date(config: Path, kubectl: Kubectl) -> None:
    with node_takes_pods():
        went_well("deploy", "-c", str(config))
        pods = kubectl("get", "pods", "-o", "name")
        assert kubectl("get", "pods", "-o", "jsonpath={.items[0].spec.containers[*].resources.limits.cpu}")
        began = time.monotonic()
        went_well("deploy", "-c", str(config))
        took = time.monotonic() - began
    assert kubectl("get", "pods", "-o", "name") == pods
    assert took < soon(), f"the second deploy, which changes nothing, took {took:.1f} s"

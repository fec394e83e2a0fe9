"""Kubernetes' Pod Security Standard `restricted`, as its page lists it: a namespace that enforces it takes our pods."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from eks_fakes import Asked
from htcgrid.spi import Function

from htcgrid_eks.options import Options
from htcgrid_eks.run_pods import RunPods

Manifests = Callable[..., dict[str, Any]]
VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}


def violations(spec: dict[str, Any]) -> Iterator[str]:
    """What the admission would refuse a pod for."""
    pod = spec.get("securityContext", {})
    for shared in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(shared):
            yield shared
    for volume in spec.get("volumes", ()):
        if not volume.keys() - {"name"} <= VOLUMES:
            yield f"volume {volume['name']}"
    if pod.get("sysctls"):
        yield "sysctls"
    for container in spec["containers"] + spec.get("initContainers", []):
        own = container.get("securityContext", {})
        both = pod | own
        held = {
            "runAsNonRoot": both.get("runAsNonRoot") is True,
            "runAsUser": both.get("runAsUser") != 0,
            "seccompProfile": both.get("seccompProfile", {}).get("type") in {"RuntimeDefault", "Localhost"},
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "privileged": not own.get("privileged"),
            "procMount": own.get("procMount", "Default") == "Default",
            "capabilities.drop": "ALL" in own.get("capabilities", {}).get("drop", ()),
            "capabilities.add": set(own.get("capabilities", {}).get("add", ())) <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", ())),
        }
        yield from (f"{rule} of {container['name']}" for rule, holds in held.items() if not holds)


@pytest.mark.parametrize("transport", ["http", "rie"])
@pytest.mark.parametrize(
    "options",
    [
        {"code": "folder"},
        {"code": "image"},
        {"code": "s3://bucket/code.zip", "role_arn": "arn:aws:iam::1:role/r"},
        {"code": "s3://bucket/code.zip", "layers": ("s3://bucket/layer.zip",), "containers": 2},
    ],
)
def test_the_pods_of_a_grid_pass(manifests: Manifests, options: dict[str, Any], transport: str) -> None:
    spec = manifests(transport=transport, **options)["Deployment"]["spec"]["template"]["spec"]
    assert list(violations(spec)) == []


@pytest.mark.parametrize("transport", ["http", "rie"])
def test_the_pods_of_a_run_pass(function: Function, transport: str) -> None:
    options = Options.model_validate({"image": "pricing:1", "namespace": "grid", "transport": transport})
    cluster = Asked(options)
    run_pods = RunPods(cluster, options, function)
    run_pods.begin()
    run_pods.add()
    assert list(violations(cluster.made[-1]["spec"])) == []


def test_what_a_user_adds_is_seen(manifests: Manifests) -> None:
    pod = {"volumes": [{"name": "logs", "hostPath": {"path": "/var/log"}}]}
    spec = manifests(code="image", pod=pod)["Deployment"]["spec"]["template"]["spec"]
    assert list(violations(spec)) == ["volume logs"]

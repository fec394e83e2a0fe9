"""The whole conformance kit on the `eks_sidecar` plane, where it belongs: inside a pod."""

import re
import time
from pathlib import Path

import pytest
from htcgrid_contracts import contract_function
from htcgrid_eks.options import Options
from htcgrid_eks.pod import environment_secret, mount, pod_spec
from kubernetes_commands import Kubectl

IN_POD = Path(__file__).parent / "in_pod"
TESTS = "/tests"


TRANSPORTS = ("http", "rie")


@pytest.fixture(scope="module")
def pods(kubectl: Kubectl, agent_image: str, lambda_image: str) -> None:
    """Both run at once: much of the kit is waiting."""
    for transport in TRANSPORTS:
        start(kubectl, transport, agent_image, lambda_image)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_conformance_kit_passes_inside_a_pod(transport: str, kubectl: Kubectl, pods: None) -> None:
    name = f"contract-{transport}"
    ended = "{.status.containerStatuses[?(@.name=='agent')].state.terminated.exitCode}"
    deadline = time.monotonic() + 500
    while not (status := kubectl("get", "pod", name, "-o", f"jsonpath={ended}")):
        assert time.monotonic() < deadline, kubectl("logs", name, "-c", "agent")
        time.sleep(1)
    log = kubectl("logs", name, "-c", "agent")
    kubectl("delete", "pod", name, "--wait=false")
    assert status == "0", log
    passed = re.search(r"(\d+) passed", log)
    assert passed, log
    assert int(passed[1]) > 50, log


def start(kubectl: Kubectl, transport: str, agent_image: str, lambda_image: str) -> None:
    name = f"contract-{transport}"
    kubectl("create", "configmap", name, f"--from-file={IN_POD}")
    pytest_ = ["python3", "-m", "pytest", "-p", "no:cacheprovider", "-q", "-ra", "--import-mode=importlib"]
    agent = {
        "command": [*pytest_, f"--transport={transport}", f"{TESTS}/sidecar_contract.py"],
        "volumeMounts": [mount("tests", TESTS, read_only=True)],
    }
    options = Options(
        image=lambda_image, agent_image=agent_image, containers=4, transport=transport, agent_memory=768, cpu="50m"
    )
    kubectl("apply", "-f", "-", stdin=environment_secret(contract_function(), {"name": name}))
    spec = pod_spec(options, contract_function(), agent, name)
    spec["volumes"].append({"name": "tests", "configMap": {"name": name}})
    for container in spec["containers"][1:]:
        # The handler is the last word of what the image runs.
        container["command"][-2:] = ["/bin/sh", "-c", 'exec /lambda-entrypoint.sh "$$(cat /run/htcgrid/handler)"']
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec | {"restartPolicy": "Never"}}
    kubectl("apply", "-f", "-", stdin=pod)

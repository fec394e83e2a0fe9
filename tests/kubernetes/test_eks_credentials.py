"""Where the credentials of a handler in a pod appear, and where they do not."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path

import kubernetes_node as node
from htcgrid_contracts import contract_function
from htcgrid_contracts.invoker_identity import IssuedCredentials
from htcgrid_eks.invoker import EksInvoker
from kubernetes_commands import Kubectl
from process_secrets import showing

from htcgrid.spi import Lease, Outcome, Task

NAME = f"eks{uuid.uuid4().hex}"  # the conformance kit may run beside this test
SECRET = f"secret/of+{NAME}-1="


def test_nothing_but_the_handlers_own_container_has_them(
    namespace: str, agent_image: str, lambda_image: str, kubectl: Kubectl
) -> None:
    config = EksInvoker.Config(image=lambda_image, agent_image=agent_image, namespace=namespace, start_seconds=60)
    plane = EksInvoker(config, contract_function())
    plane.credentials = IssuedCredentials(3600, NAME)
    with plane:
        [outcome] = plane.invoke([Lease(Task("t", b'{"do": "identify"}'))], 20.0)
        assert isinstance(outcome, Outcome)
        assert json.loads(outcome.payload)["keys"][1] == SECRET
        shown = kubectl("get", "pods,configmaps,secrets,events,serviceaccounts,roles", "-o", "yaml")
        pod = kubectl("get", "pods", "-o", "jsonpath={.items[0].metadata.name}")
        shown += "".join(kubectl("logs", pod, "-c", name) for name in ("agent", "lambda-0"))
        assert SECRET not in shown
        assert base64.b64encode(SECRET.encode()).decode() not in shown
        assert showing(SECRET.encode(), "cmdline") == set()
        assert [pid for pid in showing(SECRET.encode(), "environ") if "lambda-0" not in _container_of(pid)] == []


def _container_of(pid: int) -> str:
    """The name that the cluster's container of a process has, where this machine is its node."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        container = line.rpartition("/")[2].removeprefix("cri-containerd-").removesuffix(".scope")
        if len(container) == 64:
            return node.container_name(container)
    return ""

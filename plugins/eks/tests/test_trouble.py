from typing import Any, cast

import pytest

from htcgrid_eks import trouble
from htcgrid_eks.cluster import Cluster, Refusal
from htcgrid_eks.options import Options


class Logs:
    """A cluster of which nothing but the log of a container is asked."""

    def request(self, *_: object, **__: object) -> str:
        return "htcgrid: Redis cannot be reached"

    def namespaced(self, *_: object) -> str:
        return ""


def fatal(status: int, restarts: int, policy: str = "Always") -> str | None:
    ended = {"terminated": {"exitCode": status, "reason": "Error"}}
    pod: dict[str, Any] = {
        "metadata": {"name": "grid-1"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "agent"}]},
        "status": {"containerStatuses": [{"name": "agent", "restartCount": restarts, "state": ended}]},
    }
    return trouble.fatal(cast("Cluster", Logs()), pod)


def test_an_agent_that_finds_its_queue_away_is_given_a_second_start() -> None:
    assert fatal(3, restarts=0) is None


@pytest.mark.parametrize(
    ("status", "restarts", "policy"), [(3, 1, "Always"), (3, 0, "Never"), (2, 0, "Always"), (1, 0, "Always")]
)
def test_a_pod_is_given_up_with_the_end_of_its_log_where_no_start_will_help(
    status: int, restarts: int, policy: str
) -> None:
    said = fatal(status, restarts, policy)
    assert said
    assert f"exit status {status}" in said
    assert "Its log ends:\nhtcgrid: Redis cannot be reached" in said


@pytest.mark.parametrize(
    "said",
    [
        "unable to retrieve container logs for containerd://0",
        'failed to try resolving symlinks in path "/var/log/pods/x.log": no such file or directory',
        'failed to open log file "/var/log/pods/x.log": no such file or directory',
    ],
)
def test_a_kubelet_that_has_no_log_is_not_quoted_as_the_log(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "_LOG_SECONDS", 0)
    monkeypatch.setattr(Logs, "request", lambda *_, **__: said)
    shown = fatal(2, restarts=0)
    assert shown
    assert "Its log ends" not in shown


def sidecar(restarts: int, state: dict[str, Any]) -> str | None:
    pod: dict[str, Any] = {
        "metadata": {"name": "grid-1"},
        "spec": {
            "containers": [{"name": "agent"}],
            "initContainers": [{"name": "mesh", "restartPolicy": "Always"}],
        },
        "status": {"initContainerStatuses": [{"name": "mesh", "restartCount": restarts, "state": state}]},
    }
    return trouble.fatal(cast("Cluster", Logs()), pod)


@pytest.mark.parametrize(
    "state", [{"terminated": {"exitCode": 1}}, {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}]
)
def test_a_sidecar_that_the_cluster_added_may_restart_a_few_times(state: dict[str, Any]) -> None:
    assert sidecar(1, state) is None
    assert sidecar(5, state)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('pods is forbidden: User "jane" cannot create resource "pods" in API group "" in the namespace "x"', True),
        ('pods "a" is forbidden: maximum memory usage per Container is 1Gi, but limit is 2Gi', False),
        ('pods "a" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation', False),
        ('admission webhook "policy.example.com" denied the request: no', False),
    ],
)
def test_a_rule_of_the_cluster_is_not_reported_as_a_missing_right(text: str, right: bool) -> None:
    cluster = Cluster(Options(image="pricing:1"))
    said = str(cluster.explain(Refusal(403, "Forbidden", text), "create pods"))
    assert ("prints the Role" in said) is right
    assert ("a rule of the cluster" in said) is not right
    assert text in said

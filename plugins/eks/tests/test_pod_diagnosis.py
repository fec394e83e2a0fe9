from typing import Any, cast

import pytest

from htcgrid_eks import pod_diagnosis
from htcgrid_eks.cluster import Cluster

NO_LOGS = [
    "unable to retrieve container logs for docker://0123",
    "unable to retrieve container logs for containerd://0123",
    'failed to try resolving symlinks in path "/var/log/pods/g_p_1/agent/0.log": lstat /var/log: no such file or directory',
    'failed to open log file "/var/log/pods/g_p_1/agent/0.log": open /var/log: no such file or directory',
]


class Logs:
    """A cluster of which nothing but the log of a container is asked."""

    def __init__(self, text: str = "htcgrid: Redis cannot be reached") -> None:
        self.text = text

    def request(self, *_: object, **__: object) -> str:
        return self.text

    def namespaced(self, *_: object) -> str:
        return ""


def fatal(
    status: int, restarts: int, policy: str = "Always", log: str = "htcgrid: Redis cannot be reached"
) -> str | None:
    ended = {"terminated": {"exitCode": status, "reason": "Error"}}
    pod: dict[str, Any] = {
        "metadata": {"name": "grid-1"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "agent"}]},
        "status": {"containerStatuses": [{"name": "agent", "restartCount": restarts, "state": ended}]},
    }
    return pod_diagnosis.fatal(cast("Cluster", Logs(log)), pod)


def injected(
    state: dict[str, Any], restarts: int, *, policy: str = "Always", own: str | None = "Always", init: bool = True
) -> str | None:
    """What is said of a pod into which a webhook has put a container; `own` is that container's restart policy."""
    sidecar = {"name": "mesh"} | ({"restartPolicy": own} if own else {})
    status = {"name": "mesh", "restartCount": restarts, "state": state, "image": "mesh:1"}
    pod: dict[str, Any] = {
        "metadata": {"name": "grid-1"},
        "spec": {
            "restartPolicy": policy,
            "initContainers": [sidecar] if init else [],
            "containers": [{"name": "agent"}, *([] if init else [sidecar])],
        },
        "status": {"initContainerStatuses" if init else "containerStatuses": [status]},
    }
    return pod_diagnosis.fatal(cast("Cluster", Logs()), pod)


ENDED = {"terminated": {"exitCode": 1, "reason": "Error"}}
BACKING_OFF = {"waiting": {"reason": "CrashLoopBackOff"}}


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


OF_MEMORY = {"exitCode": 137, "reason": "OOMKilled"}
LONG = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:05:00Z"}
SHORT = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:02Z"}


def environment(ended: dict[str, Any], restarts: int, policy: str = "Always", *, waits: str = "") -> str | None:
    """What is said of a pod whose agent runs, and one of whose environments has just ended, or waits to be started again."""
    state: dict[str, Any] = {"state": {"terminated": ended}}
    if waits:
        state = {"state": {"waiting": {"reason": waits}}, "lastState": {"terminated": ended}}
    pod: dict[str, Any] = {
        "metadata": {"name": "grid-1"},
        "spec": {"restartPolicy": policy, "containers": [{"name": "agent"}, {"name": "lambda-0"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {"name": "agent", "restartCount": 0, "state": {"running": {}}},
                {"name": "lambda-0", "restartCount": restarts, "image": "pricing:1", **state},
            ],
        },
    }
    return pod_diagnosis.fatal(cast("Cluster", Logs()), pod)


@pytest.mark.parametrize("policy", ["Always", "OnFailure"])
@pytest.mark.parametrize("waits", ["", "CrashLoopBackOff"])
@pytest.mark.parametrize(
    ("ended", "restarts"), [(OF_MEMORY | SHORT, 0), (OF_MEMORY, 2), (OF_MEMORY | LONG, 9), ({"exitCode": 1} | LONG, 9)]
)
def test_an_environment_that_a_task_has_ended_does_not_end_the_pod(
    ended: dict[str, Any], restarts: int, waits: str, policy: str
) -> None:
    assert environment(ended, restarts, policy, waits=waits) is None


@pytest.mark.parametrize(
    ("ended", "restarts", "policy", "waits"),
    [
        pytest.param(OF_MEMORY | SHORT, 3, "Always", "CrashLoopBackOff", id="its memory is too small to begin with"),
        pytest.param({"exitCode": 127} | SHORT, 0, "Always", "", id="it has no program"),
        pytest.param(OF_MEMORY | LONG, 0, "Never", "", id="nobody starts it again"),
        pytest.param({"exitCode": 0} | LONG, 0, "OnFailure", "", id="nobody starts again what has ended well"),
        pytest.param(OF_MEMORY | LONG, 1, "Always", "CreateContainerError", id="it waits for something else"),
    ],
)
def test_an_environment_that_cannot_start_ends_the_pod(
    ended: dict[str, Any], restarts: int, policy: str, waits: str
) -> None:
    said = environment(ended, restarts, policy, waits=waits)
    assert said
    assert "The container lambda-0 of pod grid-1" in said
    assert f"exit status {ended['exitCode']}" in said


@pytest.mark.parametrize("text", NO_LOGS)
def test_what_a_kubelet_answers_for_a_missing_log_is_not_shown_as_the_log(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod_diagnosis, "_LOG_SECONDS", 0.0)
    said = fatal(1, restarts=0, log=text)
    assert said
    assert "log ends" not in said


def test_a_log_that_begins_with_a_failure_of_its_own_is_shown() -> None:
    said = fatal(1, restarts=0, log="failed to open the queue")
    assert said
    assert "Its log ends:\nfailed to open the queue" in said


@pytest.mark.parametrize("state", [ENDED, BACKING_OFF])
@pytest.mark.parametrize("policy", ["Always", "Never"])
def test_a_native_sidecar_that_starts_again_does_not_end_the_pod(state: dict[str, Any], policy: str) -> None:
    assert injected(state, restarts=1, policy=policy) is None


@pytest.mark.parametrize("init", [True, False])
def test_an_injected_container_that_the_kubelet_starts_again_does_not_end_the_pod(init: bool) -> None:
    assert injected(ENDED, restarts=1, own=None, init=init) is None


def test_an_injected_container_that_never_comes_up_ends_the_pod() -> None:
    said = injected(BACKING_OFF, restarts=5)
    assert said
    assert "mesh of pod grid-1 does not start: CrashLoopBackOff" in said
    assert injected(ENDED, restarts=0, own=None, policy="Never")


@pytest.mark.parametrize(("name", "is_of_use"), [("mesh", True), ("lambda-0", False), ("agent", False)])
def test_a_pod_is_replaced_where_a_container_of_ours_has_ended_and_not_for_one_beside_them(
    name: str, is_of_use: bool
) -> None:
    names = ["agent", "lambda-0", "mesh"]
    statuses: list[dict[str, Any]] = [
        {"name": each, "state": ENDED if each == name else {"running": {}}} for each in names
    ]
    pod = {"spec": {"containers": [{"name": each} for each in names]}, "status": {"containerStatuses": statuses}}
    assert pod_diagnosis.is_of_use(pod) is is_of_use

"""Why a pod does not become ready, in messages that say what to do."""

import re
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from htcgrid.planes import Termination, exit_status
from htcgrid.spi import HtcgridError

from htcgrid_eks.cluster import ApiError, Cluster

GRID = "htcgrid.io/grid"
_LOG_LINES = 10
_LOG_TRIES = 6
_LOG_SECONDS = 0.5
_NO_LOG = re.compile(
    r"^(unable to retrieve container logs for \w+://|failed to (try resolving symlinks in path|open log file) \").*\n?",
    re.MULTILINE,
)
"""How a kubelet says, with status 200, that a log does not exist: with Docker and with CRI runtimes."""
_RESTARTS_OF_OTHERS = 3
"""How often a container that is not ours, such as an injected sidecar, may start again before we give it up."""
_KILLS_AT_ONCE = 3
"""How often an environment may be killed for its memory, each time soon after its start, before we conclude that its memory is too
small for it to start."""
_CAME_UP_SECONDS = 10.0
"""A container that ran for so long had become ready: AWS Lambda gives an initialisation the same time."""
_UNAVAILABLE = 3
"""The exit status of htcgrid when its source, plane or sink cannot be reached, which may change in a moment."""
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
_FINAL = _IMAGE | {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}


def is_ours(container: str) -> bool:
    """Whether htcgrid has put this container into the pod; webhooks of the cluster may add others."""
    return container in {"agent", "code"} or re.fullmatch(r"lambda-\d+", container) is not None


def is_finished(pod: Any) -> bool:
    return pod["status"].get("phase") in {"Succeeded", "Failed"}


def is_running(pod: Any) -> bool:
    """Whether all containers of the pod run."""
    statuses = pod["status"].get("containerStatuses", ())
    return len(statuses) == len(pod["spec"]["containers"]) and all("running" in each["state"] for each in statuses)


def is_of_use(pod: Any) -> bool:
    """Whether all our containers run; a container that a webhook has added may be starting again."""
    wanted = {each["name"] for each in pod["spec"]["containers"] if is_ours(each["name"])}
    running = {each["name"] for each in pod["status"].get("containerStatuses", ()) if "running" in each["state"]}
    return wanted <= running


def is_ready(pod: Any) -> bool:
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def status_of(pod: Any, container: str) -> Any:
    statuses = pod["status"].get("containerStatuses", ())
    return next((each for each in statuses if each["name"] == container), {})


def last_end(status: Any) -> tuple[str, Termination] | None:
    """How a container last ended, after the id of that container."""
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
    if not ended:
        return None
    killed = ended.get("reason") == "OOMKilled"
    return ended.get("containerID", ""), Termination(exit_status.of_shell(ended["exitCode"]), killed)


def fatal(cluster: Cluster, pod: Any) -> str | None:
    """Why this pod can never become ready; None while it still may."""
    name = pod["metadata"]["name"]
    for status in _statuses(pod):
        waiting, ended = status["state"].get("waiting"), status["state"].get("terminated")
        where = f"The container {status['name']} of pod {name}"
        if waiting and waiting.get("reason") in _IMAGE:
            return (
                f"{where} cannot have its image {status['image']!r}: {waiting.get('message') or waiting['reason']}. "
                "Check its name and tag, that it was pushed, and that the node may pull it (`pull_secrets`)."
            )
        if _comes_up_by_itself(pod, status):
            continue
        if waiting and waiting.get("reason") in _FINAL:
            before = status.get("lastState", {}).get("terminated")
            reason = waiting["reason"] + (f", exit status {before['exitCode']}" if before else "")
            return f"{where} does not start: {reason}, {_message(waiting)}{_last_lines(cluster, name, status)}"
        if ended and (ended["exitCode"] or status["name"] in _main_containers(pod)):
            reason = f"{ended.get('reason', 'ended')}, exit status {ended['exitCode']}"
            if not ended["exitCode"] and GRID in pod["metadata"].get("labels", {}):
                reason += "; a standing grid takes its tasks from a source that does not end, such as a queue"
            return f"{where} has ended: {reason}. {_message(ended)}{_last_lines(cluster, name, status)}"
    if pod["status"].get("phase") == "Failed":
        return f"Pod {name} failed: {pod['status'].get('reason', '')} {pod['status'].get('message', '')}".rstrip()
    return None


def _comes_up_by_itself(pod: Any, status: Any) -> bool:
    """Whether the kubelet starts this container again, and that may help.

    An agent that found its queue or store unavailable gets a second start. An environment that a task has ended is
    started again. A container that is not ours, such as the sidecar of a service mesh, may need a few starts, since it may
    depend on the other containers.
    """
    name = status["name"]
    spec: Any = next((each for each in _containers(pod) if each["name"] == name), {})
    restarts = status.get("restartCount", 0)
    policy = spec.get("restartPolicy") or pod["spec"].get("restartPolicy", "Always")
    if policy == "Never":
        return False
    if not is_ours(name):
        return bool(restarts < _RESTARTS_OF_OTHERS)
    if name.startswith("lambda-"):
        return _is_environment_back_soon(status, policy, restarts)
    ended = status["state"].get("terminated")
    return bool(ended) and ended["exitCode"] == _UNAVAILABLE and not restarts


def _is_environment_back_soon(status: Any, policy: str, restarts: int) -> bool:
    """Whether a task may have ended this environment, for example by its memory; False where it cannot start."""
    state = status["state"]
    ended = state.get("terminated") or status.get("lastState", {}).get("terminated")
    is_between = "terminated" in state or state.get("waiting", {}).get("reason") == "CrashLoopBackOff"
    if not ended or not is_between or (policy == "OnFailure" and not ended["exitCode"]):
        return False
    if ended.get("reason") == "OOMKilled" and restarts < _KILLS_AT_ONCE:
        return True
    return _seconds(ended) >= _CAME_UP_SECONDS


def _seconds(ended: Any) -> float:
    """For how long a container ran; 0 where Kubernetes does not say."""
    began, until = (ended.get(name) for name in ("startedAt", "finishedAt"))
    return (datetime.fromisoformat(until) - datetime.fromisoformat(began)).total_seconds() if began and until else 0.0


def _containers(pod: Any) -> Iterator[Any]:
    yield from pod["spec"].get("initContainers", ())
    yield from pod["spec"]["containers"]


def pending(pod: Any) -> str:
    """What a pod waits for, in a few words."""
    for condition in pod["status"].get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"no node accepts it: {condition.get('message', condition.get('reason', ''))}"
    waits = [
        f"{status['name']}: {status['state']['waiting'].get('reason', 'waiting')}"
        for status in _statuses(pod)
        if "waiting" in status["state"]
    ]
    if not waits and is_running(pod):
        waits = [f"{each['name']} is not ready yet" for each in _statuses(pod) if not each.get("ready", True)]
        return ", ".join(waits) or "not ready yet"
    return ", ".join(waits) or str(pod["status"].get("phase", "Pending"))


def _statuses(pod: Any) -> Iterator[Any]:
    yield from pod["status"].get("initContainerStatuses", ())
    yield from pod["status"].get("containerStatuses", ())


def _main_containers(pod: Any) -> set[str]:
    return {container["name"] for container in pod["spec"]["containers"]}


def _message(state: Any) -> str:
    return " ".join(str(state.get("message", "")).split())


def _last_lines(cluster: Cluster, pod: str, status: Any) -> str:
    """The end of the container's log, where we may read it.

    A container that crashes again and again is replaced while we ask: the old one may just have been removed, and the new
    one may have printed nothing yet. So we ask a few times.
    """
    was_restarted = bool(status.get("restartCount"))
    for _ in range(_LOG_TRIES):
        for previous in (was_restarted, not was_restarted):
            query = {"container": status["name"], "tailLines": str(_LOG_LINES), "previous": str(previous).lower()}
            try:
                answer = str(cluster.request("GET", cluster.namespaced("pods", f"{pod}/log"), query=query))
            except (ApiError, HtcgridError):
                continue
            text = _NO_LOG.sub("", answer).strip()
            if text:
                return f"\nIts log ends:\n{text}"
        time.sleep(_LOG_SECONDS)
    return ""

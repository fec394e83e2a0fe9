"""Why a pod does not come up, in words to act on."""

import time
from collections.abc import Iterator
from typing import Any

from htcgrid.spi import HtcgridError

from htcgrid_eks.cluster import Cluster, Refusal
from htcgrid_eks.sandbox import Termination, signalled

GRID = "htcgrid.io/grid"
_LOG_LINES = 10
_LOG_TRIES = 6
_LOG_SECONDS = 0.5
_NO_LOG = ("unable to retrieve container logs for", "failed to try resolving symlinks", "failed to open log file")
"""With status 200: how a kubelet says that the container, or its log, has just been removed. The last two are CRI's."""
_SIDECAR_STARTS = 3
_UNAVAILABLE = 3
"""The status of an htcgrid whose source, plane or sink cannot be reached: it may be in a moment."""
_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"})
_FINAL = _IMAGE | {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}


def is_finished(pod: Any) -> bool:
    return pod["status"].get("phase") in {"Succeeded", "Failed"}


def is_running(pod: Any) -> bool:
    """Whether all of its containers run."""
    statuses = pod["status"].get("containerStatuses", ())
    return len(statuses) == len(pod["spec"]["containers"]) and all("running" in each["state"] for each in statuses)


def is_ready(pod: Any) -> bool:
    if "deletionTimestamp" in pod["metadata"]:
        return False
    conditions = pod["status"].get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def status_of(pod: Any, container: str) -> Any:
    statuses = pod["status"].get("containerStatuses", ())
    return next((each for each in statuses if each["name"] == container), {})


def last_end(status: Any) -> tuple[str, Termination] | None:
    """How a container ended last, with the id of the one that did."""
    ended = status.get("state", {}).get("terminated") or status.get("lastState", {}).get("terminated")
    if not ended:
        return None
    killed = ended.get("reason") == "OOMKilled"
    return ended.get("containerID", ""), signalled(ended["exitCode"], out_of_memory=killed)


def fatal(cluster: Cluster, pod: Any) -> str | None:
    """What keeps this pod from ever coming up; None while it may."""
    name = pod["metadata"]["name"]
    for status in _statuses(pod):
        waiting, ended = status["state"].get("waiting"), status["state"].get("terminated")
        where = f"The container {status['name']} of pod {name}"
        if waiting and waiting.get("reason") in _IMAGE:
            return (
                f"{where} cannot have its image {status['image']!r}: {waiting.get('message') or waiting['reason']}. "
                "Check its name and tag, that the node may pull it (`pull_secrets`), and that it was pushed."
            )
        if _is_restarting(pod, status):
            continue
        if waiting and waiting.get("reason") in _FINAL:
            return (
                f"{where} does not start: {waiting['reason']}, {_message(waiting)}{_last_lines(cluster, name, status)}"
            )
        if ended and _is_tried_again(pod, status, ended):
            continue
        if ended and (ended["exitCode"] or status["name"] in _main_containers(pod)):
            reason = f"{ended.get('reason', 'ended')}, exit status {ended['exitCode']}"
            if not ended["exitCode"] and GRID in pod["metadata"].get("labels", {}):
                reason += "; a standing grid takes its tasks from a source that does not end, such as a queue"
            return f"{where} has ended: {reason}. {_message(ended)}{_last_lines(cluster, name, status)}"
    if pod["status"].get("phase") == "Failed":
        return f"Pod {name} failed: {pod['status'].get('reason', '')} {pod['status'].get('message', '')}".rstrip()
    return None


def _is_restarting(pod: Any, status: Any) -> bool:
    """Whether it is a sidecar (an init container that is always restarted) that has not failed many times yet."""
    containers = pod["spec"].get("initContainers", ())
    sidecars = {each["name"] for each in containers if each.get("restartPolicy") == "Always"}
    waiting = status["state"].get("waiting", {})
    is_down = "terminated" in status["state"] or waiting.get("reason") == "CrashLoopBackOff"
    return is_down and status["name"] in sidecars and status.get("restartCount", 0) < _SIDECAR_STARTS


def _is_tried_again(pod: Any, status: Any, ended: Any) -> bool:
    """Whether it found something away, and the kubelet now starts it for the second time."""
    restarts = pod["spec"].get("restartPolicy", "Always") == "Always"
    return restarts and ended["exitCode"] == _UNAVAILABLE and not status.get("restartCount")


def pending(pod: Any) -> str:
    """What a pod waits for, shortly."""
    for condition in pod["status"].get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"no node takes it: {condition.get('message', condition.get('reason', ''))}"
    waits = [
        f"{status['name']}: {status['state']['waiting'].get('reason', 'waiting')}"
        for status in _statuses(pod)
        if "waiting" in status["state"]
    ]
    return ", ".join(waits) or ("not ready yet" if is_running(pod) else pod["status"].get("phase", "Pending"))


def _statuses(pod: Any) -> Iterator[Any]:
    yield from pod["status"].get("initContainerStatuses", ())
    yield from pod["status"].get("containerStatuses", ())


def _main_containers(pod: Any) -> set[str]:
    return {container["name"] for container in pod["spec"]["containers"]}


def _message(state: Any) -> str:
    return " ".join(str(state.get("message", "")).split())


def _last_lines(cluster: Cluster, pod: str, status: Any) -> str:
    """The end of the container's log, where we may read it.

    A container that crashes again and again is replaced while we ask: the one before may just have been
    removed, and the one now have said nothing yet. So it is asked for a few times.
    """
    was_restarted = bool(status.get("restartCount"))
    for _ in range(_LOG_TRIES):
        for previous in (was_restarted, not was_restarted):
            query = {"container": status["name"], "tailLines": str(_LOG_LINES), "previous": str(previous).lower()}
            try:
                text = str(cluster.request("GET", cluster.namespaced("pods", f"{pod}/log"), query=query)).strip()
            except (Refusal, HtcgridError):
                continue
            if text and not text.startswith(_NO_LOG):
                return f"\nIts log ends:\n{text}"
        time.sleep(_LOG_SECONDS)
    return ""

"""What a pod may learn about itself, with the right to get pods and nothing else."""

import socket
import time
from collections.abc import Callable
from typing import Any

from htcgrid.planes import Termination
from htcgrid.spi import Rejected, Unavailable

from htcgrid_eks import pod_diagnosis
from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.options import Access

WAIT_SECONDS, _PAUSE_SECONDS = 20.0, 0.2  # a busy node reports late


class OwnPod:
    """The pod that this process runs in, by its hostname, asked with its own service account."""

    def __init__(self) -> None:
        self._cluster = Cluster(Access())
        self._cluster.open()
        self._seen: dict[str, str] = {}

    def close(self) -> None:
        self._cluster.close()

    def last_end(self, container: str) -> Termination | None:
        """How that container has just ended, once Kubernetes knows; None where Kubernetes does not say."""
        return await_end(self._find, container, self._seen)

    def _find(self) -> Any:
        return self._cluster.request("GET", self._cluster.namespaced("pods", socket.gethostname()))


def await_end(find: Callable[[], Any], container: str, seen: dict[str, str]) -> Termination | None:
    """Wait for an end of the container that is not in `seen`, which maps a name to the id of the last container that ended.

    Raises nothing: the task has ended, and its outcome must not be lost because nobody says why.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            pod = find()
        except Unavailable:
            time.sleep(_PAUSE_SECONDS)
            continue
        except (Rejected, ApiError):
            return None
        if pod is None:
            return None
        end = pod_diagnosis.last_end(pod_diagnosis.status_of(pod, container))
        if end is not None and seen.get(container) != end[0]:
            seen[container] = end[0]
            return end[1]
        time.sleep(_PAUSE_SECONDS)
    return None

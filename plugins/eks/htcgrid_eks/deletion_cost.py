"""A worker marks its own pod as long as it runs tasks, so that scaling in takes idle pods first.

The cluster's controller removes pods with a lower cost first. A pod that was never marked costs 0. The annotation is written
through `pods/status`, which, unlike a patch of the pod, cannot change what the pod runs.
"""

import logging
import socket
import threading
from collections.abc import Callable

from htcgrid.spi import HtcgridError

from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.options import Access

log = logging.getLogger("htcgrid.eks.deletion_cost")

ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
_LOOK_SECONDS = 1.0
_IDLE_LOOKS = 5
"""A pod counts as idle after so many idle looks. Pauses between short tasks then do not count, and the API server is rarely called."""
_REPEAT_LOOKS = 10
_CLOSE_SECONDS = 1.0


class DeletionCost:
    """Keeps the mark of this process's own pod, from `start` to `close`. `busy` returns how many environments are busy.

    Raises `Rejected` where this is not a pod with a service account.
    """

    def __init__(self, busy: Callable[[], int]) -> None:
        self._busy = busy
        self._cluster = Cluster(Access())
        self._cluster.open()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="htcgrid-deletion-cost", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
        self._cluster.close()

    def _keep(self) -> None:
        marked = False
        idle = pause = 0
        while not self._closing.wait(_LOOK_SECONDS):
            idle = 0 if self._busy() else idle + 1
            pause = max(0, pause - 1)
            wanted = marked if 0 < idle < _IDLE_LOOKS else not idle
            if wanted == marked or pause:
                continue
            try:
                self._write(1 if wanted else 0)
            except ApiError as api_error:
                log.warning(
                    "This pod cannot mark itself as busy, so scaling in may remove it before idle pods: %s. Deploy again, or "
                    "write idle_first = false.",
                    api_error,
                )
                return
            except HtcgridError as error:
                log.info("The deletion cost of this pod cannot be written now, and is tried again later: %s", error)
                pause = _REPEAT_LOOKS
            else:
                marked = wanted

    def _write(self, cost: int) -> None:
        path = self._cluster.namespaced("pods", f"{socket.gethostname()}/status")
        patch = {"metadata": {"annotations": {ANNOTATION: str(cost)}}}
        self._cluster.request("PATCH", path, patch, content_type="application/merge-patch+json")

"""`eks_sidecar`: the plane inside a pod. The Lambda containers beside the agent are the execution environments."""

from typing import TYPE_CHECKING

from htcgrid.planes import SidecarInvoker, Termination, sidecar_pool
from htcgrid.spi import Function
from pydantic import Field

if TYPE_CHECKING:
    from htcgrid_eks.deletion_cost import DeletionCost
    from htcgrid_eks.own_pod import OwnPod

FOLDER = sidecar_pool.FOLDER
EMULATOR_PORT = sidecar_pool.EMULATOR_PORT
container_name = sidecar_pool.container_name
READY = "ready"


class EksSidecarInvoker(SidecarInvoker):
    """Lambda containers of this pod, reached over its loopback. `htcgrid deploy` writes the pod and this config.

    The pod's status says how a container ended. It is read where `pod_status` is set, which needs the right to get pods.
    Without it the end of a whole container is reported as `exit`.
    """

    class Config(SidecarInvoker.Config):
        pod_status: bool = Field(False, description="whether to ask Kubernetes how a container ended")
        idle_first: bool = Field(
            False, description="whether to mark this pod while it is busy, so that scaling in takes idle ones first"
        )

    config: Config
    how_to_look = "`kubectl describe pod` says why."

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._pod: OwnPod | None = None
        self._cost: DeletionCost | None = None

    def open(self) -> None:
        super().open()
        if self.config.pod_status:
            from htcgrid_eks.own_pod import OwnPod  # noqa: PLC0415 - the SDK takes a second to import

            self._pod = OwnPod()
        if self.config.idle_first:
            from htcgrid_eks.deletion_cost import DeletionCost  # noqa: PLC0415 - as above

            self._cost = DeletionCost(self.busy)
            self._cost.start()
        (self.config.folder / READY).touch()

    def close(self) -> None:
        if self._cost is not None:
            self._cost.close()
        super().close()
        if self._pod is not None:
            self._pod.close()
        self._pod, self._cost = None, None
        (self.config.folder / READY).unlink(missing_ok=True)

    def needed(self) -> str:
        return (
            "eks_sidecar runs in a pod that shares a volume with its Lambda containers. `htcgrid deploy` makes such pods; "
            'from outside a cluster use plugin = "eks".'
        )

    def ended(self, place: int) -> Termination | None:
        return self._pod.last_end(container_name(place)) if self._pod is not None else None

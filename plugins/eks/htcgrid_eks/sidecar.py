"""`eks_sidecar`: the plane inside a pod. The Lambda containers beside the agent are the execution environments."""

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from htcgrid.planes import (
    ApiEnvironment,
    EmulatorSandbox,
    EnvironmentPool,
    ExecutionEnvironment,
    RieEnvironment,
    SandboxedEnvironment,
    UnexplainedExit,
    explained,
)
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    Outcome,
    Plugin,
    Rejected,
    Unavailable,
)
from pydantic import Field

from htcgrid_eks.container_pipes import ContainerPipes
from htcgrid_eks.sandbox import ContainerSandbox, corrected_by

if TYPE_CHECKING:
    from htcgrid_eks.deletion_cost import DeletionCost
    from htcgrid_eks.own_pod import OwnPod

FOLDER = Path("/run/htcgrid")
EMULATOR_PORT = 8080
READY = "ready"
_BACK_SECONDS = 2.0


def container_name(index: int) -> str:
    """The name of the pod's Lambda container of that index."""
    return f"lambda-{index}"


class EksSidecarInvoker(EnvironmentPool):
    """Lambda containers of this pod, reached over its loopback. `htcgrid deploy` writes the pod and this config.

    How a handler's process ended is told by the container's first process, without any right on the cluster. How a
    whole container ended (on newer nodes the kernel ends it whole when it is out of memory) is in the pod's status,
    which is read where `pod_status` is set; that takes the right to get pods. Without it such an end is an `exit`.
    """

    class Config(Plugin.Config):
        containers: int = Field(1, ge=1, description="how many Lambda containers the pod has")
        transport: Literal["api", "rie"] = Field("api", description='"api" (the Runtime API) or "rie" (the emulator)')
        folder: Path = Field(FOLDER, description="where the volumes shared with the containers are mounted")
        start_seconds: float = Field(60.0, gt=0, description="seconds to wait for the containers to become ready")
        emulator_port: int = Field(
            EMULATOR_PORT, description="port of the first container's emulator; the others' follow"
        )
        pod_status: bool = Field(False, description="whether to ask Kubernetes how a container ended")
        idle_first: bool = Field(
            False, description="whether to mark this pod while it is busy, so that scaling in takes idle ones first"
        )

    config: Config
    max_batch = 32
    starts_early = False

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        every = frozenset(Capability)
        # The emulator's replies do not tell an answer from an error document.
        self.capabilities = every if config.transport == "api" else every - {Capability.ERRORS}
        self._pipes: list[ContainerPipes] = []
        self._pod: OwnPod | None = None
        self._cost: DeletionCost | None = None
        self._kills: dict[int, int] = {}
        """How often the kernel had ended something in a pipes for its memory, before the tasks that it has now."""

    def size(self) -> int:
        return self.config.containers

    def open(self) -> None:
        folder = self.config.folder
        if not os.access(folder, os.W_OK):
            raise Rejected(
                f"{folder} is not there or may not be written: eks_sidecar runs in a pod that shares a volume with its "
                'Lambda containers. `htcgrid deploy` makes such pods; from outside a cluster use plugin = "eks".'
            )
        self._pipes = [ContainerPipes(folder / str(index)) for index in range(self.config.containers)]
        for pipes in self._pipes:
            pipes.open()
        if self.config.pod_status:
            from htcgrid_eks.own_pod import OwnPod  # noqa: PLC0415 - the SDK takes a second to import

            self._pod = OwnPod()
        if self.config.idle_first:
            from htcgrid_eks.deletion_cost import DeletionCost  # noqa: PLC0415 - as above

            self._cost = DeletionCost(self.busy)
        self._await_containers()
        super().open()
        if self._cost is not None:
            self._cost.start()
        (folder / READY).touch()

    def close(self) -> None:
        if self._cost is not None:
            self._cost.close()
        super().close()
        for pipes in self._pipes:
            pipes.close()
        if self._pod is not None:
            self._pod.close()
        self._pipes, self._pod, self._cost = [], None, None
        (self.config.folder / READY).unlink(missing_ok=True)

    def quit(self) -> None:
        """Have the Lambda containers end, for a pod that is not to live on."""
        for pipes in self._pipes:
            pipes.quit()

    # --- the pool ---

    def environment(self, place: int) -> ExecutionEnvironment:
        pipes = self._pipes[place]
        pipes.greet()  # while nothing runs there, nothing else tells that it has ended
        if not pipes.is_ready(_BACK_SECONDS):
            name = container_name(place)
            raise Unavailable(f"The container {name} is not there; Kubernetes will restart it.", retry_after=1.0)
        self._kills[place] = pipes.kills
        if self.config.transport == "rie":
            emulator = _Emulator(pipes, self.config.emulator_port + place)
            return RieEnvironment(self.function, emulator)
        return ApiEnvironment(self.function, ContainerSandbox(pipes))

    def before(self, environment: ExecutionEnvironment, place: int) -> None:
        self._kills[place] = self._pipes[place].kills

    def corrected(self, outcome: Outcome, place: int) -> Outcome:
        """What only the pod's status knows of a container that ended whole, and the emulator not of its runtime."""
        if outcome.failure is not FailureKind.EXIT:
            return outcome
        environment = self.at(place)
        assert isinstance(environment, SandboxedEnvironment)  # noqa: S101 - all of this plane's are
        assert isinstance(environment.sandbox, ContainerSandbox)  # noqa: S101
        if environment.sandbox.ended_whole:
            if self._pod is None:
                return UnexplainedExit.of(outcome)
            return corrected_by(self._pod.last_end(container_name(place)), outcome)
        pipes = self._pipes[place]
        if self.config.transport == "rie":  # which lives on when the kernel ends the runtime for its memory
            pipes.memory_mb()
            if pipes.kills > self._kills[place]:
                self._kills[place] = pipes.kills
                return explained(outcome, -signal.SIGKILL, out_of_memory=True)
        return outcome

    def _await_containers(self) -> None:
        deadline = time.monotonic() + self.config.start_seconds
        for index, pipes in enumerate(self._pipes):
            if not pipes.is_ready(max(0.0, deadline - time.monotonic())):
                raise Unavailable(
                    f"The container {container_name(index)} has not come up in {self.config.start_seconds:g} s. "
                    "`kubectl describe pod` says why."
                )


class _Emulator(ContainerSandbox, EmulatorSandbox):
    def __init__(self, pipes: ContainerPipes, port: int) -> None:
        super().__init__(pipes)
        self._port = port

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

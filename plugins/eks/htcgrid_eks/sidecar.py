"""`eks_sidecar`: the plane inside a pod. The Lambda containers beside the agent are the execution environments."""

import os
import queue
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from htcgrid.runtime import documents, identity
from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.calls import Calls
from htcgrid.runtime.environment import ExecutionEnvironment, State
from htcgrid.runtime.rie import EmulatorSandbox, RieEnvironment
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Rejected,
    Unavailable,
    Unstarted,
)
from pydantic import Field

from htcgrid_eks.cell import Cell
from htcgrid_eks.sandbox import ContainerSandbox, Terminations

if TYPE_CHECKING:
    from htcgrid_eks.own_pod import OwnPod

FOLDER = Path("/run/htcgrid")
EMULATOR_PORT = 8080
READY = "ready"
_BACK_SECONDS = 2.0


def container_name(index: int) -> str:
    """The name of the pod's Lambda container of that index."""
    return f"lambda-{index}"


class EksSidecarInvoker(Invoker):
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

    config: Config
    max_batch = 32

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.max_concurrency = config.containers
        every = frozenset(Capability)
        # The emulator's replies do not tell an answer from an error document.
        self.capabilities = every if config.transport == "api" else every - {Capability.ERRORS}
        self._cells: list[Cell] = []
        self._pod: OwnPod | None = None
        self._all: list[ExecutionEnvironment | None] = []
        self._calls = Calls()
        self._idle: queue.LifoQueue[int] = queue.LifoQueue()

    def open(self) -> None:
        folder = self.config.folder
        if not os.access(folder, os.W_OK):
            raise Rejected(
                f"{folder} is not there or may not be written: eks_sidecar runs in a pod that shares a volume with its "
                'Lambda containers. `htcgrid deploy` makes such pods; from outside a cluster use plugin = "eks".'
            )
        self._cells = [Cell(folder / str(index)) for index in range(self.config.containers)]
        for cell in self._cells:
            cell.open()
        if self.config.pod_status:
            from htcgrid_eks.own_pod import OwnPod  # noqa: PLC0415 - the SDK takes a second to import

            self._pod = OwnPod()
        self._await_containers()
        self._all = [None] * len(self._cells)
        for index in reversed(range(len(self._cells))):
            self._idle.put(index)
        (folder / READY).touch()

    def close(self) -> None:
        for environment in self._all:
            if environment is not None:
                environment.close()
        for cell in self._cells:
            cell.close()
        if self._pod is not None:
            self._pod.close()
        self._all, self._cells, self._pod = [], [], None
        self._idle = queue.LifoQueue()
        (self.config.folder / READY).unlink(missing_ok=True)

    def quit(self) -> None:
        """Have the Lambda containers end, for a pod that is not to live on."""
        for cell in self._cells:
            cell.quit()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        with self._calls.call() as cancelled:
            yield from self._invoke(batch, timeout, cancelled)

    def _invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str]
    ) -> Iterator[Outcome | Unstarted]:
        index = self._idle.get()
        try:
            reports = self._ready(index).invoke(batch, timeout, cancelled)
            yield from reports if self.config.transport == "api" else _with_kills(reports, self._cells[index])
        finally:
            environment = self._all[index]
            if environment is not None and environment.state is State.GONE:
                self._remove(index)
            self._idle.put(index)

    def cancel(self, task_ids: Collection[str]) -> None:
        self._calls.cancel(task_ids)

    def terminations(self, index: int) -> Terminations:
        """How that container's ends are asked for."""
        pod = self._pod
        return lambda: pod.last_end(container_name(index)) if pod is not None else None

    # --- environments ---

    def _ready(self, index: int) -> ExecutionEnvironment:
        environment = self._all[index]
        if environment is None or environment.is_lost():
            self._remove(index)
            self._cells[index].greet()  # while nothing runs there, nothing else tells that it has ended
            if not self._cells[index].is_ready(_BACK_SECONDS):
                name = container_name(index)
                raise Unavailable(f"The container {name} is not there; Kubernetes will restart it.", retry_after=1.0)
            environment = self._start(index)
        return environment

    def _remove(self, index: int) -> None:
        environment, self._all[index] = self._all[index], None
        if environment is not None:
            environment.close()

    def _start(self, index: int) -> ExecutionEnvironment:
        cell, terminations = self._cells[index], self.terminations(index)
        environment: ExecutionEnvironment
        if self.config.transport == "rie":
            environment = RieEnvironment(
                self.function, _Emulator(cell, terminations, self.config.emulator_port + index)
            )
        else:
            environment = ApiEnvironment(self.function, ContainerSandbox(cell, terminations))
        environment.start()
        self._all[index] = environment
        return environment

    def _await_containers(self) -> None:
        deadline = time.monotonic() + self.config.start_seconds
        for index, cell in enumerate(self._cells):
            if not cell.is_ready(max(0.0, deadline - time.monotonic())):
                raise Unavailable(
                    f"The container {container_name(index)} has not come up in {self.config.start_seconds:g} s. "
                    "`kubectl describe pod` says why."
                )


def _with_kills(reports: Iterator[Outcome | Unstarted], cell: Cell) -> Iterator[Outcome | Unstarted]:
    """The emulator lives on when the kernel ends the runtime for its memory, and calls it a killed one."""
    before = cell.kills
    for report in reports:
        cell.memory_mb()
        if cell.kills > before and isinstance(report, Outcome) and report.failure is FailureKind.EXIT:
            before = cell.kills
            document = documents.out_of_memory(identity.request_id(report.task_id))
            yield replace(report, failure=FailureKind.OUT_OF_MEMORY, payload=document)
        else:
            yield report


class _Emulator(ContainerSandbox, EmulatorSandbox):
    def __init__(self, cell: Cell, terminations: Terminations, port: int) -> None:
        super().__init__(cell, terminations)
        self._port = port

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port


def complain(message: str) -> None:
    """A line into the container's log."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()

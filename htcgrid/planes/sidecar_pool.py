"""A plane inside a pod, or a task of ECS: the Lambda containers beside the agent are the execution environments."""

import os
import signal
import time
from pathlib import Path
from typing import Literal

from pydantic import Field

from htcgrid.planes.container_pipes import ContainerPipes
from htcgrid.planes.sidecar_sandbox import SidecarSandbox, Termination, corrected_by
from htcgrid.planes.unexplained import UnexplainedExit, explained
from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.environment import ExecutionEnvironment
from htcgrid.runtime.pool import EnvironmentPool
from htcgrid.runtime.rie import EmulatorSandbox, RieEnvironment
from htcgrid.runtime.sandbox import SandboxedEnvironment
from htcgrid.spi import Capability, FailureKind, Function, Outcome, Plugin, Rejected, Unavailable

FOLDER = Path("/run/htcgrid")
EMULATOR_PORT = 8080
_BACK_SECONDS = 2.0


def container_name(place: int) -> str:
    """The name of the Lambda container of that place."""
    return f"lambda-{place}"


class SidecarInvoker(EnvironmentPool):
    """Lambda containers that share the loopback and a folder each with this process.

    The first process of each container, `container_entry.sh`, reports how a handler's process ended. How the container
    itself ended (newer kernels end all of a container that is out of memory) only its engine knows: a subclass that can
    ask it overrides `ended`. Otherwise such an end is an `exit`, and an `UnexplainedExit` for a relay's client.
    """

    class Config(Plugin.Config):
        containers: int = Field(1, ge=1, description="how many Lambda containers the pod has")
        transport: Literal["api", "rie"] = Field("api", description='"api" (the Runtime API) or "rie" (the emulator)')
        folder: Path = Field(FOLDER, description="where the volumes shared with the containers are mounted")
        start_seconds: float = Field(60.0, gt=0, description="seconds to wait for the containers to become ready")
        emulator_port: int = Field(
            EMULATOR_PORT, description="port of the first container's emulator; the others' follow"
        )

    config: Config
    max_batch = 32
    starts_early = False
    how_to_look = ""
    """A sentence that says where to look for why a container does not come up."""

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        every = frozenset(Capability)
        # The emulator's replies do not tell an answer from an error document.
        self.capabilities = every if config.transport == "api" else every - {Capability.ERRORS}
        self._pipes: list[ContainerPipes] = []
        self._kills: dict[int, int] = {}
        """For each place, `ContainerPipes.kills` before the tasks that it runs now."""

    def size(self) -> int:
        return self.config.containers

    def open(self) -> None:
        folder = self.config.folder
        if not os.access(folder, os.W_OK):
            raise Rejected(f"{folder} is not there or may not be written: {self.needed()}")
        self._pipes = [ContainerPipes(folder / str(index)) for index in range(self.config.containers)]
        for pipes in self._pipes:
            pipes.open()
        self._await_containers()
        super().open()

    def close(self) -> None:
        super().close()
        for pipes in self._pipes:
            pipes.close()
        self._pipes = []

    def quit(self) -> None:
        """Have the Lambda containers end, for a pod that is not to live on."""
        for pipes in self._pipes:
            pipes.quit()

    # --- what a plane says ---

    def needed(self) -> str:
        """What this plane needs, for a user who started it elsewhere."""
        return "this plane runs beside Lambda containers that share a folder with it."

    def ended(self, place: int) -> Termination | None:
        """How the container of this place, which has just ended, has ended; None where that is not known."""
        return None

    # --- the pool ---

    def environment(self, place: int) -> ExecutionEnvironment:
        pipes = self._pipes[place]
        pipes.greet()  # while nothing runs there, nothing else tells that it has ended
        if not pipes.is_ready(_BACK_SECONDS):
            name = container_name(place)
            raise Unavailable(f"The container {name} does not answer; it may be starting again.", retry_after=1.0)
        self._kills[place] = pipes.kills
        if self.config.transport == "rie":
            return RieEnvironment(self.function, _Emulator(pipes, self.config.emulator_port + place))
        return ApiEnvironment(self.function, SidecarSandbox(pipes))

    def before(self, environment: ExecutionEnvironment, place: int) -> None:
        self._kills[place] = self._pipes[place].kills

    def corrected(self, outcome: Outcome, place: int) -> Outcome:
        """Corrected by the engine, where the container itself ended, and by the kernel's count, where the emulator is used."""
        if outcome.failure is not FailureKind.EXIT:
            return outcome
        environment = self.at(place)
        assert isinstance(environment, SandboxedEnvironment)  # noqa: S101 - all of this plane's are
        assert isinstance(environment.sandbox, SidecarSandbox)  # noqa: S101
        if environment.sandbox.ended_whole:
            return corrected_by(self.ended(place), UnexplainedExit.of(outcome))
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
                name = container_name(index)
                message = f"The container {name} has not come up in {self.config.start_seconds:g} s. {self.how_to_look}"
                raise Unavailable(message.rstrip())


class _Emulator(SidecarSandbox, EmulatorSandbox):
    def __init__(self, pipes: ContainerPipes, port: int) -> None:
        super().__init__(pipes)
        self._port = port

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

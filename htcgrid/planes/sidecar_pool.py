"""A plane inside a pod or an ECS task: the Lambda containers beside the agent are the execution environments."""

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
    """Lambda containers that share the loopback with this process; each shares a folder with it too.

    The first process of each container, `container_entry.sh`, reports how a handler's process ended. Only the engine knows
    how the container itself ended (newer kernels end the whole container when it is out of memory): a subclass that can
    ask the engine overrides `ended`. Otherwise such an end is an `exit`, and an `UnexplainedExit` for a relay's client.
    """

    class Config(Plugin.Config):
        containers: int = Field(1, ge=1, description="how many Lambda containers the pod has")
        transport: Literal["http", "rie"] = Field(
            "http", description='"http" (the Runtime API) or "rie" (the emulator)'
        )
        folder: Path = Field(FOLDER, description="where the volumes shared with the containers are mounted")
        start_seconds: float = Field(60.0, gt=0, description="seconds to wait for the containers to become ready")
        emulator_port: int = Field(
            EMULATOR_PORT, description="port of the first container's emulator; the others use the next ports"
        )

    config: Config
    max_batch = 32
    starts_early = False
    how_to_look = ""
    """A sentence that says where a user can see why a container does not start."""

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        every = frozenset(Capability)
        # In the emulator's replies an answer and an error document look the same.
        self.capabilities = every if config.transport == "http" else every - {Capability.ERRORS}
        self._pipes: list[ContainerPipes] = []
        self._kills: dict[int, int] = {}
        """For each place, `ContainerPipes.kills` before the tasks that it runs now."""

    def size(self) -> int:
        return self.config.containers

    def open(self) -> None:
        folder = self.config.folder
        if not os.access(folder, os.W_OK):
            raise Rejected(f"{folder} does not exist or cannot be written: {self.needed()}")
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
        """Order the Lambda containers to end, when the pod should end too."""
        for pipes in self._pipes:
            pipes.quit()

    # --- what a subclass may define ---

    def needed(self) -> str:
        """What this plane needs, for the error message of a user who started it in another place."""
        return "this plane runs beside Lambda containers that share a folder with it."

    def ended(self, place: int) -> Termination | None:
        """How the container of this place, which has just ended, ended; None if that is not known."""
        return None

    # --- the pool ---

    def environment(self, place: int) -> ExecutionEnvironment:
        pipes = self._pipes[place]
        pipes.greet()  # while nothing runs there, only this shows whether the container has ended
        if not pipes.is_ready(_BACK_SECONDS):
            name = container_name(place)
            raise Unavailable(f"The container {name} does not answer; it may be restarting.", retry_after=1.0)
        self._kills[place] = pipes.kills
        if self.config.transport == "rie":
            return RieEnvironment(self.function, _Emulator(pipes, self.config.emulator_port + place))
        return ApiEnvironment(self.function, SidecarSandbox(pipes))

    def before(self, environment: ExecutionEnvironment, place: int) -> None:
        self._kills[place] = self._pipes[place].kills

    def corrected(self, outcome: Outcome, place: int) -> Outcome:
        """Corrected with the engine's answer if the container itself ended, and with the kernel's count if the emulator is used."""
        if outcome.failure is not FailureKind.EXIT:
            return outcome
        environment = self.at(place)
        assert isinstance(environment, SandboxedEnvironment)  # noqa: S101 - every environment of this plane is one
        assert isinstance(environment.sandbox, SidecarSandbox)  # noqa: S101
        if environment.sandbox.ended_whole:
            return corrected_by(self.ended(place), UnexplainedExit.of(outcome))
        pipes = self._pipes[place]
        if (
            self.config.transport == "rie"
        ):  # the emulator goes on when the kernel ends the runtime because of its memory
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
                message = (
                    f"The container {name} was not ready after {self.config.start_seconds:g} s. {self.how_to_look}"
                )
                raise Unavailable(message.rstrip())


class _Emulator(SidecarSandbox, EmulatorSandbox):
    def __init__(self, pipes: ContainerPipes, port: int) -> None:
        super().__init__(pipes)
        self._port = port

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self._port

"""The plane: a pool of containers, each an execution environment."""

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from htcgrid.planes import (
    ApiEnvironment,
    EnvironmentPool,
    ExecutionEnvironment,
    RieEnvironment,
    SandboxedEnvironment,
    State,
    code_folder,
    collect,
    explained,
    layers,
)
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    Outcome,
    Rejected,
)

from htcgrid_local_docker import building, container_spec, images, network, ownership
from htcgrid_local_docker.diagnosis import check_came_up
from htcgrid_local_docker.engine import Engine
from htcgrid_local_docker.options import Options
from htcgrid_local_docker.sandbox import ContainerSandbox


class LocalDockerInvoker(EnvironmentPool):
    """Containers on the Docker Engine of this machine.

    A container is started by the first `invoke` that finds no idle one, in that call's thread: those
    of several threads come up side by side, and what is not needed is never started.
    """

    Config = Options
    carries_settings = False
    config: Options
    max_batch = 512
    starts_early = False

    def __init__(self, config: Options, function: Function) -> None:
        super().__init__(config, function)
        every = frozenset(Capability)
        # The emulator's replies do not tell an answer from an error document.
        self.capabilities = every if config.transport == "http" else every - {Capability.ERRORS}
        self._engine = Engine(config.host)
        self._left: list[ContainerSandbox] = []
        self._lock = threading.Lock()
        """Held around `_left`: one thread takes all of it while others add to it."""
        self._spec: container_spec.ContainerSpec | None = None
        self._is_proven = False  # whether a handler has answered: then the image is right
        self._opened = ExitStack()

    def size(self) -> int:
        return self.config.workers or len(os.sched_getaffinity(0))

    def open(self) -> None:
        self._opened.callback(self._engine.close)
        self._engine.open()
        if not self._engine.keeps_limits:
            self.capabilities -= {Capability.MEMORY, Capability.METERING}
        if self.config.gpus and self._engine.is_podman:
            raise Rejected(
                "`gpus` reaches no container on Podman, whose Docker API drops it. Leave it out, or use Docker."
            )
        for _ in ownership.sweep(self._engine):
            pass
        image = self._image()
        labels = ownership.labels(self.function)
        net = network.join(self._engine, self.config.network, labels, self.config.transport)
        self._opened.callback(network.leave, self._engine, net)
        if self.config.transport == "http":
            network.check_reachable(self._engine, net)
        spec = container_spec.spec_of(self.config, self.function, image, net)
        self._spec = replace(spec, layers=self._layers())
        super().open()

    def close(self) -> None:
        with self._opened:
            super().close()
            if self._engine.is_open:
                self._remove_what_is_left()

    # --- the pool ---

    def environment(self, place: int) -> ExecutionEnvironment:
        assert self._spec is not None  # noqa: S101 - between open and close
        self._remove_what_is_left()
        if self.config.transport == "rie":
            return RieEnvironment(self.function, ContainerSandbox(self._engine, self._spec))
        listener = network.listener(self._engine, self._spec.network)
        return ApiEnvironment(self.function, ContainerSandbox(self._engine, self._spec, listener), listener)

    def before(self, environment: ExecutionEnvironment, place: int) -> None:
        if environment.state is State.IDLE:
            sandbox_of(environment).forget_log()

    def corrected(self, outcome: Outcome, place: int) -> Outcome:
        """Refuse a broken image, then correct what the emulator cannot know about an outcome."""
        assert self._spec is not None  # noqa: S101 - between open and close
        if outcome.failure in {None, FailureKind.HANDLER_ERROR}:
            self._is_proven = True
        elif outcome.failure is FailureKind.INIT_ERROR and not self._is_proven:
            check_came_up(outcome, self._spec)
        is_exit = outcome.failure is FailureKind.EXIT and self.config.transport == "rie"
        if is_exit and (environment := self.at(place)) and sandbox_of(environment).has_killed_for_memory():
            return explained(outcome, -signal.SIGKILL, out_of_memory=True)
        return outcome

    def removed(self, environment: ExecutionEnvironment, place: int) -> None:
        """Its place is free, whatever becomes of its container."""
        self._keep_what_is_left([sandbox_of(environment)])

    # --- Deployable ---

    def deploy(self, settings: Mapping[str, Any], *, dry_run: bool = False) -> Iterable[str]:
        """Have the image here; containers come with `run`."""
        with self._connected():
            if dry_run:
                yield f"would have the image {self.config.reference} on the engine at {self._engine.address}"
                return
            said: list[str] = []
            image = images.find(
                self._engine, self.config.reference, self.function.architecture, self.config.pull, said.append
            )
            yield from said
            yield f"the image {image.reference} is there, for {image.architecture}"

    def undeploy(self) -> Iterable[str]:
        """Remove what agents that were killed have left behind. Containers of living agents stay."""
        with self._connected():
            yield from ownership.sweep(self._engine)
            for process, containers in ownership.alive(self._engine).items():
                yield f"left alone: {len(containers)} container(s) of the agent with process id {process}"

    def scale(self, size: int) -> Iterable[str]:
        """Refused: between two runs this plane has no containers."""
        raise Rejected(
            f"This plane has containers only while it runs. Write workers = {size} in its table of the config."
        )

    def status(self) -> Mapping[str, str]:
        with self._connected():
            with self._engine.speaking("say its version"):
                version = self._engine.client.version()
            owners = ownership.alive(self._engine)
            return {
                "engine": f"{version['Version']} at {self._engine.address}",
                "image": self.config.reference,
                "containers": str(sum(len(containers) for containers in owners.values())),
                "agents": ", ".join(owners) or "none",
            }

    # --- ImageBuilder ---

    def build(self, tag: str, *, wheels: Path | None = None, dry_run: bool = False) -> Iterable[str]:
        """Make an image of the code folder on `base_image`, with a Dockerfile that is shown and kept."""
        if not self.config.base_image:
            raise Rejected("`base_image` is missing in the plane's table: name the image to build upon.")
        code_folder.existing(self.function.code)
        with self._connected():
            text, own = building.written(self.function, self._image, wheels)
            where = self.function.code / "Dockerfile"
            yield f"# {where}, {'as it is there' if own else 'made for this function'}"
            yield text
            if note := collect(self.function.code).note():
                yield f"# {note}"
            if dry_run:
                return
            if not own and wheels is None:
                where.write_text(text, encoding="utf-8")
            yield from building.build(self._engine, self.function, tag, text, wheels)

    # --- within ---

    def _connected(self) -> ExitStack:
        stack = ExitStack()
        stack.callback(self._engine.close)
        self._engine.open()
        return stack

    def _image(self) -> images.Image:
        return images.find(self._engine, self.config.reference, self.function.architecture, self.config.pull, _say)

    def _layers(self) -> Path | None:
        """One folder with all layers, as /opt is on AWS Lambda."""
        layers.check(self.function.layers)
        if len(self.function.layers) < 2:
            return next(iter(self.function.layers), None)
        merged = Path(self._opened.enter_context(tempfile.TemporaryDirectory(prefix="htcgrid-layers-")))
        layers.merge(self.function, merged)
        merged.chmod(0o755)
        return merged

    def _remove_what_is_left(self) -> None:
        """Containers that could not be removed while the engine was away."""
        if not self._left:
            return
        with self._lock:
            left, self._left = self._left, []
        try:
            for sandbox in left:
                sandbox.close()
        finally:
            self._keep_what_is_left(left)

    def _keep_what_is_left(self, closed: Sequence[ContainerSandbox]) -> None:
        left = [sandbox for sandbox in closed if sandbox.is_left]
        with self._lock:
            self._left += left


def sandbox_of(environment: ExecutionEnvironment) -> ContainerSandbox:
    """The container that an environment of this plane runs in."""
    assert isinstance(environment, SandboxedEnvironment)  # noqa: S101 - all of this plane's are
    assert isinstance(environment.sandbox, ContainerSandbox)  # noqa: S101
    return environment.sandbox


def _say(message: str) -> None:
    """A pull may take minutes, and a plugin has no other way to say so."""
    text = message if sys.stderr.isatty() else json.dumps({"time": round(time.time(), 3), "message": message})
    print(text, file=sys.stderr, flush=True)  # noqa: T201

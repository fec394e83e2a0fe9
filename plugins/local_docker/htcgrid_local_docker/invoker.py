"""The plane: a pool of containers, each an execution environment."""

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from htcgrid.planes.code_files import collect
from htcgrid.runtime import identity
from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.api_server import listen
from htcgrid.runtime.calls import Calls
from htcgrid.runtime.environment import ExecutionEnvironment, State
from htcgrid.runtime.rie import RieEnvironment
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Rejected,
    Unavailable,
    Unstarted,
    documents,
)

from htcgrid_local_docker import building, images, network, ownership, plan
from htcgrid_local_docker.diagnosis import check_came_up
from htcgrid_local_docker.engine import Engine
from htcgrid_local_docker.options import Options
from htcgrid_local_docker.sandbox import ContainerSandbox


class LocalDockerInvoker(Invoker):
    """Containers on the Docker Engine of this machine.

    A container is started by the first `invoke` that finds no idle one, in that call's thread: those
    of several threads come up side by side, and what is not needed is never started.
    """

    Config = Options
    carries_settings = False
    config: Options
    max_batch = 512

    def __init__(self, config: Options, function: Function) -> None:
        super().__init__(config, function)
        self.max_concurrency = config.workers or len(os.sched_getaffinity(0))
        every = frozenset(Capability)
        # The emulator's replies do not tell an answer from an error document.
        self.capabilities = every if config.transport == "api" else every - {Capability.ERRORS}
        self._engine = Engine(config.host)
        self._places: queue.LifoQueue[ExecutionEnvironment | None] = queue.LifoQueue()
        self._all: dict[ExecutionEnvironment, ContainerSandbox] = {}
        self._calls = Calls()
        self._left: list[ContainerSandbox] = []
        self._lock = threading.Lock()
        """Around `_left`, which one thread takes whole while others add to it."""
        self._plan: plan.Plan | None = None
        self._is_proven = False  # whether a handler has answered: then the image is right
        self._opened = ExitStack()

    def open(self) -> None:
        self._opened.callback(self._engine.close)
        self._engine.open()
        for _ in ownership.sweep(self._engine):
            pass
        image = self._image()
        labels = ownership.labels(self.function)
        net = network.join(self._engine, self.config.network, labels)
        self._opened.callback(network.leave, self._engine, net)
        if self.config.transport == "api":
            network.check_reachable(net)
        if self.config.logs is not None:
            self.config.logs.mkdir(parents=True, exist_ok=True)
        self._plan = plan.draw(self.config, self.function, image, net)
        for _ in range(self.max_concurrency):
            self._places.put(None)

    def close(self) -> None:
        if self._all:
            with ThreadPoolExecutor(min(8, len(self._all))) as pool:
                list(pool.map(lambda environment: environment.close(), self._all))
        self._all.clear()
        self._remove_what_is_left()
        self._opened.close()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        with self._calls.call() as cancelled:
            yield from self._invoke(batch, timeout, cancelled)

    def _invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str]
    ) -> Iterator[Outcome | Unstarted]:
        environment = self._places.get()
        left: dict[str, None] = {}
        try:
            if environment is not None and environment.is_lost():
                self._removed(environment)
                environment = None
            if environment is None:
                environment = self._started()
            elif environment.state is State.IDLE:
                self._all[environment].forget_log()
            left = dict.fromkeys(lease.task.id for lease in batch)
            for report in environment.invoke(batch, timeout, cancelled):
                left.pop(report.task_id, None)
                yield self._judged(report, self._all[environment]) if isinstance(report, Outcome) else report
        except Unavailable as error:
            raise Unavailable(str(error), error.retry_after, error.begun or list(left)[:1]) from None
        finally:
            gone = environment is None or environment.state is State.GONE
            self._places.put(None if gone else environment)
            if environment is not None and gone:
                self._removed(environment)

    def cancel(self, task_ids: Collection[str]) -> None:
        self._calls.cancel(task_ids)

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
        """Nothing stands between runs that could be scaled."""
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
        plan.check_folder(self.function)
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

    def _removed(self, environment: ExecutionEnvironment) -> None:
        """Its place is free, whatever becomes of its container."""
        sandbox = self._all.pop(environment, None)
        if sandbox is not None:
            environment.close()
            self._keep_what_is_left([sandbox])

    def _remove_what_is_left(self) -> None:
        """Containers that could not be removed while the engine was away."""
        with self._lock:
            left, self._left = self._left, []
        for sandbox in left:
            sandbox.close()
        self._keep_what_is_left(left)

    def _keep_what_is_left(self, closed: Sequence[ContainerSandbox]) -> None:
        left = [sandbox for sandbox in closed if sandbox.is_left]
        with self._lock:
            self._left += left

    def _started(self) -> ExecutionEnvironment:
        assert self._plan is not None  # noqa: S101 - between open and close
        sandbox = ContainerSandbox(self._engine, self._plan)
        environment: ExecutionEnvironment
        if self.config.transport == "rie":
            environment = RieEnvironment(self.function, sandbox)
        else:
            environment = ApiEnvironment(self.function, sandbox, listen(self._plan.network.gateway))
        self._all[environment] = sandbox
        try:
            environment.start()
        except BaseException:
            self._removed(environment)
            raise
        if self._left:
            self._remove_what_is_left()
        return environment

    def _judged(self, outcome: Outcome, sandbox: ContainerSandbox) -> Outcome:
        """The outcome, once it is clear that it is the task's own; what the emulator cannot know is put right."""
        assert self._plan is not None  # noqa: S101 - between open and close
        if outcome.failure in {None, FailureKind.HANDLER_ERROR}:
            self._is_proven = True
        elif outcome.failure is FailureKind.INIT_ERROR and not self._is_proven:
            check_came_up(outcome, self._plan)
        if outcome.failure is FailureKind.EXIT and self.config.transport == "rie" and sandbox.has_killed_for_memory():
            document = documents.out_of_memory(identity.request_id(outcome.task_id))
            return replace(outcome, payload=document, failure=FailureKind.OUT_OF_MEMORY)
        return outcome


def _say(message: str) -> None:
    """A pull may take minutes, and a plugin has no other way to say so."""
    text = message if sys.stderr.isatty() else json.dumps({"time": round(time.time(), 3), "message": message})
    print(text, file=sys.stderr, flush=True)  # noqa: T201

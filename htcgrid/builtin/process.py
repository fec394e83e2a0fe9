"""The embedded plane: handlers run in child processes of the agent, on this machine."""

import os
import queue
from collections.abc import Collection, Iterator, Sequence

from pydantic import Field

from htcgrid.runtime.environment import ExecutionEnvironment, State
from htcgrid.runtime.framed import FramedEnvironment
from htcgrid.runtime.nursery import INHERITED, Nursery
from htcgrid.runtime.variables import this_python, variables
from htcgrid.spi import Capability, Function, Invoker, Lease, Outcome, Plugin, Rejected, Unstarted


class ProcessInvoker(Invoker):
    """A pool of worker processes, each an execution environment."""

    class Config(Plugin.Config):
        workers: int = Field(0, ge=0, description="environments side by side; 0: one a processor")
        inherit: tuple[str, ...] = Field((), description="names of this shell's variables that handlers may see")

    config: Config
    max_batch = 512
    capabilities = frozenset(Capability)

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self.max_concurrency = config.workers or len(os.sched_getaffinity(0))
        self._idle: queue.LifoQueue[ExecutionEnvironment] = queue.LifoQueue()
        self._all: list[ExecutionEnvironment] = []
        self._nursery: Nursery | None = None

    def open(self) -> None:
        self._check()
        self._nursery = Nursery(variables(self.function, this_python()), (*INHERITED, *self.config.inherit))
        self._nursery.open()
        for _ in range(self.max_concurrency):
            self._add()

    def close(self) -> None:
        for environment in self._all:
            environment.close()
        self._all.clear()
        if self._nursery is not None:
            self._nursery.close()
            self._nursery = None

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        environment = self._idle.get()
        try:
            yield from environment.invoke(batch, timeout)
        finally:
            if environment.state is State.GONE:
                self._all.remove(environment)
                environment.close()
                self._add()
            else:
                self._idle.put(environment)

    def cancel(self, task_ids: Collection[str]) -> None:
        for environment in list(self._all):
            environment.cancel(task_ids)

    def _add(self) -> None:
        assert self._nursery is not None  # noqa: S101 - between open and close
        environment = FramedEnvironment(self.function, self._nursery)
        environment.start()
        self._all.append(environment)
        self._idle.put(environment)

    def _check(self) -> None:
        function = self.function
        if not function.code.is_dir():
            message = f"[function] code = {str(function.code)!r}: there is no such folder. Name the folder of the handler."
            raise Rejected(message)
        if not function.handler:
            raise Rejected('[function] handler is missing. Write it as "module.function".')
        if function.runtime and function.runtime != this_python():
            message = (
                f"[function] runtime = {function.runtime!r}, but htcgrid runs on {this_python()} here. "
                f"Install htcgrid in that Python, or leave `runtime` out."
            )
            raise Rejected(message)

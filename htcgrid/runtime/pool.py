"""A plane made of execution environments: who is idle, who is lost, and what replaces it."""

import queue
import time
from abc import abstractmethod
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from htcgrid.runtime.calls import Calls
from htcgrid.runtime.environment import ExecutionEnvironment, State
from htcgrid.spi import (
    Credentials,
    EnvironmentEnded,
    EnvironmentStarted,
    Function,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Unavailable,
    Unstarted,
)

_IDLE_SECONDS = 0.001
_CLOSING_THREADS = 8


class EnvironmentPool(Invoker):
    """Places for environments, each used by one call at a time. The author of a plane says what fills a place.

    A place whose environment has ended is filled again; where that fails, the call raises `Unavailable` and the place
    stays to be filled by a later call, so that a plane that comes back serves again.
    """

    starts_early: bool = True
    """Whether `open` fills all places, and an environment that has ended is replaced at once. Else the call that finds
    an empty place fills it, in its own thread: several come up side by side, and none is started in vain."""

    def __init__(self, config: Plugin.Config, function: Function) -> None:
        super().__init__(config, function)
        self._places: list[ExecutionEnvironment | None] = []
        self._idle: queue.LifoQueue[int] = queue.LifoQueue()
        self._calls = Calls()
        self._last_idle = 0.0

    # --- what a plane says ---

    @abstractmethod
    def size(self) -> int:
        """How many environments there are at most. Asked when the plane is opened."""

    @abstractmethod
    def environment(self, place: int) -> ExecutionEnvironment:
        """A new environment for this place (from 0), not started. Raises `Unavailable` where none can be had now."""

    def before(self, environment: ExecutionEnvironment, place: int) -> None:
        """Called before an environment that is idle is given tasks."""

    def corrected(self, outcome: Outcome, place: int) -> Outcome:
        """The outcome, with what the engine knows better than the environment: how a container has ended."""
        return outcome

    def removed(self, environment: ExecutionEnvironment, place: int) -> None:
        """Called once an environment is closed and its place is free."""

    # --- htcgrid.spi.Invoker ---

    def open(self) -> None:
        self.credentials.current(self.function.timeout)  # where there are none, nothing is started
        self.max_concurrency = self.size()
        self._places = [None] * self.max_concurrency
        self._idle = queue.LifoQueue()
        for place in reversed(range(self.max_concurrency)):
            if self.starts_early:
                self._fill(place)
            self._idle.put(place)

    def close(self) -> None:
        filled = [place for place, environment in enumerate(self._places) if environment is not None]
        if filled:
            with ThreadPoolExecutor(min(_CLOSING_THREADS, len(filled))) as pool:
                list(pool.map(self._empty, filled))
        self._places = []
        self.credentials.close()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        with self._calls.call() as cancelled:
            place = self._idle.get()
            try:
                environment = self._ready(place, timeout)
                if type(self).corrected is EnvironmentPool.corrected:
                    yield from self._reports(environment, batch, timeout, cancelled)
                else:
                    for report in self._reports(environment, batch, timeout, cancelled):
                        yield self.corrected(report, place) if isinstance(report, Outcome) else report
            finally:
                self._put_back(place)

    def cancel(self, task_ids: Collection[str]) -> None:
        self._calls.cancel(task_ids)
        for environment in list(self._places):
            if environment is not None:
                environment.wake()

    # --- for the plane's own use ---

    def at(self, place: int) -> ExecutionEnvironment | None:
        """The environment in this place, None where it is empty."""
        return self._places[place]

    def is_one_idle(self) -> bool:
        """Whether an environment has had nothing to do for longer than it takes to be given the next task."""
        return not self._idle.empty() and time.monotonic() - self._last_idle > _IDLE_SECONDS

    def busy(self) -> int:
        """How many environments have tasks now."""
        return self.max_concurrency - self._idle.qsize()

    # --- places ---

    def _reports(
        self, environment: ExecutionEnvironment, batch: Sequence[Lease], timeout: float, cancelled: Collection[str]
    ) -> Iterator[Outcome | Unstarted]:
        reported: list[str] = []
        try:
            for report in environment.invoke(batch, timeout, cancelled):
                reported.append(report.task_id)
                yield report
        except Unavailable as error:
            # One runs after the other: the first of the rest may have run.
            left = [lease.task.id for lease in batch if lease.task.id not in set(reported)]
            raise Unavailable(str(error), error.retry_after, error.begun or left[:1]) from error

    def _ready(self, place: int, timeout: float) -> ExecutionEnvironment:
        environment = self._places[place]
        if environment is not None and (environment.is_lost() or self._has_outlived(environment.credentials, timeout)):
            self._empty(place)
            environment = None
        if environment is None:
            return self._fill(place)
        self.before(environment, place)
        return environment

    def _has_outlived(self, held: Credentials, timeout: float) -> bool:
        """Whether they might expire under an invocation that begins now, and others can be had."""
        return not held.lasts(timeout) and self.credentials.current(timeout).variables != held.variables

    def _fill(self, place: int) -> ExecutionEnvironment:
        environment = self._places[place] = self.environment(place)
        self.observers.tell(EnvironmentStarted(time.time(), environment.id))
        try:
            environment.credentials = self.credentials.current(self.function.timeout)
            environment.output = self.output
            environment.start()
        except BaseException:
            self._empty(place)
            raise
        return environment

    def _empty(self, place: int) -> None:
        environment, self._places[place] = self._places[place], None
        if environment is not None:
            environment.close()
            self.observers.tell(EnvironmentEnded(time.time(), environment.id))
            self.removed(environment, place)

    def _put_back(self, place: int) -> None:
        environment = self._places[place]
        try:
            if environment is not None and environment.state is State.GONE:
                self._empty(place)
                if self.starts_early:
                    self._fill(place)
        finally:
            self._last_idle = time.monotonic()
            self._idle.put(place)

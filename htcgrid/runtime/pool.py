"""A plane that consists of execution environments: it knows which are idle or have ended, and replaces the ended ones."""

import time
from abc import abstractmethod
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from htcgrid.runtime.calls import Calls
from htcgrid.runtime.environment import ExecutionEnvironment, State
from htcgrid.runtime.idle_places import IdlePlaces
from htcgrid.spi import (
    Credentials,
    EnvironmentEnded,
    EnvironmentStarted,
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Unavailable,
    Unstarted,
    error_documents,
)

_IDLE_SECONDS = 0.001
_CLOSING_THREADS = 8
_EARLY_SECONDS = 1.0
"""How long `open` waits, in all, for environments to initialise before it starts more. The others are started when needed."""


class EnvironmentPool(Invoker):
    """Places for environments, each used by one call at a time. The author of a plane makes the environments.

    A place whose environment has ended is filled again; if that fails, the call raises `Unavailable` and the place
    stays to be filled by a later call, so that a plane that comes back serves again.
    """

    starts_early: bool = True
    """Whether `open` fills all places, and an environment that has ended is replaced at once. Otherwise the call that finds
    an empty place fills it, in its own thread: several start in parallel, and none is started without a task."""

    def __init__(self, config: Plugin.Config, function: Function) -> None:
        super().__init__(config, function)
        self._places: list[ExecutionEnvironment | None] = []
        self._idle = IdlePlaces(0, 1)
        self._calls = Calls()
        self._last_idle = 0.0
        self._is_closed = False

    # --- what a plane says ---

    @abstractmethod
    def size(self) -> int:
        """The most environments that there may be; called when the plane is opened."""

    def starting_at_once(self) -> int:
        """How many environments may initialise at a time; called when the plane is opened. The default: all."""
        return self.max_concurrency

    @abstractmethod
    def environment(self, place: int) -> ExecutionEnvironment:
        """A new environment for this place (from 0), not started. Raises `Unavailable` if none can be made now."""

    def before(self, environment: ExecutionEnvironment, place: int) -> None:
        """Called before an idle environment gets tasks."""

    def corrected(self, outcome: Outcome, place: int) -> Outcome:
        """The outcome, corrected by what the engine knows better than the environment: how a container has ended."""
        return outcome

    def removed(self, environment: ExecutionEnvironment, place: int) -> None:
        """Called once an environment is closed, or could not be, and its place is free."""

    # --- htcgrid.spi.Invoker ---

    def open(self) -> None:
        self.credentials.current(self.function.timeout)  # without credentials nothing is started
        self.max_concurrency = self.size()
        self._is_closed = False
        self._places = [None] * self.max_concurrency
        self._idle = IdlePlaces(self.max_concurrency, self.starting_at_once(), self._is_loading)
        if self.starts_early:
            self._start_early()

    def close(self) -> None:
        self._is_closed = True  # a call that ends meanwhile starts no other environment
        filled = [place for place, environment in enumerate(self._places) if environment is not None]
        if filled:
            with ThreadPoolExecutor(min(_CLOSING_THREADS, len(filled))) as pool:
                list(pool.map(self._empty, filled))
        self._places = [None] * len(self._places)
        self.credentials.close()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        with self._calls.call() as cancelled:
            place = self._idle.take(lambda: any(lease.task.id in cancelled for lease in batch))
            if place is None:
                yield from _not_run(batch, cancelled)
                return
            has_failed = False
            try:
                environment = self._ready(place, timeout)
                if type(self).corrected is EnvironmentPool.corrected:
                    yield from environment.invoke(batch, timeout, cancelled)
                else:
                    for report in environment.invoke(batch, timeout, cancelled):
                        yield self.corrected(report, place) if isinstance(report, Outcome) else report
            except Exception:
                has_failed = True
                raise
            finally:
                self._put_back(place, refill=not has_failed)

    def cancel(self, task_ids: Collection[str]) -> None:
        self._calls.cancel(task_ids)
        self._idle.wake()
        for environment in list(self._places):
            if environment is not None:
                environment.wake()

    # --- for the plane's own use ---

    def at(self, place: int) -> ExecutionEnvironment | None:
        """The environment in this place; None if it is empty."""
        return self._places[place]

    def is_one_idle(self) -> bool:
        """Whether an environment has been idle for longer than it takes to give it the next task."""
        return self._idle.is_one_free() and time.monotonic() - self._last_idle > _IDLE_SECONDS

    def busy(self) -> int:
        """How many environments have tasks now."""
        return self.max_concurrency - len(self._idle)

    # --- places ---

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
        """Whether they might expire during an invocation that begins now, and the source has newer ones."""
        return not held.lasts(timeout) and self.credentials.current(timeout).variables != held.variables

    def _fill(self, place: int) -> ExecutionEnvironment:
        if self._is_closed:
            raise Unavailable("The plane is closed.")
        environment = self._places[place] = self.environment(place)
        self.observers.tell(EnvironmentStarted(time.time(), environment.id))
        try:
            environment.credentials = self.credentials.current(self.function.timeout)
            environment.output = self.output
            environment.when_initialised = partial(self._idle.started, place)
            environment.start()
        except BaseException:
            self._empty(place)
            raise
        return environment

    def _empty(self, place: int) -> None:
        environment, self._places[place] = self._places[place], None
        if environment is not None:
            try:
                environment.close()
            finally:
                self.observers.tell(EnvironmentEnded(time.time(), environment.id))
                self.removed(environment, place)

    def _put_back(self, place: int, *, refill: bool) -> None:
        """Free the place. After a call that has failed it is not refilled: an error of that would hide the call's own."""
        environment = self._places[place]
        try:
            if environment is not None and environment.state is State.GONE:
                self._empty(place)
        finally:
            self._last_idle = time.monotonic()
            self._idle.give(place, is_empty=self._places[place] is None)
        if (
            refill
            and not self._is_closed
            and self.starts_early
            and self._places[place] is None
            and (next_place := self._idle.begin()) is not None
        ):
            self._start(next_place)

    def _start_early(self) -> None:
        """Fill the places, until environments start so slowly that a task should not wait for the others."""
        left, begun = _EARLY_SECONDS, deque[int]()
        while left > 0 and self._idle.has_empty:
            place = self._idle.begin()
            if place is not None:
                begun.append(place)
                self._start(place)
                continue
            began = time.monotonic()
            environment = self._places[begun[0]]
            if environment is None or not environment.comes_up(left):
                return
            environment.when_initialised(environment.init_seconds)
            begun.popleft()
            left -= time.monotonic() - began

    def _start(self, place: int) -> None:
        """Fill a place that `begin` has given."""
        try:
            environment = self._fill(place)
            if environment.state is not State.STARTING:
                environment.when_initialised(None)
        finally:
            self._idle.give(place, is_empty=self._places[place] is None)

    def _is_loading(self, place: int) -> bool:
        environment = self._places[place]
        return environment is None or environment.is_loading()


def _not_run(batch: Sequence[Lease], cancelled: Collection[str]) -> Iterator[Outcome | Unstarted]:
    """The reports of a call that was cancelled before there was an environment for it."""
    for lease in batch:
        task_id = lease.task.id
        if task_id in cancelled:
            yield Outcome(task_id, error_documents.cancelled(), FailureKind.CANCELLED, started=time.time())
        else:
            yield Unstarted(task_id)

"""Events whose callers do not wait (`X-Amz-Invocation-Type: Event`). They have their own agent, which runs them."""

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

from htcgrid import plugins
from htcgrid.agent.agent import Agent
from htcgrid.agent.options import AgentOptions
from htcgrid.service import api_errors
from htcgrid.service.room import Room
from htcgrid.service.text import one_line
from htcgrid.spi import (
    FAILURES,
    FailureKind,
    Function,
    HtcgridError,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Result,
    ResultSink,
    Task,
    TaskSource,
    Unavailable,
    Unstarted,
)

_AWAY_SECONDS = 5.0
_RETRY_DELAY = 1.0


def event_options(options: AgentOptions) -> AgentOptions:
    """As on AWS Lambda, an event is tried three times, with a delay between the tries, unless `[agent]` says otherwise."""
    attempts = {kind: failure.event_attempts for kind, failure in FAILURES.items()} | dict(options.attempts)
    attempts.pop(FailureKind.INIT_ERROR, None)
    changes: dict[str, Any] = {"attempts": attempts, "init_errors_limit": 1 << 30}
    if "retry_delay" not in options.model_fields_set:
        changes["retry_delay"] = _RETRY_DELAY
    return options.model_copy(update=changes)


class Events:
    """A bounded queue in memory, and the agent that runs its events. Final failures are reported."""

    def __init__(
        self, invoker: Invoker, options: AgentOptions, most: int, room: Room, report: Callable[[str], None]
    ) -> None:
        self._most = most
        self._room = room
        self._report = report
        self._lock = threading.Lock()
        self._is_done = threading.Condition(self._lock)
        self._sizes: dict[str, int] = {}
        self._failed = 0
        self._is_closed = False
        """Whether no more events are accepted."""
        self._is_over = threading.Event()
        self._source = _endless_queue(invoker.function)
        self._plane, self._options = _Tried(invoker), options
        self._sink = _Told(invoker.function, self._done)
        self._agent = self._new_agent()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many events wait or run."""
        return len(self._sizes)

    def close(self) -> None:
        """Accept no more events; those that wait are run."""
        self._is_closed = True

    def stop(self, seconds: float) -> str:
        """End the agent once all events have run, or after `seconds`. Returns a text that says how many were not run and
        how many failed; empty if none."""
        self.close()
        with self._is_done:
            self._is_done.wait_for(lambda: not self._sizes or self._is_over.is_set(), seconds)
        self._is_over.set()
        with self._lock:
            self._agent.drain(0.0)
        self._thread.join()
        left = len(self._sizes)
        parts = [f"events not run: {left}"] * bool(left) + [f"events failed: {self._failed}"] * bool(self._failed)
        return ", ".join(parts)

    def put(self, task: Task) -> None:
        if self._is_closed:
            raise api_errors.ServiceError("The service no longer runs events: it is ending, or the plane rejected one.")
        size = len(task.payload)
        self._room.take(size)
        with self._lock:
            is_taken = len(self._sizes) < self._most
            if is_taken:
                self._sizes[task.id] = size
        if not is_taken:
            self._room.release(size)
            raise api_errors.TooManyRequests("Rate Exceeded.")
        self._source.put([task])

    def _done(self, results: Sequence[Result]) -> None:
        for result in results:
            with self._lock:
                size = self._sizes.pop(result.task.id, 0)
                self._failed += result.outcome.failure is not None
                if not self._sizes:
                    self._is_done.notify_all()
            self._room.release(size)
            if result.outcome.failure is not None:
                document = one_line(result.outcome.payload.decode(errors="replace"))
                self._report(f"Event {result.task.id} failed after {result.attempt} tries: {document}")

    def _new_agent(self) -> Agent:
        return Agent(
            self._source, self._plane, self._sink, self._options, self._report, observers=self._plane.observers
        )

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                try:
                    self._agent.run()
                except Unavailable as error:
                    # The agent has given up after `unavailable_limit`; a new agent runs the events that wait.
                    self._report(f"Events wait: {one_line(str(error))}")
                    with self._lock:
                        self._agent = self._new_agent()
                    self._is_over.wait(_AWAY_SECONDS)
        except HtcgridError as error:
            self._report(f"The service no longer runs events: {one_line(str(error))}")
        finally:
            self._is_closed = True
            self._is_over.set()
            with self._is_done:
                self._is_done.notify_all()


def _endless_queue(function: Function) -> Any:
    """A source that is a queue too: both `TaskSource` and `TaskQueue`."""
    plugin = plugins.load(TaskSource, "memory")
    return plugin(plugin.Config.model_validate({"endless": True, "lease_seconds": 3600}), function)


class _Tried(Invoker):
    """The plane, with initialisation errors as handler errors: they count as tries of the event, as on AWS Lambda.

    An agent would keep such a task until the function is corrected; but the function that is served here never changes.
    """

    def __init__(self, plane: Invoker) -> None:
        super().__init__(plane.config, plane.function)
        self._plane = plane
        self.max_batch, self.observers = plane.max_batch, plane.observers
        self.capabilities, self.output = plane.capabilities, plane.output

    @property
    def max_concurrency(self) -> int:  # type: ignore[override]
        return self._plane.max_concurrency

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        for item in self._plane.invoke(batch, timeout):
            if isinstance(item, Outcome) and item.failure is FailureKind.INIT_ERROR:
                yield replace(item, failure=FailureKind.HANDLER_ERROR)
            else:
                yield item

    def cancel(self, task_ids: Collection[str]) -> None:
        self._plane.cancel(task_ids)


class _Told(ResultSink):
    """Passes results to `tell` and stores none: nobody reads the answer to an event."""

    max_batch = 1000

    def __init__(self, function: Function, tell: Callable[[Sequence[Result]], None]) -> None:
        super().__init__(Plugin.Config(), function)
        self._tell = tell

    def put(self, results: Sequence[Result]) -> None:
        self._tell(results)

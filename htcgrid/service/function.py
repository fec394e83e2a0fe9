"""One served function: its plane, who may come in, and the events that nobody waits for."""

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from htcgrid.agent.agent import Agent
from htcgrid.agent.policy import RetryPolicy, Rules
from htcgrid.service import errors
from htcgrid.service.events import EventSink, event_queue
from htcgrid.spi import FailureKind, HtcgridError, Invoker, Lease, Outcome, Rejected, Task, TaskQueue

_EVENT_TRIES = 3
_EVENT_RETRIES = dict.fromkeys(
    (
        FailureKind.HANDLER_ERROR,
        FailureKind.INIT_ERROR,
        FailureKind.TIMEOUT,
        FailureKind.EXIT,
        FailureKind.OUT_OF_MEMORY,
    ),
    _EVENT_TRIES,
)


class ServedFunction:
    """Answers calls of one function. Any thread may call `invoke` and `queue`."""

    def __init__(self, invoker: Invoker, waiting: int, report: Callable[[str], None]) -> None:
        self._invoker = invoker
        self._places = invoker.max_concurrency + waiting
        self._callers = 0
        self._lock = threading.Lock()
        self._running = threading.BoundedSemaphore(invoker.max_concurrency)
        self._events = event_queue(invoker.function)
        # As on the service: an event is tried three times in all, the later ones after a while.
        rules = Rules(retries=RetryPolicy(attempts=_EVENT_RETRIES, first_delay=1.0), init_errors_limit=1 << 30)
        self._agent = Agent(self._events, invoker, EventSink(invoker.function, report), rules, report)
        self._thread = threading.Thread(target=self._run_events, args=(report,), name="events", daemon=True)

    @property
    def memory(self) -> int:
        return self._invoker.function.memory

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> int:
        """End the events' agent; returns how many events were not run."""
        self._agent.drain()
        self._thread.join()
        assert isinstance(self._events, TaskQueue)  # noqa: S101
        return self._events.depth().waiting or 0

    def invoke(self, payload: bytes, client_context: str) -> Outcome:
        """Run one call now; raises `ServiceError` where the service would not run it."""
        task = _task(payload, client_context)
        with self._admitted():
            while True:
                try:
                    outcomes = list(self._invoker.invoke([Lease(task)], self._invoker.function.timeout))
                except Rejected as error:
                    raise errors.InvalidParameterValue(str(error)) from error
                except HtcgridError as error:
                    raise errors.ServiceError(str(error)) from error
                for outcome in outcomes:
                    if isinstance(outcome, Outcome):
                        return outcome

    def queue(self, payload: bytes, client_context: str) -> None:
        """Have one event run later."""
        assert isinstance(self._events, TaskQueue)  # noqa: S101 - the memory source is one
        self._events.put([_task(payload, client_context)])

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        with self._lock:
            if self._callers >= self._places:
                raise errors.TooManyRequests("Rate Exceeded.")
            self._callers += 1
        try:
            with self._running:
                yield
        finally:
            with self._lock:
                self._callers -= 1

    def _run_events(self, report: Callable[[str], None]) -> None:
        try:
            self._agent.run()
        except HtcgridError as error:
            report(f"Events are not run any more: {error}")


def _task(payload: bytes, client_context: str) -> Task:
    payload = payload or b"{}"
    try:
        json.loads(payload)
    except ValueError as error:
        raise errors.InvalidRequestContent(f"Could not parse request body into json: {error}") from error
    return Task(str(uuid.uuid4()), payload, {"client_context": client_context} if client_context else {})

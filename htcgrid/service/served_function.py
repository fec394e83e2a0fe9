"""One served function: its plane, how many calls may wait, and the events whose callers do not wait."""

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from htcgrid.agent.cancelling import try_to_cancel
from htcgrid.agent.log_tails import invoke_of
from htcgrid.service import api_errors
from htcgrid.service.events import Events
from htcgrid.spi import Answered, FailureKind, HtcgridError, Invoker, Lease, Outcome, Rejected, Result, Task, Throttled
from htcgrid.spi.tracing import within_attempt

_UNSTARTED_LIMIT = 10
"""How often a plane may report that it has not begun a call."""
_LOOK_SECONDS = 0.1
"""Seconds after which a call that waits looks again whether the plane's concurrency has grown."""


class ServedFunction:
    """Answers calls of one function. Any thread may call `invoke` and `queue`."""

    def __init__(self, invoker: Invoker, waiting: int, events: Events) -> None:
        self._invoker = invoker
        self._plane_invoke = invoke_of(invoker)
        self._waiting = waiting
        self._callers = self._running = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._events = events
        self._tasks: set[str] = set()
        """The task ids of the calls that run."""
        self._is_ending = False

    @property
    def region(self) -> str:
        """The AWS region that its handler sees."""
        return self._invoker.function.aws_region

    @property
    def memory(self) -> int:
        return self._invoker.function.memory

    def start(self) -> None:
        self._events.start()

    @property
    def events(self) -> int:
        """How many events wait or run."""
        return self._events.waiting

    def close(self) -> None:
        """Accept no more events."""
        self._events.close()

    def stop(self, seconds: float) -> str:
        """End the agent of the events, which has `seconds` to run those that wait; see `Events.stop`."""
        return self._events.stop(seconds)

    def cancel(self) -> bool:
        """End the calls that run, and do not begin those that wait. Returns whether any ran."""
        self._is_ending = True
        try_to_cancel(self._invoker, list(self._tasks))
        return self._running > 0

    def invoke(self, body: Callable[[], bytes], attributes: Mapping[str, str]) -> Outcome:
        """Run one call now. Raises `ServiceError` if AWS Lambda would refuse it.

        `body` reads the event; it is called only once the call is admitted.
        """
        with self._admitted():
            began = time.monotonic()
            task = _task(body(), attributes)
            with self._slot():
                self._tasks.add(task.id)
                try:
                    outcome = self._run(task)
                finally:
                    self._tasks.discard(task.id)
        if self._invoker.observers.is_watched:
            self._invoker.observers.tell(Answered(time.time(), Result(task, outcome), time.monotonic() - began))
        return outcome

    def queue(self, payload: bytes, attributes: Mapping[str, str]) -> str:
        """Accept one event that is run later; returns its request id."""
        task = _task(payload, attributes)
        self._events.put(task)
        return task.id

    def _run(self, task: Task) -> Outcome:
        lease = Lease(task)
        if (trace := self._invoker.observers.trace) is not None:
            lease = within_attempt(lease, trace)
        try:
            for _ in range(_UNSTARTED_LIMIT):
                for item in list(self._plane_invoke([lease], self._invoker.function.timeout)):
                    if isinstance(item, Outcome):
                        if item.failure is FailureKind.CANCELLED:
                            raise _ended()
                        return item
        except Throttled as error:
            raise api_errors.TooManyRequests(str(error)) from error
        except Rejected as error:
            raise api_errors.InvalidParameterValue(str(error)) from error
        except HtcgridError as error:
            raise api_errors.ServiceError(str(error)) from error
        raise api_errors.ServiceError(f"The plane did not begin this call in {_UNSTARTED_LIMIT} tries.")

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        with self._lock:
            if self._callers >= self._invoker.max_concurrency + self._waiting:
                raise api_errors.TooManyRequests("Rate Exceeded.")
            self._callers += 1
        try:
            yield
        finally:
            with self._lock:
                self._callers -= 1

    @contextmanager
    def _slot(self) -> Iterator[None]:
        with self._changed:
            while self._running >= self._invoker.max_concurrency and not self._is_ending:
                self._changed.wait(_LOOK_SECONDS)
            if self._is_ending:
                raise _ended()
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify()


def _ended() -> api_errors.ServiceError:
    return api_errors.ServiceError("The service ended before this call was answered.")


def _task(payload: bytes, attributes: Mapping[str, str]) -> Task:
    payload = payload or b"{}"
    try:
        # This only checks: numbers stay text, because Python refuses to convert very long ones.
        json.loads(payload.decode(), parse_int=str, parse_float=str, parse_constant=_not_json)
    except (ValueError, RecursionError) as error:
        raise api_errors.InvalidRequestContent(f"Could not parse request body into json: {error}") from None
    return Task(str(uuid.uuid4()), payload, attributes)


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

"""One execution environment and its supervision, for every transport.

    starting ──ready──▶ idle ◀──answered── busy
        │                 │                  │
        └────────┬────────┴── ended, or stopped for its time, memory or a cancel
                 ▼
               gone

A transport subclasses `ExecutionEnvironment`: it moves tasks to the handler and answers back, and says which task runs and
since when. This class does the rest for all transports: timeout, end of the process, memory, cancel, sizes. It has no thread
of its own: the thread that calls `invoke` supervises.
"""

import logging
import math
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from htcgrid.runtime import identity
from htcgrid.spi import (
    Credentials,
    FailureKind,
    Function,
    HandlerOutput,
    Lease,
    Outcome,
    Unavailable,
    Unstarted,
    error_documents,
    limits,
)

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.05
"""How often a running handler's memory and cancellation are checked."""
_SHORTEST_LOOK_SECONDS = 0.005
_CHATTY_SECONDS = 0.001
"""The same while the handler prints much, because it waits when its log is full."""
_RECALL_SECONDS = 0.002
"""How long a task may run before the tasks behind it in the batch go to an idle environment."""
_BEHIND_SECONDS = 0.05
"""How long a task may run before the tasks behind it are taken back even if no environment is idle."""
_SPARE_SECONDS = 0.004
"""How often to check whether another environment is idle while tasks wait in this one."""


class State(StrEnum):
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Running:
    """The running invocation: its sequence number and its start on the monotonic clock, in seconds."""

    sequence: int
    since: float


@dataclass(frozen=True, slots=True)
class InitFailure:
    """An environment that did not become ready, with the error document that says why.

    `log_tail` is what it printed, if that came with the report.
    """

    document: bytes
    log_tail: bytes = b""


class ExecutionEnvironment(ABC):
    """A place where one invocation runs at a time. Only one thread may use it at a time, except for `cancel`."""

    def __init__(self, function: Function) -> None:
        self.id = identity.environment_id()
        self.state = State.STARTING
        self.credentials = Credentials()
        """The credentials that the handler finds; set before `start`."""
        self.output = HandlerOutput()
        """Receives everything that it prints; set before `start`."""
        self.when_initialised: Callable[[float | None], None] = lambda _seconds: None
        """Called by the thread that uses it once it is known whether it becomes ready, with how long that took if it has."""
        self._function = function
        self._pending: dict[int, Lease] = {}
        self._sequence = 0
        self._cancelled: Collection[str] = frozenset()
        self._init_ms: float | None = None
        self._created = time.monotonic()
        self._peak_mb = self._weighed_mb = 0.0

    # --- what a transport provides ---

    @abstractmethod
    def start(self) -> None:
        """Start the process; do not wait until it is ready."""

    @abstractmethod
    def _submit(self, timeout: float) -> None:
        """Pass on the pending tasks, in order."""

    @abstractmethod
    def _collect(self, wait: float) -> Sequence[Outcome | Unstarted]:
        """Read what the environment sends, for at most `wait` seconds or until it sends something.

        Sets `_init_ms` when it has become ready. The leases of returned outcomes are removed from
        `_pending`; answers to tasks that are no longer pending are dropped.
        """

    @abstractmethod
    def _init_failure(self) -> InitFailure | None:
        """The initialisation error that the environment has reported, or None."""

    @abstractmethod
    def _running(self) -> Running | None:
        """The invocation that runs now."""

    @abstractmethod
    def _has_ended(self) -> bool:
        """Whether the process has ended."""

    @abstractmethod
    def _end(self) -> int:
        """End the process if it has not ended; returns its exit status, a signal being negative."""

    @abstractmethod
    def _memory_mb(self) -> float:
        """An upper bound of the MiB in use now; 0 if something else enforces the limit."""

    @abstractmethod
    def _log_tail(self) -> bytes:
        """The end of what was printed since the last answer."""

    @abstractmethod
    def close(self) -> None:
        """End the process and release everything."""

    def _variables(self) -> dict[str, str]:
        """The variables of this environment that are not the function's."""
        stream = f"{time.strftime('%Y/%m/%d')}/[$LATEST]{self.id}"
        return {"AWS_LAMBDA_LOG_STREAM_NAME": stream, **self.credentials.variables}

    def _recall(self, running: Running) -> None:  # noqa: B027 - one that gets a task at a time has nothing to recall
        """Tell the environment to drop the tasks behind `running`; it reports each as dropped."""

    def _others_idle(self) -> bool:
        """Whether another environment could run the tasks that wait here."""
        return True

    def _charged_mb(self) -> float:
        """As `_memory_mb`, as exactly as possible; called when that has grown or is above the limit."""
        return self._memory_mb()

    def _is_chatty(self) -> bool:
        """Whether it prints so much that its log must be read more often; `_memory_mb` reads it."""
        return False

    def _was_out_of_memory(self) -> bool:
        """Whether something other than this supervisor ended the process at its memory limit."""
        return False

    # --- invoking ---

    def invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str] = frozenset()
    ) -> Iterator[Outcome | Unstarted]:
        """Run these one after the other; see `htcgrid.spi.Invoker.invoke`.

        `cancelled` may grow meanwhile, and what is in it before this is called counts too: see `htcgrid.runtime.calls`.
        """
        self._cancelled = cancelled
        try:
            most = limits.REQUEST_BYTES
            fitting = [lease for lease in batch if len(lease.task.payload) <= most]
            if len(fitting) < len(batch):
                for lease in batch:
                    if (size := len(lease.task.payload)) > most:
                        yield self._outcome(
                            lease, FailureKind.PAYLOAD_TOO_LARGE, error_documents.request_too_large(size)
                        )
            self._pending.update(enumerate(fitting, self._sequence + 1))
            self._sequence += len(fitting)
            if self._pending and self.state is State.STARTING:
                try:
                    yield from self._become_ready(timeout)
                finally:
                    self.when_initialised(self.init_seconds)
            if self._pending:
                self.state = State.BUSY
                self._submit(timeout)
                yield from self._supervise(timeout)
        except Unavailable as error:
            # Tasks run one after the other, so only the first of the others may have begun; none before they were submitted.
            left = [lease.task.id for lease in self._pending.values()] if self.state is State.BUSY else []
            raise Unavailable(str(error), error.retry_after, error.begun or left[:1]) from error
        finally:
            if self._pending or self.state is State.BUSY:
                self._pending.clear()
                self.state = State.GONE
                self._end()

    def cancel(self, task_ids: Collection[str]) -> None:
        """Stop those of these tasks that are here; for a plane without `Calls`. Any thread may call it."""
        self._cancelled = frozenset(self._cancelled).union(task_ids)

    def wake(self) -> None:  # noqa: B027 - one that looks often needs no waking
        """Check now whether a task was cancelled. Any thread may call it."""

    @property
    def init_seconds(self) -> float | None:
        """How long it took to become ready, before its first task; None if it did not."""
        return None if self._init_ms is None else self._init_ms / 1000

    def comes_up(self, wait: float) -> bool:
        """Whether it becomes ready within this time, before it is given a task. A failure is reported with its first task."""
        deadline = time.monotonic() + wait
        while not self._is_up() and self._init_failure() is None and not self._has_ended():
            left = deadline - time.monotonic()
            if left <= 0:
                break
            self._collect(min(left, self._look_seconds()))
        return self._is_up()

    def is_loading(self) -> bool:
        """Whether it keeps a processor busy while it initialises, as far as is known. Any thread may call it."""
        return True

    def _starved_seconds(self) -> float:
        """How long it waited for a processor while it initialised; 0 if that is not known."""
        return 0.0

    def _is_up(self) -> bool:
        return self._init_ms is not None

    def is_lost(self) -> bool:
        """Whether it ended while no task ran: it must be replaced before it gets a task."""
        return self.state is State.IDLE and self._has_ended()

    def _become_ready(self, timeout: float) -> Iterator[Outcome | Unstarted]:
        # AWS Lambda stops an initialisation after 10 s, starts once more and counts the function's time then. For an
        # environment that was started long ago the 10 s are over, but what it has sent is read before the deadline counts.
        deadline = max(self._created + limits.INIT_SECONDS, time.monotonic()) + timeout
        while not self._is_up():
            self._collect(min(self._look_seconds(), max(_SHORTEST_LOOK_SECONDS, deadline - time.monotonic())))
            if self._is_up():
                break
            first = next(iter(self._pending.values()))
            request = identity.request_id(first.task.id)
            failure = self._init_failure()
            if failure is not None:
                yield from self._give_up(FailureKind.INIT_ERROR, failure.document, failure.log_tail)
            elif self._has_ended():
                kind, document = self._cause_of_end(request)
                # SIGKILL comes from outside, for example from the kernel when memory is short: not an error of the function.
                if kind is FailureKind.EXIT and self._end() != -signal.SIGKILL:
                    kind = FailureKind.INIT_ERROR
                yield from self._give_up(kind, document)
            elif self._exceeds_memory():
                yield from self._give_up(FailureKind.OUT_OF_MEMORY, error_documents.out_of_memory(request))
            elif time.monotonic() > deadline + self._starved_seconds():
                document = error_documents.timed_out(request, deadline - self._created)
                yield from self._give_up(FailureKind.INIT_ERROR, document)
            elif first.task.id in self._cancelled:
                yield from self._give_up(FailureKind.CANCELLED, error_documents.cancelled())
            else:
                continue
            return
        self.state = State.IDLE
        log.info("Environment %s is ready; its start took %.0f ms.", self.id, self._init_ms or 0.0)

    def _give_up(self, kind: FailureKind, document: bytes, log_tail: bytes = b"") -> Iterator[Outcome | Unstarted]:
        """End an environment that did not become ready; the failure is reported for its first task."""
        self._end()
        self.state = State.GONE
        log.info("Environment %s did not become ready: %s.", self.id, kind)
        sequence = next(iter(self._pending))
        yield self._outcome(self._pending.pop(sequence), kind, document, log_tail=log_tail or self._log_tail())
        yield from self._return_the_rest()

    def _supervise(self, timeout: float) -> Iterator[Outcome | Unstarted]:
        looked = heard = time.monotonic()
        recalled = False
        while True:
            outcomes = self._collect(self._wait_seconds(timeout, recalled=recalled))
            yield from outcomes
            if not self._pending:
                self.state = State.IDLE
                return
            now = time.monotonic()
            running = self._running()
            if self._has_ended():
                yield from self._collect(0)
                yield from self._after_the_end(self._running(), None, timeout)
                return
            if running is not None:
                stop = self._reason_to_stop(running, now, timeout, look=now - looked >= self._look_seconds())
                if stop is not None:
                    self._recall(running)  # it may answer before it is ended: none behind it must begin then
                    self._end()
                    yield from self._collect(0)
                    yield from self._after_the_end(running, stop, timeout)
                    return
                if len(self._pending) > 1 and not recalled and self._is_long(now - running.since):
                    recalled = True
                    yield from self._take_back(running)
            if running is not None or outcomes:
                heard = now
            elif now - heard > limits.INIT_SECONDS + timeout:
                # It has answered and does not ask for the next task: the other tasks go to another environment.
                self._end()
                yield from self._after_the_end(None, None, timeout)
                return
            if now - looked >= self._look_seconds():
                looked = now

    def _wait_seconds(self, timeout: float, *, recalled: bool) -> float:
        """How long to wait before the next check of the environment."""
        if len(self._pending) > 1 and not recalled:
            return self._spare_seconds()
        running = self._running()
        left = running.since + timeout - time.monotonic() if running else _LOOK_SECONDS
        return min(self._look_seconds(), max(0.001, left))

    def _spare_seconds(self) -> float:
        return _SPARE_SECONDS

    def _look_seconds(self) -> float:
        return _CHATTY_SECONDS if self._is_chatty() else _LOOK_SECONDS

    def _is_long(self, seconds: float) -> bool:
        """Whether a task that has run for this time delays the tasks behind it."""
        return seconds > _BEHIND_SECONDS or (seconds > _RECALL_SECONDS and self._others_idle())

    def _reason_to_stop(self, running: Running, now: float, timeout: float, *, look: bool) -> FailureKind | None:
        lease = self._pending.get(running.sequence)
        if lease is not None and lease.task.id in self._cancelled:
            return FailureKind.CANCELLED
        if now - running.since >= timeout:
            return FailureKind.TIMEOUT
        if look and self._exceeds_memory():
            return FailureKind.OUT_OF_MEMORY
        return None

    def _exceeds_memory(self) -> bool:
        return self._weigh() > self._function.memory

    def _weigh(self) -> float:
        """MiB in use now; measured exactly, and noted as the peak, if it has grown by 5 % since the last exact measurement."""
        used = self._memory_mb()
        if used > min(self._function.memory, self._weighed_mb * 1.05):
            self._weighed_mb, used = used, self._charged_mb()
            self._peak_mb = max(self._peak_mb, used)
        return used

    def _take_back(self, running: Running) -> Iterator[Unstarted]:
        """Free the tasks behind a long one for other environments."""
        self._recall(running)
        # Now the worker sees the recall before it begins another task. If the same task still runs, none behind it has
        # begun; if not, the worker itself reports which were dropped. If it has ended, what it noted last is seen later.
        time.sleep(0.001)
        still = self._running()
        if still is not None and still.sequence == running.sequence and not self._has_ended():
            for sequence in [number for number in self._pending if number > running.sequence]:
                yield Unstarted(self._pending.pop(sequence).task.id)

    def _after_the_end(
        self, running: Running | None, stop: FailureKind | None, timeout: float
    ) -> Iterator[Outcome | Unstarted]:
        """Report the task whose environment has ended; those behind it never began."""
        self.state = State.GONE
        lease = self._pending.pop(running.sequence, None) if running is not None else None
        if lease is None and stop is not None and (begun := self._running()) and begun.sequence in self._pending:
            raise Unavailable(
                "An environment was ended for one task when it had just begun another one.",
                begun=[self._pending[begun.sequence].task.id],
            )
        if lease is not None and running is not None:
            request = identity.request_id(lease.task.id)
            elapsed = time.monotonic() - running.since
            kind: FailureKind
            try:
                if stop is FailureKind.TIMEOUT:
                    kind, document = stop, error_documents.timed_out(request, timeout)
                elif stop is FailureKind.CANCELLED:
                    kind, document = stop, error_documents.cancelled()
                elif stop is FailureKind.OUT_OF_MEMORY:
                    kind, document = stop, error_documents.out_of_memory(request)
                else:
                    kind, document = self._cause_of_end(request)
                log_tail = self._log_tail()
            except Unavailable as error:  # its parent or its engine has gone too, perhaps because of this very task
                raise Unavailable(str(error), error.retry_after, begun=[lease.task.id]) from error
            log.info("Environment %s has ended while it ran the task %s: %s.", self.id, lease.task.id, kind)
            yield self._outcome(lease, kind, document, elapsed, log_tail)
        else:
            log.info("Environment %s has ended while it ran no task.", self.id)
        yield from self._return_the_rest()

    def _cause_of_end(self, request: str) -> tuple[FailureKind, bytes]:
        status = self._end()
        if self._was_out_of_memory():
            return FailureKind.OUT_OF_MEMORY, error_documents.out_of_memory(request)
        return FailureKind.EXIT, error_documents.exited(request, status)

    def _return_the_rest(self) -> Iterator[Unstarted]:
        while self._pending:
            yield Unstarted(self._pending.pop(next(iter(self._pending))).task.id)

    def _outcome(
        self, lease: Lease, kind: FailureKind, document: bytes, elapsed: float = 0.0, log_tail: bytes = b""
    ) -> Outcome:
        """A failure that the supervisor has seen."""
        return Outcome(
            lease.task.id,
            document,
            kind,
            started=time.time() - elapsed,
            duration_ms=elapsed * 1000,
            billed_ms=math.ceil(elapsed * 1000),
            max_memory_mb=math.ceil(self._peak_mb),
            log_tail=log_tail,
            environment=self.id,
        )

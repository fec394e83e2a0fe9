"""One thread that keeps one execution environment busy."""

import time
from collections.abc import Callable

from htcgrid.agent.backoff import LONGEST_SECONDS
from htcgrid.agent.extender import Extender
from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.log_tails import invoke_of
from htcgrid.agent.outcomes import Outcomes
from htcgrid.agent.shared import Shared
from htcgrid.spi import Ended, Invoker, Lease, Outcome, Started, Throttled, Unavailable
from htcgrid.spi.tracing import within_attempt

_PAUSE_SECONDS = 0.005
"""The pause after a batch of which no task was begun: a plane that begins no tasks must not keep a processor busy."""
_LONG_SECONDS = 0.2
"""After a batch that took longer, the source is always asked whether tasks of the next one were cancelled."""


class Slot:
    """Takes leases, calls the plane to run their tasks, and passes on each outcome."""

    def __init__(
        self,
        invoker: Invoker,
        leases: LeaseTable,
        outcomes: Outcomes,
        extender: Extender,
        shared: Shared,
    ) -> None:
        self._invoker = invoker
        self._plane_invoke = invoke_of(invoker)
        self._leases = leases
        self._extender = extender
        self._outcomes = outcomes
        self._shutdown = shared.shutdown
        self._observers = shared.observers
        self._statistics = shared.statistics
        self._throttled: Callable[[], None] = lambda: None
        self._back_off = shared.back_off()
        self._number = leases.new_slot()

    def run(self, throttled: Callable[[], None]) -> None:
        """Run until there are no more tasks or the slot must end; `throttled` is called when the plane has throttled."""
        self._throttled = throttled
        leases, suspects = self._leases, self._outcomes.suspects
        began = ended = 0.0
        while batch := leases.take(self._number):
            if leases.is_full:
                leases.wait_for_space(self._shutdown)
            if leases.has_waited(self._number):
                self._extender.drop_lost(batch, after_long=ended - began > _LONG_SECONDS)
                if not batch:
                    continue
            began = time.monotonic()
            self._back_off.was_not_called_for(began - ended)
            if suspects.known and any(task_id in suspects for task_id in batch):
                self._set_apart(batch)
            else:
                self._attempt(batch)
            ended = time.monotonic()

    def _attempt(self, batch: dict[str, Lease]) -> None:
        if self._shutdown.is_set():
            self._leases.return_now(*batch.values())
            batch.clear()
            return
        try:
            if self._observers.is_watched:
                self._invoke_observed(batch)
            else:
                self._invoke(batch)
        except Unavailable as error:
            blamed = [self._outcomes.unavailable(lease, error) for lease in batch.values()]
            batch.clear()
            is_throttled = isinstance(error, Throttled)
            if is_throttled:
                self._throttled()
                self._back_off.forget_before(self._statistics.last)  # the plane answers other slots: it is available
            if any(blamed):
                self._was_accepted()  # the task is the cause, so the plane was available
            elif error.begun:
                self._back_off.forget_before(self._outcomes.suspects.answered)
            else:
                self._back_off.has_answered_others(self._outcomes.suspects.answered)
            if not is_throttled and not any(blamed):
                self._leases.prefetch.refused(self._number)
            longest = self._back_off.longest_of_throttle() if is_throttled else LONGEST_SECONDS
            self._back_off.wait(error, longest, runs_others=self._leases.runs_others())
        else:
            self._was_accepted()

    def _was_accepted(self) -> None:
        self._leases.prefetch.accepted(self._number)
        self._back_off.reset()

    def _set_apart(self, batch: dict[str, Lease]) -> None:
        """Run the suspects of this batch one at a time; put the other tasks back for other slots."""
        suspects, mine = self._outcomes.suspects, None
        for lease in reversed(batch.values()):
            if lease.task.id not in suspects:
                self._leases.put_back(lease)
            elif suspects.begin(lease):
                mine = lease
        batch.clear()
        while mine is not None:
            if self._leases.is_lost(mine.task.id):
                self._leases.drop([mine.task.id])
            else:
                self._attempt(self._leases.run(self._number, [mine]))
            mine = suspects.next()

    def _invoke_observed(self, running: dict[str, Lease]) -> None:
        leases, began = list(running.values()), time.monotonic()
        self._observers.tell(Started(time.time(), leases, self._number))
        try:
            self._invoke(running)
        finally:
            self._observers.tell(Ended(time.time(), leases, self._number, time.monotonic() - began))

    def _invoke(self, running: dict[str, Lease]) -> None:
        """Run these; each is removed from `running` as it ends."""
        suspected, batch = self._outcomes.suspects.known, list(running.values())
        if (trace := self._observers.trace) is not None:
            batch = [within_attempt(lease, trace) for lease in batch]
        ended, failed = self._outcomes.succeeded, self._outcomes.failed
        busy_ms = 0.0
        done = 0
        began = time.monotonic()
        for item in self._plane_invoke(batch, self._invoker.function.timeout):
            lease = running.pop(item.task_id, None)
            if lease is None:
                raise self._bug(f"reported {item.task_id!r} twice, or though it was not in the batch")
            if not isinstance(item, Outcome):
                self._outcomes.not_begun(lease, "it was reported as not begun")
                continue
            if suspected and item.task_id in suspected:
                self._outcomes.suspects.settle(item.task_id)
            busy_ms += item.duration_ms
            done += 1
            if item.failure is None:
                ended(lease, item)
            else:
                failed(lease, item)
        if running:
            raise self._bug(f"ended without an outcome for {', '.join(sorted(running))}")
        if done:
            suspects = self._outcomes.suspects
            suspects.answered = max(suspects.answered, began)
            self._leases.prefetch.learn(busy_ms / 1000, done, self._invoker.max_batch)
        else:
            self._shutdown.wait(_PAUSE_SECONDS)

    def _bug(self, what: str) -> RuntimeError:
        return RuntimeError(f"{type(self._invoker).__name__}.invoke {what}. This is a bug in the plugin.")

"""One thread that keeps one execution environment busy."""

import logging
import random
import time
from collections.abc import Sequence

from htcgrid.agent import documents
from htcgrid.agent.delivery import Delivery
from htcgrid.agent.halt import Halt
from htcgrid.agent.patience import Patience
from htcgrid.agent.policy import RetryPolicy, Verdict, batch_size
from htcgrid.agent.quarantine import Quarantine
from htcgrid.agent.stock import Stock
from htcgrid.agent.suspects import Suspects
from htcgrid.spi import FailureKind, Invoker, Lease, Outcome, Result, Unavailable

log = logging.getLogger(__name__)

_SIGNAL_SECONDS = 0.2
"""Who signals a whole group of processes ends a handler a moment before our own signal is heeded."""

_PAUSE_SECONDS = 0.005
"""After a batch of which nothing was begun, so that a plane that begins nothing costs no processor."""


class Pace:
    """The mean time of a task, learnt by all slots together; recent tasks weigh more."""

    def __init__(self) -> None:
        self.mean_seconds: float | None = None
        self.batch = 1

    def learn(self, busy_seconds: float, tasks: int, most: int) -> None:
        mean = busy_seconds / tasks
        old = self.mean_seconds
        self.mean_seconds = mean if old is None else old + (mean - old) * 0.3
        self.batch = batch_size(self.batch, self.mean_seconds, most)


_NOT_OF_A_DRAIN = frozenset({FailureKind.EXIT, FailureKind.INIT_ERROR})


class Slot:
    """Takes tasks from the stock, has them run, and passes on what came of each."""

    def __init__(
        self,
        invoker: Invoker,
        stock: Stock,
        delivery: Delivery,
        quarantine: Quarantine,
        suspects: Suspects,
        retries: RetryPolicy,
        refusal_limit: float,
        pace: Pace,
        patience: Patience,
        halt: Halt,
    ) -> None:
        self._invoker = invoker
        self._stock = stock
        self._delivery = delivery
        self._quarantine = quarantine
        self._suspects = suspects
        self._retries = retries
        self._refusal_limit = refusal_limit
        self._pace = pace
        self._patience = patience
        self._halt = halt
        self.running: dict[str, Lease] = {}

    def run(self) -> None:
        suspects, budget = self._suspects, self._delivery.budget
        while batch := self._stock.take(self._pace.batch, self._invoker.max_concurrency):
            if budget.is_spent:
                budget.wait(self._halt)
            if suspects.known and any(lease.task.id in suspects for lease in batch):
                self._set_apart(batch)
            else:
                self._attempt(batch)

    def _attempt(self, batch: Sequence[Lease]) -> None:
        if self._halt.is_set():
            for lease in batch:
                self._delivery.give_back(lease.task.id)
            return
        self.running = {lease.task.id: lease for lease in batch}
        try:
            self._invoke(batch, self._invoker.function.timeout)
        except Unavailable as error:
            self._put_back_all(error)
            if error.begun:
                self._patience.reset()  # it was there
            self._patience.wait(error)
        else:
            self._patience.reset()
        self.running = {}

    def _set_apart(self, batch: Sequence[Lease]) -> None:
        """Suspects wait for each other, and the others of their batch for none of them."""
        mine: Lease | None = None
        for lease in reversed(batch):
            if lease.task.id not in self._suspects:
                self._put_back(lease)
            elif self._suspects.begin(lease):
                mine = lease
        if mine is not None:
            self._attempt_one_by_one(mine)

    def _attempt_one_by_one(self, first: Lease) -> None:
        """This suspect, and those that come to wait meanwhile."""
        lease: Lease | None = first
        while lease is not None:
            if self._delivery.is_lost(lease.task.id):
                self._delivery.drop([lease.task.id])
            else:
                self._attempt([lease])
            lease = self._suspects.next()

    def _invoke(self, batch: Sequence[Lease], timeout: float) -> None:
        running, deliver, quarantine = self.running, self._delivery.put, self._quarantine
        suspected = self._suspects.known
        busy_ms = 0.0
        done = 0
        for item in self._invoker.invoke(batch, timeout):
            lease = running.pop(item.task_id, None)
            if lease is None:
                raise self._bug(f"reported {item.task_id!r} twice, or unasked")
            if not isinstance(item, Outcome):
                self._refuse(lease, "it was reported as not begun")
                continue
            if suspected and item.task_id in suspected:
                self._suspects.settle(item.task_id)
            busy_ms += item.duration_ms
            done += 1
            if item.failure is not None:
                self._fail(lease, item)
                continue
            deliver(Result(lease.task, item, lease.attempt))
            if quarantine.unsure:
                quarantine.clear()
        if running:
            raise self._bug(f"ended without a word on {', '.join(sorted(running))}")
        if done:
            self._pace.learn(busy_ms / 1000, done, self._invoker.max_batch)
        else:
            self._halt.wait(_PAUSE_SECONDS)

    def _bug(self, what: str) -> RuntimeError:
        return RuntimeError(f"{type(self._invoker).__name__}.invoke {what}. This is a bug in the plugin.")

    def _fail(self, lease: Lease, outcome: Outcome) -> None:
        kind = outcome.failure
        if kind in _NOT_OF_A_DRAIN and self._halt.is_set():
            # Whoever stops us may have stopped the handlers as well: this says nothing about the task.
            self._delivery.give_back(lease.task.id)
            return
        if kind is FailureKind.INIT_ERROR:
            self._quarantine.add(Result(lease.task, outcome, lease.attempt))
            return
        if kind is FailureKind.CANCELLED and not self._delivery.is_lost(lease.task.id):
            self._stopped_unasked(lease)
            return
        if kind is not FailureKind.CANCELLED:  # which may have come before the function was loaded
            self._quarantine.clear()
        verdict = self._retries.verdict(kind, lease.attempt)
        if kind is FailureKind.EXIT and verdict is Verdict.DEAD and self._halt.wait(_SIGNAL_SECONDS):
            self._delivery.give_back(lease.task.id)
        elif verdict is Verdict.RETRY:
            delay = self._retries.delay(lease.attempt, random.random())  # noqa: S311 - jitter, not a secret
            log.info("Task %s: %s at attempt %d. It runs again in %.1f s.", lease.task.id, kind, lease.attempt, delay)
            self._delivery.retry(lease.task.id, delay)
        else:
            self._delivery.put(Result(lease.task, outcome, lease.attempt), dead=verdict is Verdict.DEAD)

    def _stopped_unasked(self, lease: Lease) -> None:
        """By us, for the end of the grace time; by a cancel that came late and meant an earlier loan; or by a bug."""
        if self._halt.is_set() or lease.attempt < self._retries.lost_attempts:
            self._delivery.give_back(lease.task.id)
        else:
            self._give_up(lease, documents.cancelled_unasked(lease.attempt))

    def _put_back_all(self, error: Unavailable) -> None:
        """What has not begun to the stock, for whichever slot finds the plane there again; the rest is counted."""
        for lease in self.running.values():
            if lease.task.id not in error.begun:
                self._refuse(lease, str(error))
            elif self._halt.is_set():
                self._delivery.give_back(lease.task.id)
            else:
                self._suspects.lose(lease.task.id)
                self._count(lease, documents.lost_with_its_plane(lease.attempt, str(error)))
        self.running = {}

    def _refuse(self, lease: Lease, reason: str) -> None:
        """Not begun: uncounted, unless the plane has gone on so for as long as it may be away at all."""
        if self._suspects.is_refused_for(lease.task.id, self._refusal_limit):
            self._count(lease, documents.never_begun(lease.attempt, reason))
        else:
            self._put_back(lease)

    def _count(self, lease: Lease, document: bytes) -> None:
        """By way of the source, which counts for every agent and past the end of this one."""
        if lease.attempt < self._retries.lost_attempts:
            self._delivery.retry(lease.task.id, 0.0)
        else:
            self._give_up(lease, document)

    def _give_up(self, lease: Lease, document: bytes) -> None:
        self._suspects.settle(lease.task.id)
        outcome = Outcome(lease.task.id, document, FailureKind.EXIT, started=time.time())
        self._delivery.put(Result(lease.task, outcome, lease.attempt), dead=True)

    def _put_back(self, lease: Lease) -> None:
        if not self._stock.put_back(lease):
            self._delivery.give_back(lease.task.id)

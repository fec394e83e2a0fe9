"""One thread that keeps one execution environment busy."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from htcgrid.agent import documents
from htcgrid.agent.delivery import Delivery
from htcgrid.agent.halt import Halt
from htcgrid.agent.patience import Patience
from htcgrid.agent.policy import RetryPolicy, Verdict, batch_size
from htcgrid.agent.quarantine import Quarantine
from htcgrid.agent.stock import Stock
from htcgrid.spi import FailureKind, Invoker, Lease, Outcome, Result, Unavailable


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


class Slot:
    """Takes tasks from the stock, has them run, and passes on what came of each."""

    def __init__(
        self,
        invoker: Invoker,
        stock: Stock,
        delivery: Delivery,
        quarantine: Quarantine,
        retries: RetryPolicy,
        pace: Pace,
        patience: Patience,
        halt: Halt,
    ) -> None:
        self._invoker = invoker
        self._stock = stock
        self._delivery = delivery
        self._quarantine = quarantine
        self._retries = retries
        self._pace = pace
        self._patience = patience
        self._halt = halt
        self.running: dict[str, Lease] = {}

    def run(self) -> None:
        invoker, timeout = self._invoker, self._invoker.function.timeout
        while batch := self._stock.take(self._pace.batch, invoker.max_concurrency):
            if self._halt.is_set():
                for lease in batch:
                    self._delivery.give_back(lease.task.id)
                return
            self.running = {lease.task.id: lease for lease in batch}
            try:
                self._invoke(batch, timeout)
            except Unavailable as error:
                self._put_back_all(error)
                self._patience.wait(error)
            else:
                self._patience.reset()
            self.running = {}

    def _invoke(self, batch: Sequence[Lease], timeout: float) -> None:
        running, deliver, quarantine = self.running, self._delivery.put, self._quarantine
        busy_ms = 0.0
        done = 0
        for item in self._invoker.invoke(batch, timeout):
            lease = running.pop(item.task_id, None)
            if lease is None:
                raise self._bug(f"reported {item.task_id!r} twice, or unasked")
            if not isinstance(item, Outcome):
                self._put_back(lease)
                continue
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

    def _bug(self, what: str) -> RuntimeError:
        return RuntimeError(f"{type(self._invoker).__name__}.invoke {what}. This is a bug in the plugin.")

    def _fail(self, lease: Lease, outcome: Outcome) -> None:
        if outcome.failure is FailureKind.INIT_ERROR:
            self._quarantine.add(Result(lease.task, outcome, lease.attempt))
            return
        if outcome.failure is FailureKind.CANCELLED and not self._delivery.is_lost(lease.task.id):
            # Stopped by us, for the end of the grace time, or by a cancel that came late and meant an earlier loan.
            self._delivery.give_back(lease.task.id)
            return
        self._quarantine.clear()
        verdict = self._retries.verdict(outcome.failure, lease.attempt)
        if verdict is Verdict.RETRY:
            delay = self._retries.delay(lease.attempt, random.random())  # noqa: S311 - jitter, not a secret
            self._delivery.retry(lease.task.id, delay)
        else:
            self._delivery.put(Result(lease.task, outcome, lease.attempt), dead=verdict is Verdict.DEAD)

    def _put_back_all(self, error: Unavailable) -> None:
        """To the stock, for whichever slot finds the plane there again."""
        for lease in self.running.values():
            if lease.task.id not in error.begun:
                self._put_back(lease)
            elif lease.attempt < self._retries.lost_attempts:
                self._put_back(replace(lease, attempt=lease.attempt + 1))
            else:
                document = documents.lost_with_its_plane(lease.attempt, str(error))
                outcome = Outcome(lease.task.id, document, FailureKind.EXIT, started=time.time())
                self._delivery.put(Result(lease.task, outcome, lease.attempt), dead=True)
        self.running = {}

    def _put_back(self, lease: Lease) -> None:
        if not self._stock.put_back(lease):
            self._delivery.give_back(lease.task.id)

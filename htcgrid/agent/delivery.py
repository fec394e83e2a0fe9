"""From outcomes to the sink, and only then to the ack."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from htcgrid.agent import documents
from htcgrid.agent.budget import Budget
from htcgrid.agent.holdings import Holdings
from htcgrid.agent.patience import Patience
from htcgrid.agent.statistics import Statistics
from htcgrid.spi import DeadLetters, FailureKind, Lease, Outcome, Rejected, Result, ResultSink, TaskSource

T = TypeVar("T")

_REASON_BYTES = 1000
_BYTES = 64 << 20
"""How much of large answers may wait for the sink before no slot begins another task."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A task to be given back to the source."""

    task_id: str
    delay: float


class Delivery:
    """Collects results from every slot; one thread stores and acks them in batches."""

    def __init__(
        self,
        source: TaskSource,
        sink: ResultSink,
        holdings: Holdings,
        statistics: Statistics,
        patience: Patience,
        linger: float,
        fail: Callable[[BaseException], None],
        failed: Callable[[Sequence[Outcome]], None] = lambda _outcomes: None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._holdings = holdings
        self._statistics = statistics
        self._patience = patience
        self._linger = linger
        self._fail = fail
        self._failed = failed
        """Told of the failures that were stored."""
        self._is_refused = False
        """Whether nothing can be stored any more."""
        self._results: deque[Result] = deque()
        self.budget = Budget(_BYTES)
        self._dead: set[str] = set()
        self._returned: deque[Returned] = deque()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self.returning = False
        """Whether leases that are held no more are on their way back to the source."""

    # --- from any thread ---

    def put(self, result: Result, *, dead: bool = False) -> None:
        """Have this stored and acked; set aside where it is hopeless."""
        if dead:
            self._dead.add(result.task.id)
        self.budget.add(result)
        self._results.append(result)
        if not self._wake.is_set():
            self._wake.set()

    def give_back(self, task_id: str) -> None:
        """Have this handed out again at once: it has not run to its end here."""
        self._statistics.given_back += 1
        self._return(Returned(task_id, 0.0))

    def retry(self, task_id: str, delay: float) -> None:
        """Have this handed out again after the delay."""
        self._statistics.retried += 1
        self._return(Returned(task_id, delay))

    def drop(self, task_ids: Iterable[str]) -> None:
        """Let go of what was lost. What was lent to us again meanwhile has no run, and is given back."""
        for task_id in self._holdings.drop(task_ids):
            self.give_back(task_id)

    def is_lost(self, task_id: str) -> bool:
        """Whether what comes of this task is dropped."""
        return bool(self._holdings.lost([task_id]))

    def _return(self, returned: Returned) -> None:
        self._returned.append(returned)
        self.hurry()

    def hurry(self) -> None:
        """Nothing more will come for now: do not wait for company."""
        self._hurry.set()
        self._wake.set()

    def close(self) -> None:
        """Deliver what is there, then end."""
        self._closing = True
        self.hurry()

    def __len__(self) -> int:
        """How many results wait to be stored."""
        return len(self._results)

    # --- the thread ---

    def run(self) -> None:
        while True:
            self._wake.wait()
            if len(self._results) < self._sink.max_batch and not self._closing and self._holds_more():
                self._hurry.wait(self._linger)
            self._hurry.clear()
            self._wake.clear()
            closing = self._closing
            try:
                self._deliver()
            except BaseException as error:  # noqa: BLE001 - run raises it; what is held goes back to the source first
                self._fail(error)
                self._is_refused = True
            if self._is_refused:
                self._give_back_results()
            self._nack()
            if closing and not self._results and not self._returned:
                return

    def _holds_more(self) -> bool:
        """Whether anything but what waits here is in hand, so that waiting may bring company."""
        return len(self._holdings) > len(self._results)

    def _deliver(self) -> None:
        while self._results and not self._is_refused:
            results = taken = [self._results.popleft() for _ in range(min(len(self._results), self._sink.max_batch))]
            if self._holdings.any_lost and (lost := self._holdings.lost([result.task.id for result in results])):
                self.drop(lost)
                self._dead.difference_update(lost)
                results = [result for result in results if result.task.id not in lost]
            if results:
                try:
                    stored = self._store(results)
                except BaseException:
                    self._results.extendleft(reversed(results))
                    raise
                self._settle(stored)
            self.budget.free(taken)

    def _give_back_results(self) -> None:
        while self._results:
            result = self._results.popleft()
            self.budget.free([result])
            self.give_back(result.task.id)

    def _store(self, results: Sequence[Result]) -> Sequence[Result]:
        """Returns them as they are stored."""
        try:
            self._patience.call(lambda: self._sink.put(results), self._sink.put)
        except Rejected as refusal:
            if not refusal.task_ids:
                raise
            # The rest is stored. These get a failure in place of the answer that cannot be kept.
            refused = [_refused(result, refusal) for result in results if result.task.id in refusal.task_ids]
            self._patience.call(lambda: self._sink.put(refused), self._sink.put)
            return [*(result for result in results if result.task.id not in refusal.task_ids), *refused]
        return results

    def _settle(self, results: Sequence[Result]) -> None:
        if failed := self._statistics.count([result.outcome for result in results]):
            self._failed(failed)
        dead = self._dead
        hopeless = {result.task.id: result for result in results if result.task.id in dead} if dead else {}
        dead.difference_update(hopeless)
        leases = self._holdings.release([result.task.id for result in results])
        if hopeless and isinstance(self._source, DeadLetters):
            for lease in leases:
                if lease.task.id in hopeless:
                    self._set_aside(lease, hopeless[lease.task.id])
            leases = [lease for lease in leases if lease.task.id not in hopeless]
        for chunk in chunks(leases, self._source.max_batch):
            self._patience.call(lambda chunk=chunk: self._source.ack(chunk), self._source.ack)  # type: ignore[misc]

    def _set_aside(self, lease: Lease, result: Result) -> None:
        source = self._source
        assert isinstance(source, DeadLetters)  # noqa: S101 - _settle has checked
        document = result.outcome.payload.decode(errors="replace")[:_REASON_BYTES]
        reason = f"{result.outcome.failure} at attempt {result.attempt}: {document}"
        self._patience.call(lambda: source.dead_letter([lease], reason), source.dead_letter)

    def _nack(self) -> None:
        self.returning = True
        by_delay: dict[float, list[str]] = {}
        while self._returned:
            returned = self._returned.popleft()
            by_delay.setdefault(returned.delay, []).append(returned.task_id)
        for delay, task_ids in by_delay.items():
            for chunk in chunks(self._holdings.release(task_ids), self._source.max_batch):
                self._patience.call(
                    lambda chunk=chunk, delay=delay: self._return_to_source(chunk, delay),  # type: ignore[misc]
                    self._source.nack,
                )
        self.returning = False

    def _return_to_source(self, leases: Sequence[Lease], delay: float) -> None:
        with self._holdings.moving:
            self._source.nack(leases, delay)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in order, at most `size` at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _refused(result: Result, refusal: Rejected) -> Result:
    document = documents.not_storable(str(refusal))
    return replace(result, outcome=replace(result.outcome, payload=document, failure=FailureKind.PAYLOAD_TOO_LARGE))

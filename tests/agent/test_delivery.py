from __future__ import annotations

from collections.abc import Sequence

from htcgrid.agent.delivery import Delivery
from htcgrid.agent.halt import Halt
from htcgrid.agent.holdings import Holdings
from htcgrid.agent.patience import Patience
from htcgrid.agent.statistics import Statistics
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Result, Task


class Source(MemorySource):
    def __init__(self) -> None:
        super().__init__(self.Config(), Function())
        self.dead: list[str] = []
        self.acked: list[str] = []

    def ack(self, leases: Sequence[Lease]) -> None:
        self.acked += [lease.receipt for lease in leases]

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        self.dead += [lease.receipt for lease in leases]


def test_a_hopeless_task_whose_lease_was_lost_is_judged_anew_when_it_comes_again() -> None:
    failures: list[BaseException] = []
    source, holdings = Source(), Holdings()
    sink = MemorySink(MemorySink.Config(), Function())
    patience = Patience(Halt(), 0, lambda _message: None)

    def deliver(lease: Lease, outcome: Outcome, *, dead: bool, lost: bool) -> None:
        delivery.put(Result(lease.task, outcome, lease.attempt), dead=dead)
        if lost:
            holdings.lose([lease])
        delivery.close()
        delivery.run()

    delivery = Delivery(source, sink, holdings, Statistics(1), patience, linger=0, fail=failures.append)
    first, second = (Lease(Task("a", b"1"), attempt, f"receipt {attempt}") for attempt in (3, 4))
    holdings.add([first])
    deliver(first, Outcome("a", b"{}", FailureKind.EXIT), dead=True, lost=True)
    assert (source.dead, source.acked, sink.results) == ([], [], {})
    holdings.add([second])
    deliver(second, Outcome("a", b"2"), dead=False, lost=False)
    assert (source.dead, source.acked) == ([], ["receipt 4"])

from __future__ import annotations

from collections.abc import Sequence

import pytest

from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.shared import Shared
from htcgrid.agent.shutdown import Shutdown
from htcgrid.agent.statistics import Statistics
from htcgrid.agent.storer import Storer
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Result, Task, Unavailable


class Source(MemorySource):
    def __init__(self) -> None:
        super().__init__(self.Config(), Function())
        self.dead_ids: list[object] = []
        self.acked: list[object] = []

    def ack(self, leases: Sequence[Lease]) -> None:
        self.acked += [str(lease.receipt) for lease in leases]

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        self.dead_ids += [str(lease.receipt) for lease in leases]


def test_what_is_stored_and_cannot_be_acked_is_extended_until_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its message shows again, and a queue that counts receives makes a dead letter of a task that is done."""
    monkeypatch.setattr("htcgrid.agent.backoff.back_off", lambda *_: 0.001)
    leases, extended = LeaseTable(1), []

    class Away(Source):
        max_batch = 2
        refusals = 3

        def ack(self, acked: Sequence[Lease]) -> None:
            extended.append({lease.task.id for lease in leases.still(leases.held())})
            if "c" in {lease.task.id for lease in acked} and self.refusals:
                self.refusals -= 1
                raise Unavailable("the queue throttles")
            super().ack(acked)

    source, sink = Away(), MemorySink(MemorySink.Config(), Function())
    shared = Shared(AgentOptions(linger=0), Shutdown(), Statistics(1), lambda _message: None, lambda _outcomes: None)
    given = [Lease(Task(task_id, b"1"), 1, task_id) for task_id in "abcdefg"]
    leases.add(given)
    for lease in given[:6]:
        leases.finish(Result(lease.task, Outcome(lease.task.id, b"1"), 1))
    leases.end()
    Storer(source, sink, leases, shared).run()
    assert source.acked == list("abcdef")
    assert extended == [{"g"}, {"g"}, *[{"c", "d", "e", "f", "g"}] * 3, {"c", "d", "e", "f", "g"}]
    assert leases.held() == given[6:]


def test_a_hopeless_task_whose_lease_was_lost_is_judged_anew_when_it_comes_again() -> None:
    source, leases = Source(), LeaseTable(1)
    sink = MemorySink(MemorySink.Config(), Function())
    shared = Shared(AgentOptions(linger=0), Shutdown(), Statistics(1), lambda _message: None, lambda _outcomes: None)

    def store(lease: Lease, outcome: Outcome, *, dead: bool, lost: bool) -> None:
        leases.finish(Result(lease.task, outcome, lease.attempt), dead=dead)
        if lost:
            leases.lose([lease])
        leases.end()
        Storer(source, sink, leases, shared).run()

    first, second = (Lease(Task("a", b"1"), attempt, f"receipt {attempt}") for attempt in (3, 4))
    leases.add([first])
    store(first, Outcome("a", b"{}", FailureKind.EXIT), dead=True, lost=True)
    assert (source.dead_ids, source.acked, sink.results) == ([], [], {})
    leases.add([second])
    store(second, Outcome("a", b"2"), dead=False, lost=False)
    assert (source.dead_ids, source.acked) == ([], ["receipt 4"])

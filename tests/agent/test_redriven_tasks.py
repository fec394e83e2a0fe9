"""A task that is redriven while the agent still holds its failure runs again."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from htcgrid.agent.agent import Agent
from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.options import AgentOptions
from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.failures.again import next_generation
from htcgrid.spi import GENERATION, FailureKind, Function, Invoker, Lease, Outcome, Result, Task

if TYPE_CHECKING:
    from pathlib import Path

LONG = 20


class Plane(Invoker):
    """Fails each task until it is redriven."""

    def __init__(self) -> None:
        super().__init__(self.Config(), Function())

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        for lease in batch:
            kind = None if lease.task.attributes else FailureKind.HANDLER_ERROR
            yield Outcome(lease.task.id, b"{}", kind)


class Source(SqliteSource):
    """Notes when the agent has taken in a redriven task: it asks for more then."""

    def __init__(self, path: Path) -> None:
        super().__init__(self.Config(path=path, drain=True), Function())
        self.is_taken_in = threading.Event()
        self._received: Sequence[Lease] = ()

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        if any(lease.task.attributes for lease in self._received):
            self.is_taken_in.set()
        self._received = super().receive(max_tasks, wait)
        return self._received


class SlowSink(SqliteSink):
    """Its failures can be read, and are redriven, before `put` returns, as those of a store that takes many requests."""

    def __init__(self, path: Path, source: Source) -> None:
        super().__init__(self.Config(path=path), Function())
        self._source = source

    def put(self, results: Sequence[Result]) -> None:
        super().put(results)
        if failed := [next_generation(result.task) for result in results if result.outcome.failure]:
            self._source.redrive(failed)
            assert self._source.is_taken_in.wait(LONG)


def test_a_task_that_is_redriven_before_its_failure_is_acked_runs_again(tmp_path: Path) -> None:
    source = Source(tmp_path / "grid.db")
    sink = SlowSink(tmp_path / "grid.db", source)
    with source, sink:
        source.put([Task("a", b"1")])
        Agent(source, Plane(), sink, AgentOptions(linger=0), lambda _message: None).run()
        assert sink.get(["a"])["a"].outcome.failure is None


def lease(receipt: str, generation: int) -> Lease:
    task = Task("a", b"1", {GENERATION: str(generation)} if generation else {})
    return Lease(task, receipt=receipt)


def finish(held: LeaseTable, ended: Lease) -> list[Lease]:
    taken = [(Result(ended.task, Outcome("a", b"{}", FailureKind.EXIT), 1), False)]
    return held.stored(taken)


def test_the_lease_of_a_redriven_task_is_returned_and_not_acked_with_the_failure() -> None:
    held = LeaseTable(1)
    held.add([lease("1", 0)])
    assert held.add([lease("2", 1)]) == []
    assert finish(held, lease("1", 0)) == []
    assert held.next_returning() == {0.0: [lease("2", 1)]}


def test_a_lease_that_is_replaced_while_it_waits_runs_in_its_later_generation() -> None:
    held = LeaseTable(1)
    held.offer(held.add([lease("1", 0)]))
    held.offer(held.add([lease("2", 1)]))
    assert held.take(held.new_slot()) == {"a": lease("2", 1)}
    assert finish(held, lease("2", 1)) == [lease("2", 1)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_generations_in_one_delivery_the_later_one_runs(order: tuple[int, int]) -> None:
    held = LeaseTable(1)
    assert held.add([lease(str(generation), generation) for generation in order]) == [lease("1", 1)]
    assert held.held() == [lease("1", 1)]


def test_an_earlier_generation_that_is_received_late_changes_nothing() -> None:
    held = LeaseTable(1)
    held.add([lease("2", 1)])
    assert held.add([lease("1", 0)]) == []
    assert finish(held, lease("2", 1)) == [lease("2", 1)]


def test_a_failure_that_was_lost_and_received_again_is_acked_with_its_newest_lease() -> None:
    held = LeaseTable(1)
    held.add([lease("1", 0)])
    held.lose([lease("1", 0)])
    newest = replace(lease("2", 0), attempt=2)
    held.add([newest])
    assert finish(held, lease("1", 0)) == [newest]

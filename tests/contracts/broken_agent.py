"""For every rule about the loop a plugin that breaks it. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from htcgrid_contracts import AgentContract, contract_function
from htcgrid_contracts.kit_plugins import KitInvoker, KitSink, KitSource

from htcgrid.spi import Invoker, Lease, Outcome, Plugin, Result, ResultSink, TaskSource, Unavailable


class Case(AgentContract):
    breaks = ""
    says = ""
    broken_source: type[Any] = KitSource
    broken_invoker: type[Any] = KitInvoker
    broken_sink: type[Any] = KitSink
    wait_factor = 0.2

    @pytest.fixture
    def source(self) -> TaskSource:
        source: TaskSource = self.broken_source(Plugin.Config(), contract_function())
        return source

    @pytest.fixture
    def invoker(self) -> Invoker:
        invoker: Invoker = self.broken_invoker(Plugin.Config(), contract_function())
        return invoker

    @pytest.fixture
    def sink(self) -> ResultSink:
        sink: ResultSink = self.broken_sink(Plugin.Config(), contract_function())
        return sink

    def read_back(self, sink: ResultSink, task_ids: Sequence[str]) -> Sequence[Result]:
        if isinstance(sink, Appending):
            return [result for result in sink.all if result.task.id in task_ids]
        return super().read_back(sink, task_ids)


class Appending(KitSink):
    def __init__(self, config: Plugin.Config, function: Any) -> None:
        super().__init__(config, function)
        self.all: list[Result] = []

    def put(self, results: Sequence[Result]) -> None:
        self.all += results


class TestReference(Case):
    """Holds every rule."""

    wait_factor = 1.0


class TestDropsResults(Case):
    breaks = "test_every_task_ends_once"
    says = "have no result"

    class broken_source(KitSource):
        @property
        def exhausted(self) -> bool:
            return not self._due

    class broken_sink(KitSink):
        def put(self, results: Sequence[Result]) -> None:
            super().put(results[1:])


class TestAppendsAfterALostAnswer(Case):
    breaks = "test_every_task_ends_once_when_calls_are_refused"
    says = "more than one result"
    broken_sink = Appending


class TestAppendsAfterASecondDelivery(Case):
    breaks = "test_every_task_ends_once_when_each_is_delivered_twice"
    says = "more than one result"
    broken_sink = Appending


class TestCallsEveryLeaseLost(Case):
    breaks = "test_every_task_ends_once_when_results_are_stored_slowly"
    says = "all results: not within"
    wait_factor = 0.05

    class broken_source(KitSource):
        lease_seconds = 0.1

        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            self.ack(leases)
            return [lease.task.id for lease in leases]


class TestKeepsAnEnvironmentForEachThread(Case):
    breaks = "test_every_task_ends_once_when_the_plane_changes_its_size"
    says = "all results: not within"

    class broken_invoker(KitInvoker):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
            threads = self.__dict__.setdefault("threads", set())
            threads.add(threading.get_native_id())
            if len(threads) > self.max_concurrency:
                raise Unavailable("Each environment belongs to another thread.")
            yield from super().invoke(batch, timeout)


class TestTakesAnEndForAnAnswer(Case):
    breaks = "test_every_task_ends_once_when_environments_die"
    says = "0 were stored as failed"

    class broken_invoker(KitInvoker):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
            for outcome in super().invoke(batch, timeout):
                yield replace(outcome, failure=None)


class TestLosesWhatIsGivenBack(Case):
    breaks = "test_sigterm_drains_in_time_and_loses_nothing"
    says = "neither stored nor handed out again"

    class broken_source(KitSource):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            self.ack(leases)

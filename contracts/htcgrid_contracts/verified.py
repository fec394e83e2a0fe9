"""The contracts with the plugin that `htcgrid verify` was asked about. Collected by `running.verify` only."""

import pytest
from htcgrid.spi import Function, Invoker, Plugin, ResultSink, TaskQueue, TaskSource

from htcgrid_contracts.common import PluginContract
from htcgrid_contracts.invoker import InvokerContract
from htcgrid_contracts.packing import contract_function
from htcgrid_contracts.running import SUBJECT, Subject
from htcgrid_contracts.sink import ResultSinkContract
from htcgrid_contracts.source import TaskSourceContract


class _Verified(PluginContract):
    @pytest.fixture(autouse=True)
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        subject = request.config.stash[SUBJECT]
        self.patience = subject.patience
        return subject


class TestInvoker(_Verified, InvokerContract):
    @pytest.fixture
    def invoker(self, subject: Subject, function: Function) -> Plugin:
        return subject.make(function)


class TestTaskSource(_Verified, TaskSourceContract):
    @pytest.fixture
    def source(self, subject: Subject) -> TaskSource:
        source = subject.make(contract_function())
        assert isinstance(source, TaskSource)
        self._learn(source, drain=subject.drain)
        return source

    def _learn(self, source: TaskSource, *, drain: bool) -> None:
        """What a subclass would say: whether the place is shared, and whether it ends. Empties it on the way."""
        with self.again(source) as first:
            while leased := first.receive(first.max_batch, 0.2):
                if not drain:
                    pytest.fail(
                        f"the place holds tasks, such as {leased[0].task.id}. Give the kit a place of its own "
                        f"(a part of an option that reads {{fresh}} is new for each rule, {{tmp}} is a new folder), "
                        f"or let it empty this one with --drain"
                    )
                first.ack(leased)
            ends = first.exhausted
            if isinstance(first, TaskQueue):
                self.shared = self._is_shared(first)
            self.finite = ends and not self.shared

    def _is_shared(self, first: TaskQueue) -> bool:
        assert isinstance(first, TaskSource)
        from htcgrid_contracts.source_helpers import numbered  # noqa: PLC0415

        first.put(numbered(1))
        with self.again(first) as second:
            shared = second.stats(brief=True).states.waiting != 0
        first.ack(self.take(first, 1))
        return shared


class TestResultSink(_Verified, ResultSinkContract):
    @pytest.fixture
    def sink(self, subject: Subject) -> ResultSink:
        sink = subject.make(contract_function())
        assert isinstance(sink, ResultSink)
        return sink


__all__ = ["Invoker", "TestInvoker", "TestResultSink", "TestTaskSource"]

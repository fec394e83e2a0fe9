"""The contracts with the plugin that `htcgrid verify` was asked about. Collected by `running.verify` only."""

import inspect
from pathlib import Path

import pytest
from htcgrid.spi import Function, Invoker, Observer, Plugin, ResultSink, TaskQueue, TaskSource

from htcgrid_contracts.common import PluginContract, not_asked
from htcgrid_contracts.invoker import InvokerContract
from htcgrid_contracts.observer_rules import ObserverContract
from htcgrid_contracts.packing import contract_function
from htcgrid_contracts.sink import ResultSinkContract
from htcgrid_contracts.source import TaskSourceContract
from htcgrid_contracts.subjects import SUBJECT, Subject

_LEARNED = pytest.StashKey[tuple[bool, bool]]()
"""Whether the queue is shared, and whether it says that it has ended."""
_OF_A_PLACE = {"source", "given", "another"}
"""Rules without any of these fixtures are about the plugin alone. They are asked of one that cannot receive, too."""


class _Verified(PluginContract):
    @pytest.fixture(autouse=True)
    def subject(self, request: pytest.FixtureRequest) -> Subject:
        self._subject: Subject = request.config.stash[SUBJECT]
        self.wait_factor = self._subject.wait_factor
        self.away_seconds = self._subject.away_seconds
        return self._subject

    @pytest.fixture
    def missing(self, subject: Subject) -> Plugin:
        if subject.missing is None:
            not_asked("give --missing KEY=VALUE: an option with which the plugin names what does not exist")
        return subject.missing(contract_function())

    def can(self, name: str) -> bool:
        return getattr(self._subject, name) is not None and (
            name != "take_away" or self._subject.bring_back is not None
        )

    def knows_a_missing_place(self) -> bool:
        return self._subject.missing is not None

    def take_away(self, plugin: Plugin) -> None:
        if self._subject.take_away is None or self._subject.bring_back is None:
            not_asked("give --take-away and --bring-back: commands that stop and start what the plugin talks to")
        self._subject.take_away()

    def bring_back(self, plugin: Plugin) -> None:
        if self._subject.bring_back is None:
            not_asked("give --take-away and --bring-back: commands that stop and start what the plugin talks to")
        self._subject.bring_back()

    def throttle(self, plugin: Plugin) -> None:
        if self._subject.throttle is None:
            not_asked(
                "give --throttle: a command that makes the service refuse its next call, since there are too many"
            )
        self._subject.throttle()

    def end_throttle(self, plugin: Plugin) -> None:
        if self._subject.end_throttle is not None:
            self._subject.end_throttle()


class TestInvoker(_Verified, InvokerContract):
    @pytest.fixture
    def function(self, subject: Subject) -> Function:
        if subject.deployed is None:
            return contract_function()
        self.short_timeout = subject.deployed
        return contract_function(timeout=subject.deployed)

    @pytest.fixture
    def invoker(self, subject: Subject, function: Function) -> Plugin:
        return subject.make(function)

    @pytest.fixture(autouse=True)
    def _limits(self, subject: Subject) -> None:
        self.behind_emulator = subject.emulator
        if subject.largest_event is not None:
            self.largest_event = subject.largest_event or None
        if subject.largest_answer is not None:
            self.largest_answer = subject.largest_answer or None

    def serving(self, invoker: Invoker, function: Function) -> Invoker:
        if self._subject.deployed is not None:
            not_asked(
                "with --deployed the plane serves the kit's handler alone; a test of your own can override `serving`"
            )
        return super().serving(invoker, function)

    def resize(self, plane: Invoker, size: int = 1) -> None:
        if self._subject.resize is None:
            not_asked("give --resize: a command that gives the plane {size} environments")
        self._subject.resize(size)

    def marks(self, folder: Path) -> str | None:
        return None if self._subject.marks is None else self._subject.marks(folder)


class TestTaskSource(_Verified, TaskSourceContract):
    @pytest.fixture
    def source(self, subject: Subject, request: pytest.FixtureRequest) -> TaskSource:
        source = subject.make(contract_function())
        assert isinstance(source, TaskSource)
        if _OF_A_PLACE & inspect.signature(request.function).parameters.keys():
            self._learn(source, request.config.stash, drain=subject.drain)
        return source

    def publish_invalid(self, source: TaskSource) -> None:
        if self._subject.publish_invalid is None:
            not_asked(
                "give --publish-invalid: a command that puts there what is not a task, such as text that is not JSON"
            )
        self._subject.publish_invalid()

    def _learn(self, source: TaskSource, known: pytest.Stash, *, drain: bool) -> None:
        """Finds out whether the queue is shared and whether it ends, which a subclass would say. Empties the queue."""
        with self.again(source) as first:
            # The first look is a careful one. Later places are new, but for those that are to be emptied.
            wait = 0.2 if drain or _LEARNED not in known else 0.0
            while leased := first.receive(first.max_batch, wait):
                if not drain:
                    pytest.fail(
                        f"the place holds tasks, such as {leased[0].task.id}. Give the kit a place of its own "
                        f"(a part of an option that reads {{fresh}} is new for each rule, {{tmp}} is a new folder), "
                        f"or let it empty this one with --drain"
                    )
                first.ack(leased)
            if _LEARNED not in known:
                ends = first.exhausted
                if isinstance(first, TaskQueue):
                    self.shared = self._is_shared(first)
                known[_LEARNED] = (self.shared, ends)
            self.shared, self.ends = known[_LEARNED]
            self.finite = self.ends and not self.shared

    def _is_shared(self, first: TaskQueue) -> bool:
        assert isinstance(first, TaskSource)
        from htcgrid_contracts.source_helpers import numbered  # noqa: PLC0415

        first.put(numbered(1))
        with self.again(first) as second:
            shared = second.stats(brief=True).states.waiting != 0
        first.ack(self.take(first, 1))
        return shared


class TestResultSink(_Verified, ResultSinkContract):
    @pytest.fixture(autouse=True)
    def _what_is_too_large(self, request: pytest.FixtureRequest, subject: Subject) -> None:
        if subject.too_large is None and "too_large" in request.node.name:
            not_asked("give --too-large: the bytes of an answer that the sink can never store")

    @pytest.fixture
    def sink(self, subject: Subject) -> ResultSink:
        sink = subject.make(contract_function())
        assert isinstance(sink, ResultSink)
        self.too_large = subject.too_large
        if self.too_large is not None:
            self.largest_payload = min(self.largest_payload, self.too_large - 1)
        return sink


class TestObserver(_Verified, ObserverContract):
    @pytest.fixture
    def observer(self, subject: Subject) -> Observer:
        observer = subject.make(contract_function())
        assert isinstance(observer, Observer)
        return observer


__all__ = ["Invoker", "TestInvoker", "TestObserver", "TestResultSink", "TestTaskSource"]

"""For every rule about observers one that breaks it. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import secrets
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from htcgrid_contracts import ObserverContract, contract_function

from htcgrid.spi import EnvironmentEnded, EnvironmentStarted, Observation, Observer, Stored, TraceContext


class Reference(Observer):
    """A good observer: counts what ended how."""

    def open(self) -> None:
        self._counts: Counter[str] = Counter()
        self._up: set[str] = set()

    def observe(self, observations: Sequence[Observation]) -> None:
        for each in observations:
            if isinstance(each, Stored):
                self._counts.update([str(result.outcome.failure) for result in each.results])
            elif isinstance(each, EnvironmentStarted):
                self._up.add(each.environment)
            elif isinstance(each, EnvironmentEnded):
                self._up.discard(each.environment)

    def text(self) -> str:
        return f"{dict(self._counts)} {len(self._up)}"


class Case(ObserverContract):
    breaks = ""
    says = ""
    broken: type[Any] = Reference

    @pytest.fixture
    def observer(self) -> Observer:
        observer: Observer = self.broken(self.broken.Config(), contract_function())
        return observer

    def shown(self, observer: Reference) -> str:  # type: ignore[override]
        return observer.text()


class TestReference(Case):
    """Holds every rule."""


class TestRaises(Case):
    breaks = "test_it_takes_every_observation"
    says = "ZeroDivisionError"

    class broken(Reference):
        def observe(self, observations: Sequence[Observation]) -> None:
            super().observe(observations)
            for each in observations:
                if isinstance(each, Stored):
                    sum(1 / result.outcome.duration_ms * 0 for result in each.results) / 0


class TestOneAtATime(Case):
    breaks = "test_it_takes_the_observations_of_a_run_in_one_call"
    says = "IndexError"

    class broken(Reference):
        def observe(self, observations: Sequence[Observation]) -> None:
            super().observe([observations[0]])
            super().observe(observations[1:])


class TestKnowsAll(Case):
    breaks = "test_it_passes_over_what_it_does_not_know"
    says = "NotImplementedError: Unheard"

    class broken(Reference):
        def observe(self, observations: Sequence[Observation]) -> None:
            for each in observations:
                if type(each).__module__ != Observation.__module__:
                    raise NotImplementedError(type(each).__name__)
            super().observe(observations)


class TestWantsPairs(Case):
    breaks = "test_it_takes_what_does_not_fit_together"
    says = "KeyError"

    class broken(Reference):
        def observe(self, observations: Sequence[Observation]) -> None:
            for each in observations:
                if isinstance(each, EnvironmentStarted):
                    self._up.add(each.environment)
                elif isinstance(each, EnvironmentEnded):
                    self._up.remove(each.environment)


class TestOfOneThread(Case):
    breaks = "test_it_may_be_told_from_another_thread_each_time"
    says = "in another thread"

    class broken(Reference):
        def open(self) -> None:
            super().open()
            self._thread = threading.current_thread()

        def observe(self, observations: Sequence[Observation]) -> None:
            if threading.current_thread() is not self._thread:
                raise RuntimeError("this was made in another thread")
            super().observe(observations)


class TestTracesAtRandom(Case):
    breaks = "test_a_session_has_one_trace"
    says = "a queue refuses the second ones"

    class broken(Reference):
        makes_spans = True

        def session_trace(self, session: str) -> TraceContext:
            return TraceContext(secrets.token_hex(16), secrets.token_hex(8))


class TestTracesInSecret(Case):
    breaks = "test_a_session_has_one_trace"
    says = "makes_spans = True"

    class broken(Reference):
        def session_trace(self, session: str) -> TraceContext:
            return TraceContext("1" * 32, "2" * 16)


class TestSlow(Case):
    breaks = "test_it_keeps_up_with_a_fast_agent"
    says = "20000 tasks took it"

    class broken(Reference):
        def observe(self, observations: Sequence[Observation]) -> None:
            super().observe(observations)
            if any(isinstance(each, Stored) and len(each.results) > 1000 for each in observations):
                time.sleep(10.5)  # as one that sends each task by itself


class TestKeeps(Case):
    breaks = "test_it_keeps_no_payload"
    says = "keeps the event or the answer"

    class broken(Reference):
        def open(self) -> None:
            super().open()
            self._last: list[Observation] = []

        def observe(self, observations: Sequence[Observation]) -> None:
            super().observe(observations)
            self._last.extend(observations)


class TestShowsLogs(Case):
    breaks = "test_what_it_shows_has_no_event_answer_or_log"
    says = "it shows the event, the answer, or what the handler printed"

    class broken(Reference):
        _log = b""

        def observe(self, observations: Sequence[Observation]) -> None:
            super().observe(observations)
            for each in observations:
                if isinstance(each, Stored):
                    self._log = bytes(bytearray(each.results[0].outcome.log_tail))

        def text(self) -> str:
            return super().text() + self._log.decode()


class TestNamesItsPortAsText(Case):
    breaks = "test_it_says_where_it_can_be_scraped"
    says = "say which port"

    class broken(Reference):
        scrape_port: Any = "9464"

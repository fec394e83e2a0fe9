"""For every rule about sinks a sink that breaks it. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from htcgrid_contracts import ResultSinkContract, contract_function

from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.spi import FailureKind, Plugin, Rejected, Result, ResultSink, Task, Unavailable

LIMIT = 300_000


class Reference(SqliteSink):
    """A good sink: a SQLite file, with a limit on what it takes."""

    away = False

    def put(self, results: Sequence[Result]) -> None:
        if self.away:
            raise self.unavailable()
        large = [result.task.id for result in results if len(result.outcome.payload) > LIMIT]
        super().put([result for result in results if result.task.id not in large])
        if large:
            raise Rejected(f"Too large to be stored: {', '.join(large)}.", large)

    def unavailable(self) -> Exception:
        return Unavailable("The store is away.")


class Case(ResultSinkContract):
    breaks = ""
    says = ""
    broken: type[Any] = Reference
    too_large = LIMIT + 1

    @pytest.fixture
    def sink(self, tmp_path: Path) -> ResultSink:
        sink: ResultSink = self.broken(self.broken.Config(path=tmp_path / "grid.db"), contract_function())
        return sink

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Plugin:
        return Reference(Reference.Config(path=tmp_path / "no-such-folder" / "grid.db"), contract_function())

    def read_back(self, sink: ResultSink, task_ids: Sequence[str]) -> Sequence[Result]:
        if hasattr(sink, "doubles"):
            return [*self._stored_in_file(sink, task_ids), *sink.doubles]
        return self._stored_in_file(sink, task_ids)

    def _stored_in_file(self, sink: ResultSink, task_ids: Sequence[str]) -> list[Result]:
        assert isinstance(sink.config, Reference.Config)
        with Reference(sink.config, sink.function) as other:
            return list(other.get(task_ids).values())

    def take_away(self, sink: Reference) -> None:  # type: ignore[override]
        sink.away = True


class TestReference(Case):
    """Holds every rule."""


class Changed(Reference):
    """Stores something else than it was given."""

    def put(self, results: Sequence[Result]) -> None:
        super().put([self.changed(result) for result in results])

    def changed(self, result: Result) -> Result:
        raise NotImplementedError


class TestForgetsAttempts(Case):
    breaks = "test_a_result_is_stored"
    says = "stored as attempt 1"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            return replace(result, attempt=1)


class TestForgetsKinds(Case):
    breaks = "test_a_failure_is_stored_with_its_kind_and_document"
    says = "was stored as handler_error"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            failure = result.outcome.failure and FailureKind.HANDLER_ERROR
            return replace(result, outcome=replace(result.outcome, failure=failure))


class TestForgetsFacts(Case):
    breaks = "test_the_facts_of_an_outcome_are_stored"
    says = "not stored: billed_ms"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            return replace(result, outcome=replace(result.outcome, billed_ms=0))


class TestTidiesAnswers(Case):
    breaks = "test_an_answer_is_stored_as_it_came"
    says = "found b'"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            return replace(result, outcome=replace(result.outcome, payload=result.outcome.payload.replace(b" ", b"")))


class TestCutsBatches(Case):
    breaks = "test_a_full_batch_is_stored"
    says = "are not stored"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            super().put(results[:10])


class Buffers(Reference):
    """Stores later what it says it has stored."""

    kept: Sequence[Result] = ()

    def put(self, results: Sequence[Result]) -> None:
        self.kept = [*self.kept, *results]

    def close(self) -> None:
        if self.kept:
            super().put(self.kept)
        super().close()


class TestBuffers(Case):
    breaks = "test_a_result_outlives_a_process_that_is_killed_right_after_put"
    says = "are not stored"
    broken = Buffers


class TestBeginsAnew(Case):
    breaks = "test_a_result_is_there_after_close_and_open"
    says = "are not stored"

    class broken(Reference):
        def open(self) -> None:
            self.config.path.unlink(missing_ok=True)
            super().open()


class TestAppends(Case):
    breaks = "test_the_same_task_again_leaves_one_result"
    says = "more than one result"

    class broken(Reference):
        def open(self) -> None:
            super().open()
            self.seen: set[str] = set()
            self.doubles: list[Result] = []

        def put(self, results: Sequence[Result]) -> None:
            for result in results:
                if result.task.id in self.seen:
                    self.doubles.append(result)
                self.seen.add(result.task.id)
            super().put(results)


class TestThreads(Case):
    breaks = "test_four_threads_lose_no_result"
    says = "are not stored"

    class broken(Reference):
        pending: Sequence[Result] = ()

        def put(self, results: Sequence[Result]) -> None:
            # What a buffer that threads share without a lock comes to.
            self.pending = list(results)
            time.sleep(0.005)
            super().put(self.pending)


class TestRejectsAll(Case):
    breaks = "test_a_result_too_large_is_rejected_by_name_and_the_others_are_stored"
    says = "names what can never be stored"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            if any(len(result.outcome.payload) > LIMIT for result in results):
                raise Rejected("The batch is too large.", [result.task.id for result in results])
            super().put(results)


class TestGivesUpWhenAway(Case):
    breaks = "test_a_place_that_went_away_is_unavailable"
    says = "raised Rejected"

    class broken(Reference):
        def unavailable(self) -> Exception:
            return Rejected("There is no such store.")


class TestKnowsTooMuch(Case):
    breaks = "test_stored_never_names_a_task_without_a_result"
    says = "it would never run"

    class broken(Reference):
        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            return [task.id for task in tasks]


class TestKnowsTooLittle(Case):
    breaks = "test_stored_names_the_tasks_that_have_a_result"
    says = "`stored` names 1"

    class broken(Reference):
        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            return list(super().stored(tasks))[:1]


class TestGetsHalf(Case):
    breaks = "test_get_finds_the_results_that_are_there"
    says = "`get` found 1 of 2"

    class broken(Reference):
        def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
            return {task_id: result for task_id, result in super().get(task_ids).items() if not result.outcome.failure}


class TestListsAll(Case):
    breaks = "test_failed_lists_the_failures_alone"
    says = "`failed` lists 2 of 1 failures"

    class broken(Reference):
        def failed(self) -> Iterator[Result]:
            return (result for _, result in self.scan())


class TestKeepsFailures(Case):
    breaks = "test_a_later_generation_replaces_a_failure"
    says = "has not replaced the failure"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            super().put(
                [result for result in results if not super(TestKeepsFailures.broken, self).get([result.task.id])]
            )


class TestTakesWhatComesLate(Case):
    breaks = "test_an_earlier_generation_replaces_nothing"
    says = "a late failure of an earlier generation has replaced a success"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            with sqlite3.connect(self.config.path) as file:
                file.executemany("DELETE FROM results WHERE task_id = ?", [(result.task.id,) for result in results])
            super().put(results)


class TestReplacesSuccesses(Case):
    breaks = "test_a_success_is_not_replaced_by_a_later_generation"
    says = "a later failure has replaced a success"
    broken = TestTakesWhatComesLate.broken


class TestStoredKnowsNoGenerations(Case):
    breaks = "test_stored_does_not_name_a_task_whose_failure_is_of_an_earlier_generation"
    says = "`stored` names a task that is to run again"

    class broken(Reference):
        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            return list(self.get([task.id for task in tasks]))

"""For every rule about sinks a sink that breaks it. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import pytest
from htcgrid_contracts import ResultSinkContract, contract_function
from outages import Outages, Reachable, StaysAway
from pydantic import SecretStr

from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.spi import FailureKind, Plugin, Rejected, Result, ResultSink, StoreStats, Task, Unavailable

LIMIT = 300_000


class Reference(Reachable, SqliteSink):
    """A good sink: a SQLite file, with a limit on what it takes."""

    def stored(self, tasks: Sequence[Task]) -> Collection[str]:
        self._reach()
        return super().stored(tasks)

    def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
        self._reach()
        return super().get(task_ids)

    def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
        self._reach()
        return super().scan(session_id, after)

    def failed(self) -> Iterator[Result]:
        self._reach()
        return super().failed()

    def has_failed(self) -> bool:
        self._reach()
        return super().has_failed()

    def stats(self) -> StoreStats:
        self._reach()
        return super().stats()

    def wait_for_more(self, seconds: float) -> bool:
        self._reach()
        return super().wait_for_more(seconds)

    def add_run(self, document: bytes) -> None:
        self._reach()
        super().add_run(document)

    def runs(self) -> Iterator[bytes]:
        self._reach()
        return super().runs()

    def put(self, results: Sequence[Result]) -> None:
        self._reach()
        large = [result.task.id for result in results if len(result.outcome.payload) > LIMIT]
        super().put([result for result in results if result.task.id not in large])
        if large:
            raise Rejected(f"Too large to be stored: {', '.join(large)}.", large)


class Case(Outages, ResultSinkContract):
    breaks = ""
    says = ""
    broken: type[Any] = Reference
    too_large = LIMIT + 1
    largest_payload = LIMIT - 20

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


class TestCountsCharacters(Case):
    breaks = "test_a_result_too_large_is_rejected_by_name_and_the_others_are_stored"
    says = "names what can never be stored"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            large = [result.task.id for result in results if len(result.outcome.payload.decode()) > LIMIT]
            SqliteSink.put(self, [result for result in results if result.task.id not in large])
            if large:
                raise Rejected(f"Too large to be stored: {', '.join(large)}.", large)


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


class TestTakesAnswersThatComeLate(Case):
    breaks = "test_a_late_answer_of_an_earlier_generation_replaces_nothing"
    says = "a late answer has replaced that of a redrive"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            answers = [(result.task.id,) for result in results if result.outcome.failure is None]
            with sqlite3.connect(self.config.path) as file:
                file.executemany("DELETE FROM results WHERE task_id = ?", answers)
            super().put(results)


class TestLastOfAPutStands(Case):
    breaks = "test_of_two_generations_in_one_put_the_later_one_stands"
    says = "the earlier generation came second and has replaced the later one"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            super().put(list({result.task.id: result for result in results}.values()))


class TestReplacesTheFirstOfABatch(Case):
    breaks = "test_a_full_batch_of_a_later_generation_replaces_each_failure"
    says = "50 have not the later generation"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            known = self.get([result.task.id for result in results])
            super().put([each for number, each in enumerate(results) if number < 150 or each.task.id not in known])


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


class TestTakesWhatWasThrottledForStored(Case):
    breaks = "test_what_was_throttled_is_stored_when_it_is_put_again"
    says = "are not stored"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            self.noted: set[str] = getattr(self, "noted", set())
            left = [each for each in results if each.task.id not in self.noted]
            self.noted |= {each.task.id for each in results}
            super().put(left)


class TestTakesAPageWithoutAFailureForTheEnd(Case):
    breaks = "test_failed_lists_failures_behind_megabytes_of_answers"
    says = "`failed` lists"

    class broken(Reference):
        def failed(self) -> Iterator[Result]:
            page: list[Result] = []
            for _, each in super().scan():
                page.append(each)
                if len(page) == 100:
                    if all(one.outcome.failure is None for one in page):
                        return
                    yield from [one for one in page if one.outcome.failure is not None]
                    page = []
            yield from [one for one in page if one.outcome.failure is not None]


class TestScansBackwards(Case):
    breaks = "test_scan_gives_results_in_the_order_they_were_stored"
    says = "`scan` has another order"

    class broken(Reference):
        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            return reversed(list(super().scan(session_id, after)))


class TestReadsAlone(Case):
    breaks = "test_it_can_be_read_beside_a_run_that_writes"
    says = "another run is writing"

    class broken(Reference):
        def open_to_read(self) -> None:
            raise Rejected("another run is writing to it")


class TestCountsTwice(Case):
    breaks = "test_stats_count_what_is_stored"
    says = "`stats` says 4"

    class broken(Reference):
        def stats(self) -> StoreStats:
            stats = super().stats()
            return replace(stats, stored=2 * (stats.stored or 0))


class TestHasAlwaysFailed(Case):
    breaks = "test_without_a_failure_nothing_has_failed"
    says = "and there is none"

    class broken(Reference):
        def has_failed(self) -> bool:
            return True


class TestForgetsWhatRan(Case):
    breaks = "test_what_ran_can_be_read_back"
    says = "`runs` gives 0 of them"

    class broken(Reference):
        def runs(self) -> Iterator[bytes]:
            return iter(())


class TestKeepsOneRunAtATime(Case):
    breaks = "test_agents_may_add_what_ran_at_the_same_time"
    says = "16 runs were added side by side"

    class broken(Reference):
        def runs(self) -> Iterator[bytes]:
            return iter(list(super().runs())[-2:])


class TestCountsRuns(Case):
    breaks = "test_a_run_is_not_a_result"
    says = "a run was added, and `stats` says"

    class broken(Reference):
        def stats(self) -> StoreStats:
            stats = super().stats()
            return replace(stats, stored=(stats.stored or 0) + len(list(self.runs())))


class TestUsageOfAnotherKind(Case):
    breaks = "test_what_it_says_of_itself_can_be_asked_at_any_time"
    says = "return a Usage, or None"

    class broken(Reference):
        def usage(self) -> Any:
            return {"requests": 1}


# --- pages, writers, and all that was put ---


class TestMixesUpABatch(Case):
    breaks = "test_each_result_of_a_batch_is_stored_as_it_is"
    says = "of a batch of"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            answer = results[0].outcome.payload
            super().put([replace(each, outcome=replace(each.outcome, payload=answer)) for each in results])


class TestCutsLargeAnswers(Case):
    breaks = "test_a_large_answer_is_stored_whole"
    says = "found 100000"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            return replace(result, outcome=replace(result.outcome, payload=result.outcome.payload[:100_000]))


class TestIgnoresCase(Case):
    breaks = "test_ids_that_differ_are_different_tasks"
    says = "have a result, and `stored` names"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            task_id = result.task.id.lower()
            return replace(
                result, task=replace(result.task, id=task_id), outcome=replace(result.outcome, task_id=task_id)
            )


class TestFailsOnTwice(Case):
    breaks = "test_an_id_twice_in_a_batch_or_from_two_writers_is_one_result"
    says = "UNIQUE"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            assert len({each.task.id for each in results}) == len(results), "UNIQUE constraint failed"
            super().put(results)


class TestKnowsItsOwn(Case):
    breaks = "test_stored_sees_what_another_has_put"
    says = "`stored` names 0 of the 3"

    class broken(Reference):
        mine: Collection[str] = ()

        def put(self, results: Sequence[Result]) -> None:
            self.mine = {*self.mine, *(each.task.id for each in results)}
            super().put(results)

        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            return [task_id for task_id in super().stored(tasks) if task_id in self.mine]


class TestLooksAtAPage(Case):
    breaks = "test_stored_looks_at_every_task_that_it_is_asked_about"
    says = "have a result, `stored` names"

    class broken(Reference):
        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            return super().stored(tasks[:100])


class TestNoneIsZero(Case):
    breaks = "test_get_returns_all_that_was_put"
    says = "'init_ms': (None, 0.0)"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            return replace(result, outcome=replace(result.outcome, init_ms=result.outcome.init_ms or 0.0))


class TestScansAPage(Case):
    breaks = "test_scan_goes_through_all_pages_and_sessions"
    says = "and `scan` gives 1000"

    class broken(Reference):
        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            return islice(super().scan(session_id, after), 1000)


class TestCommitsOutOfOrder(Case):
    breaks = "test_scan_misses_none_of_eight_writers"
    says = "missed"
    wait_factor = 0.2

    class broken(Reference):
        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            # What a reader sees where numbers are given before they are committed.
            found = list(super().scan(session_id, after))
            return iter(found[1:] if after == 0 else found)


class TestSwallowsOutages(Case):
    breaks = "test_every_call_says_unavailable_once_its_place_went_away"
    says = "stored raised nothing"

    class broken(Reference):
        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            return () if self.away else super().stored(tasks)


class TestNamesItself(Case):
    breaks = "test_it_knows_its_agent_by_name"
    says = "`agent` was set before `open`, and is 'me' after it"

    class broken(Reference):
        def open(self) -> None:
            super().open()
            self.agent = "me"


class TestThrottledIsStored(Case):
    breaks = "test_throttling_is_unavailable"
    says = "raised nothing"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            try:
                super().put(results)
            except Unavailable:
                return


class TestOneKind(Case):
    breaks = "test_stats_count_failures_by_their_kind"
    says = "and `stats` says {'handler_error': 9}"

    class broken(Reference):
        def stats(self) -> StoreStats:
            stats = super().stats()
            return replace(stats, failures={"handler_error": sum((stats.failures or {}).values())})


class TestAFailureReplacesAnAnswer(Case):
    breaks = "test_an_answer_is_not_replaced_by_a_failure"
    says = "a failure of the same generation has replaced an answer"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            failures = [(result.task.id,) for result in results if result.outcome.failure is not None]
            with sqlite3.connect(self.config.path) as file:
                file.executemany("DELETE FROM results WHERE task_id = ?", failures)
            super().put(results)


class TestLastStays(Case):
    breaks = "test_a_result_of_the_same_generation_replaces_nothing"
    says = "an answer of the same generation has replaced a failure"
    broken = TestTakesWhatComesLate.broken


class TestRemembersFailures(Case):
    breaks = "test_what_was_replaced_has_not_failed"
    says = "all failures were replaced by answers"

    class broken(Reference):
        def has_failed(self) -> bool:
            return True


class TestFailedIsAPage(Case):
    breaks = "test_failed_lists_all_of_many_failures"
    says = "and `failed` lists 100"

    class broken(Reference):
        def failed(self) -> Iterator[Result]:
            return islice(super().failed(), 100)


class TestListsTwice(Case):
    breaks = "test_every_result_is_each_task_once"
    says = "1100 results were put, and `every_result` lists 2200"

    class broken(Reference):
        def every_result(self) -> Iterator[Result]:
            for result in super().every_result():
                yield from (result, result)


class TestReportsNoTimes(Case):
    breaks = "test_every_result_is_each_task_once"
    says = "`every_result` lists other figures than were put"

    class broken(Reference):
        def every_result(self) -> Iterator[Result]:
            for result in super().every_result():
                yield replace(result, outcome=replace(result.outcome, duration_ms=0.0))


class TestReadsDecimals(Case):
    breaks = "test_what_is_read_has_the_types_of_the_interface"
    says = "of `get`: Result.outcome.billed_ms is a decimal.Decimal, and should be int"

    class broken(Reference):
        def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
            return {
                key: replace(each, outcome=replace(each.outcome, billed_ms=Decimal(each.outcome.billed_ms)))  # type: ignore[arg-type]
                for key, each in super().get(task_ids).items()
            }


class TestReadsKindsAsTexts(Case):
    breaks = "test_what_is_read_has_the_types_of_the_interface"
    says = "of `scan`: Result.outcome.failure is a builtins.str, and should be htcgrid.spi.values.FailureKind | None"

    class broken(Reference):
        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            for number, each in super().scan(session_id, after):
                kind = each.outcome.failure
                yield number, replace(each, outcome=replace(each.outcome, failure=kind and str(kind)))  # type: ignore[arg-type]


class TestScansUnsaid(Case):
    breaks = "test_what_can_be_read_is_said"
    says = "`keeps_order` is False, and there is a `scan`"

    class broken(Reference):
        keeps_order = False


class TestTellsNobody(Case):
    breaks = "test_who_waits_is_told_of_what_another_has_put"
    says = "whoever waits is not told"

    class broken(Reference):
        def wait_for_more(self, seconds: float) -> bool:
            return False


# --- beside other agents and commands ---


class TestOverlooksKinds(Case):
    breaks = "test_a_failure_of_any_kind_has_failed"
    says = "a failure of the kind cancelled, and `has_failed` says none is"

    class broken(Reference):
        def has_failed(self) -> bool:
            return any(each.outcome.failure is not FailureKind.CANCELLED for each in self.failed())


class TestReportsWhatWasReplaced(Case):
    breaks = "test_every_result_lists_no_failure_that_was_replaced"
    says = "and `every_result` lists 3 results, 2 of them failures"

    class broken(Reference):
        replaced: Sequence[Result] = ()

        def put(self, results: Sequence[Result]) -> None:
            found = self.get([each.task.id for each in results])
            kind = type(self)
            kind.replaced = [*self.replaced, *(each for each in found.values() if each.outcome.failure)]
            super().put(results)

        def every_result(self) -> Iterator[Result]:
            yield from super().every_result()
            yield from self.replaced


class TestCountsItsOwn(Case):
    breaks = "test_stats_are_the_same_for_every_agent"
    says = "the `stats` of one of them says 1"

    class broken(Reference):
        mine = 0

        def put(self, results: Sequence[Result]) -> None:
            super().put(results)
            self.mine += len(results)

        def stats(self) -> StoreStats:
            return replace(super().stats(), stored=self.mine)


class TestLooksAndThenPuts(Case):
    breaks = "test_agents_that_put_the_same_tasks_at_once_leave_one_result_each"
    says = "UNIQUE constraint failed"

    class broken(Reference):
        under_way: ClassVar[set[str]] = set()

        def put(self, results: Sequence[Result]) -> None:
            ids = {each.task.id for each in results}
            assert not ids & self.under_way, "UNIQUE constraint failed"
            self.under_way.update(ids)
            time.sleep(0.01)
            super().put(results)
            self.under_way.difference_update(ids)


class TestReadersHoldTheLock(Case):
    breaks = "test_who_reads_holds_up_no_put"
    says = "1 of 1 calls side by side had not returned"
    wait_factor = 0.05

    class broken(Reference):
        lock: ClassVar = threading.RLock()

        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            with self.lock:
                yield from super().scan(session_id, after)

        def put(self, results: Sequence[Result]) -> None:
            with self.lock:
                super().put(results)


class TestTellsAtOnce(Case):
    breaks = "test_who_waits_is_told_while_it_waits"
    says = "returned after 0.0"

    class broken(Reference):
        def wait_for_more(self, seconds: float) -> bool:
            return super().wait_for_more(0)


# --- numbers, generations and what changes ---


class TestCutsBills(Case):
    breaks = "test_large_numbers_are_stored_as_they_are"
    says = "billed_ms 2592000001 was stored as 2147483647"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            outcome = replace(result.outcome, billed_ms=min(result.outcome.billed_ms, 2**31 - 1))
            return replace(result, outcome=outcome)


class TestZeroIsNothing(Case):
    breaks = "test_zero_is_stored_as_zero"
    says = "0 was stored as {'init_ms': None}"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            return replace(result, outcome=replace(result.outcome, init_ms=result.outcome.init_ms or None))


class TestGenerationsAreTexts(Case):
    breaks = "test_the_generations_of_results_are_numbers"
    says = "and `stored` names it in 10"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            text = result.task.attributes.get("generation", "0")
            attributes = {**result.task.attributes, "generation": str(ord(text[0]))}
            return replace(result, task=replace(result.task, attributes=attributes))


class TestKeepsTheNumberOfWhatIsReplaced(Case):
    breaks = "test_whoever_follows_is_given_what_replaces_a_failure"
    says = "`scan` after the last number seen gives 0 results"

    class broken(Reference):
        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            generations = (pair for pair in super().scan(session_id, after))
            return (
                (number, each) for number, each in generations if not (after and "generation" in each.task.attributes)
            )


class TestLooksForFailuresAmongTheLast(Case):
    breaks = "test_one_failure_among_many_answers_has_failed"
    says = "and `has_failed` says none is"

    class broken(Reference):
        def has_failed(self) -> bool:
            last = max((number for number, _ in self.scan()), default=0)
            return any(each.outcome.failure for _, each in self.scan(after=last - 100))


class TestKeepsItsStats(Case):
    breaks = "test_stats_follow_what_is_put"
    says = "2 results are stored one by one, and `stats` says 1"

    class broken(Reference):
        known: StoreStats | None = None

        def stats(self) -> StoreStats:
            self.known = self.known or super().stats()
            return self.known


class TestTellsTheRateOfAMinute(Case):
    breaks = "test_the_rate_is_by_the_second"
    says = "and per_second is 60"

    class broken(Reference):
        def stats(self) -> StoreStats:
            return replace(super().stats(), per_second=60.0)


class TestStaysAway(Case):
    breaks = "test_a_place_that_came_back_is_used_again"
    says = "the place came back, and it still says: The place is away."
    wait_factor = 0.1

    class broken(StaysAway, Reference):
        pass


class TestReadsUnderTheLockOfPut(Case):
    breaks = "test_who_reads_holds_up_no_put"
    says = "had not returned after"
    wait_factor = 0.1

    class broken(Reference):
        lock = threading.Lock()

        def put(self, results: Sequence[Result]) -> None:
            with self.lock:
                super().put(results)

        def failed(self) -> Iterator[Result]:
            with self.lock:
                yield from super().failed()


class TestRunsInReverse(Case):
    breaks = "test_what_ran_can_be_read_back"
    says = "and `runs` gives the second one first"

    class broken(Reference):
        def runs(self) -> Iterator[bytes]:
            return reversed(list(super().runs()))


class TestGivesAPageOfRuns(Case):
    breaks = "test_every_run_of_many_can_be_read_back"
    says = "and `runs` gives 100"

    class broken(Reference):
        def runs(self) -> Iterator[bytes]:
            return islice(super().runs(), 100)


class TestTellsOfNewTasksAlone(Case):
    breaks = "test_whoever_follows_is_given_what_replaces_a_failure"
    says = "and `wait_for_more` says that nothing was stored"
    wait_factor = 0.1

    class broken(Reference):
        known = -1

        def wait_for_more(self, seconds: float) -> bool:
            stored = super().stats().stored or 0
            before, self.known = self.known, stored
            return stored != before


class TestKeepsLocalTimes(Case):
    breaks = "test_a_time_is_the_same_in_every_time_zone"
    says = "read in another, 26 hours apart"

    class broken(Changed):
        def changed(self, result: Result) -> Result:
            return replace(result, outcome=replace(result.outcome, started=result.outcome.started - time.timezone))

        def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
            return {
                task_id: replace(each, outcome=replace(each.outcome, started=each.outcome.started + time.timezone))
                for task_id, each in super().get(task_ids).items()
            }

    def read_back(self, sink: ResultSink, task_ids: Sequence[str]) -> Sequence[Result]:
        assert isinstance(sink, Reference)
        return list(sink.get(task_ids).values())


class TestKeepsTheFirstAttributes(Case):
    breaks = "test_failed_tells_the_task_that_failed_last"
    says = "one of two failures was replaced by a failure of generation 1"

    class broken(Reference):
        def failed(self) -> Iterator[Result]:
            for each in super().failed():
                attributes = {name: text for name, text in each.task.attributes.items() if name != "generation"}
                yield replace(each, task=replace(each.task, attributes=attributes))


class TestRunsAgainWhatHasAnAnswer(Case):
    breaks = "test_a_success_is_not_replaced_by_a_later_generation"
    says = "a task has an answer, and `stored` does not name it in generation 1"

    class broken(Reference):
        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            return super().stored([task for task in tasks if "generation" not in task.attributes])


class TestGetStripsIds(Case):
    breaks = "test_ids_that_differ_are_different_tasks"
    says = "have a result, and `get` finds"

    class broken(Reference):
        def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
            return {task_id.strip(): each for task_id, each in super().get(task_ids).items()}


# --- several who read ---


class TestGetsEachIdOnce(Case):
    breaks = "test_a_call_with_nothing_in_it_does_nothing"
    says = "get of an id twice is allowed, and raised ValueError"

    class broken(Reference):
        def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
            if len(set(task_ids)) < len(task_ids):
                raise ValueError("Provided list of item keys contains duplicates")
            return super().get(task_ids)


class TestGetEndsWithAPage(Case):
    breaks = "test_several_large_answers_go_through_one_call"
    says = "`get` finds 2 of"

    class broken(Reference):
        def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
            found, size = {}, 0
            for task_id, each in super().get(task_ids).items():
                size += len(each.outcome.payload)
                if size > 2.5 * LIMIT:
                    break
                found[task_id] = each
            return found


class TestSessionsWithoutCase(Case):
    breaks = "test_sessions_are_told_apart_by_their_whole_names"
    says = "the session 's-1' has one result, and `scan` of it gives 2"

    class broken(Reference):
        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            wanted = None if session_id is None else session_id.lower()
            for number, each in super().scan(None, after):
                if wanted in {None, each.task.attributes.get("session_id", "").lower()}:
                    yield number, each


class TestReadersShareACursor(Case):
    breaks = "test_two_may_read_at_once"
    says = "of two that were within `failed` at once"

    class broken(Reference):
        rows: Iterator[Result] = iter(())

        def failed(self) -> Iterator[Result]:
            self.rows = super().failed()
            while (each := next(self.rows, None)) is not None:
                yield each


class TestKeepsConnectionsOfReaders(Case):
    breaks = "test_a_reading_may_be_left"
    says = "`failed` was left 10 times after its first result"

    class broken(Reference):
        taken = 0

        def failed(self) -> Iterator[Result]:
            if self.taken >= 10:
                raise Unavailable("The pool has no connection left.")
            self.taken += 1
            yield from super().failed()
            self.taken -= 1


class TestReadsASnapshot(Case):
    breaks = "test_a_reader_sees_what_is_stored_after_it_was_opened"
    says = "what was stored after a reader was opened"
    wait_factor = 0.2

    class broken(Reference):
        then: Collection[str] | None = None

        def open_to_read(self) -> None:
            super().open_to_read()
            self.then = {each.task.id for each in super().failed()}

        def failed(self) -> Iterator[Result]:
            return (each for each in super().failed() if self.then is None or each.task.id in self.then)


class TestReadersLeaveAFile(Case):
    breaks = "test_a_reader_releases_all_that_it_took"
    says = "3 more open file descriptors"
    wait_factor = 0.2

    class broken(Reference):
        def open_to_read(self) -> None:
            super().open_to_read()
            os.open(os.devnull, os.O_RDONLY)


class TestReadsWhatIsNotThere(Case):
    breaks = "test_a_reader_of_a_place_that_is_not_there_is_told"
    says = "`open_to_read` went through"

    @pytest.fixture
    def missing(self, tmp_path: Path) -> Plugin:
        class Empty(Reference):
            def open_to_read(self) -> None:
                """Where there is no file there is no result."""

            def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
                return iter(())

            def failed(self) -> Iterator[Result]:
                return iter(())

        return Empty(Empty.Config(path=tmp_path / "no-such-folder" / "grid.db"), contract_function())


class TestTellsOneThread(Case):
    breaks = "test_each_thread_that_waits_is_told"
    says = "a thread's first call said that nothing was stored"
    wait_factor = 0.2

    class broken(Reference):
        number = -1

        def wait_for_more(self, seconds: float) -> bool:
            before, changes = self.number, self._file.changes
            self.number = changes.number if before < 0 else changes.wait(before, seconds)
            return self.number != before


class TestALineBreakTakesTheNextAlong(Case):
    breaks = "test_no_answer_harms_another"
    says = "1 of 16 results are not stored"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            broken = {at + 1 for at, each in enumerate(results) if b"\n" in each.outcome.payload}
            super().put([each for at, each in enumerate(results) if at not in broken])


# --- threads, readers, and many at once ---


class TestOpensInTurn(Case):
    breaks = "test_agents_may_open_a_new_place_at_the_same_time"
    says = "of 4 agents that opened a new place at once one raised OperationalError('table results already exists')"

    class broken(Reference):
        _one = threading.Lock()

        def open(self) -> None:
            is_new = not self.config.path.exists()
            time.sleep(0.3)
            with self._one:
                if is_new and self.config.path.exists():
                    raise sqlite3.OperationalError("table results already exists")
                super().open()


class TestAnswersOneThread(Case):
    breaks = "test_every_call_works_in_any_thread"
    says = "`stats` in another thread raised ProgrammingError"

    class broken(Reference):
        def open(self) -> None:
            self.owner = threading.get_ident()
            super().open()

        def stats(self) -> StoreStats:
            if threading.get_ident() != self.owner:
                raise sqlite3.ProgrammingError(
                    "SQLite objects created in a thread can only be used in that same thread."
                )
            return super().stats()


class TestLeavesTheFilesOfThreads(Case):
    breaks = "test_close_releases_all_that_open_took"
    says = "after open, calls from two threads, and close"
    left: ClassVar[list[Any]] = []

    class broken(Reference):
        local = threading.local()

        def stored(self, tasks: Sequence[Task]) -> Collection[str]:
            if getattr(self.local, "file", None) is None:
                self.local.file = Path(os.devnull).open()  # noqa: SIM115 - to be left open
                TestLeavesTheFilesOfThreads.left.append(self.local.file)
            return super().stored(tasks)

        def close(self) -> None:
            if getattr(self.local, "file", None) is not None:
                self.local.file.close()
                self.local.file = None
            super().close()


class TestReadsNoRuns(Case):
    breaks = "test_a_reader_is_told_the_same_as_a_writer"
    says = "`runs` after `open_to_read` must be as after `open`"

    class broken(Reference):
        is_reader = False

        def open_to_read(self) -> None:
            self.is_reader = True
            super().open_to_read()

        def runs(self) -> Iterator[bytes]:
            return iter(()) if self.is_reader else super().runs()


class TestPagesByOffset(Case):
    breaks = "test_what_is_replaced_while_it_is_read_hides_no_other"
    says = "1100 failures were stored; once 600 were read by `failed` these were replaced"

    class broken(Reference):
        def failed(self) -> Iterator[Result]:
            offset = 0
            while rows := list(super().failed())[offset : offset + 500]:
                yield from rows
                offset += len(rows)


class TestLogsItsPassword(Case):
    breaks = "test_its_errors_and_repr_keep_secrets"
    says = "a secret is in what it logs"

    class broken(Reference):
        class Config(SqliteSink.Config):
            password: SecretStr = SecretStr("hunter22")

        config: Config

        def open(self) -> None:
            logging.getLogger("htcgrid_grid").info("connected with %s", self.config.password.get_secret_value())
            super().open()


class TestShowsTheParametersOfItsConnection(Case):
    breaks = "test_its_errors_and_repr_keep_secrets"
    says = "SecretStr"

    class broken(Reference):
        class Config(SqliteSink.Config):
            dsn: str = "host=db.example user=grid password=hunter22"


class TestKeepsTheLogOfTheFailure(Case):
    breaks = "test_a_later_generation_replaces_a_failure"
    says = "a result replaced a failure, and is Outcome("

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            there = super().get([each.task.id for each in results])
            logs = {task_id: each.outcome.log_tail for task_id, each in there.items()}
            super().put(
                [
                    replace(each, outcome=replace(each.outcome, log_tail=logs.get(each.task.id, each.outcome.log_tail)))
                    for each in results
                ]
            )


class TestSharesWhatItFound(Case):
    breaks = "test_calls_of_every_kind_may_come_side_by_side"
    says = "a thread asked for a result that is there and one that is not"

    class broken(Reference):
        found: Mapping[str, Result] = {}

        def get(self, task_ids: Sequence[str]) -> Mapping[str, Result]:
            self.found = super().get(task_ids)
            time.sleep(0.002)
            return self.found


class TestCountsNothingAsUnknown(Case):
    breaks = "test_an_empty_store_is_told_as_empty"
    says = "`stored` is told of a store with a result, and is None of an empty one"

    class broken(Reference):
        def stats(self) -> StoreStats:
            found = super().stats()
            return found if found.stored else StoreStats()


class TestTripsOverANul(Case):
    breaks = "test_any_text_in_an_attribute_is_stored_or_rejected_by_name"
    says = "raised ValueError: A string literal cannot contain NUL"

    class broken(Reference):
        def put(self, results: Sequence[Result]) -> None:
            if any("\0" in text for result in results for text in result.task.attributes.values()):
                raise ValueError("A string literal cannot contain NUL (0x00) characters.")
            super().put(results)


class TestWaitsOnThroughAnOutage(Case):
    breaks = "test_every_call_says_unavailable_once_its_place_went_away"
    says = "wait_for_more raised nothing though its place was taken away"

    class broken(Reference):
        def wait_for_more(self, seconds: float) -> bool:
            try:
                return super().wait_for_more(seconds)
            except Unavailable:
                return False

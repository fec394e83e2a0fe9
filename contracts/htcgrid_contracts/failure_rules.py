"""What a sink whose failures can be run again must do: `spi.ResultSink.failed`."""

import base64
import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest
from htcgrid.spi import GENERATION, FailureKind, Result, ResultSink

from htcgrid_contracts.common import PluginContract, not_asked

_ERROR = b'{"errorType": "E", "errorMessage": "m"}'


class FailureLogRules(PluginContract):
    """Asked of sinks with `failed`. Results are read after the sink that put them is closed."""

    def test_failed_lists_the_failures_alone(self, sink: ResultSink) -> None:
        """`failed` must list failures and no successes: `htcgrid failures` shows them, and `redrive` runs them again.
        Read: spi.ResultSink.failed."""
        good, bad = self._result(), self._failure(self._result())
        self._put(sink, [good], [bad])
        with self.again(sink) as log:
            assert log.has_failed(), "`has_failed` says that there is no failure, and there is one"
            found = [each for each in log.failed() if each.task.id in {good.task.id, bad.task.id}]
        assert [each.task.id for each in found] == [bad.task.id], f"`failed` lists {len(found)} of 1 failures"
        assert found[0].outcome.failure is FailureKind.HANDLER_ERROR
        for name in ("payload", "log_tail", "started", "duration_ms", "billed_ms", "max_memory_mb"):
            listed, put = getattr(found[0].outcome, name), getattr(bad.outcome, name)
            assert listed == put, f"put with the {name} {put!r}, and `failed` lists it with {listed!r}"
        assert found[0].attempt == bad.attempt, f"put at attempt {bad.attempt}, listed at attempt {found[0].attempt}"
        self._check_event(found[0], bad)

    def test_without_a_failure_nothing_has_failed(self, sink: ResultSink) -> None:
        """`has_failed` must be false where nothing failed: the exit code of a run depends on it.
        Read: spi.ResultSink.has_failed."""
        self._put(sink, [self._result()])
        with self.again(sink) as log:
            assert not log.has_failed(), "`has_failed` says that there is a failure, and there is none"

    @pytest.mark.parametrize("kind", list(FailureKind))
    def test_a_failure_of_any_kind_has_failed(self, sink: ResultSink, kind: FailureKind) -> None:
        """`has_failed` must be true after a failure of any kind: the exit code of a run depends on it.
        Read: spi.ResultSink.has_failed."""
        self._put(sink, [self._result()], [self._failure(self._result(), kind)])
        with self.again(sink) as log:
            assert log.has_failed(), f"a result is a failure of the kind {kind}, and `has_failed` says none is"

    def test_every_result_lists_no_failure_that_was_replaced(self, sink: ResultSink) -> None:
        """`every_result` must not list a failure that a later result replaced: a report counts what is listed.
        Read: spi.ResultSink.every_result."""
        if not sink.keeps_order and type(sink).every_result is ResultSink.every_result:
            not_asked("the sink has neither `scan` nor `every_result`")
        first, other = self._failure(self._result()), self._failure(self._result())
        self._put(sink, [first], [other], [self._again(self._result_of(first), 1)])
        with self.again(sink) as log:
            listed = sorted((each.task.id, each.outcome.failure is not None) for each in log.every_result())
        expected = sorted([(first.task.id, False), (other.task.id, True)])
        assert listed == expected, (
            f"of two failures one was replaced by an answer, and `every_result` lists {len(listed)} results, "
            f"{sum(failed for _, failed in listed)} of them failures"
        )

    def test_a_later_generation_replaces_a_failure(self, sink: ResultSink) -> None:
        """A result of a later generation must replace a failure, with all its fields: this is the purpose of a redrive.
        Read: spi.ResultSink.failed."""
        first, other = self._failure(self._result()), self._result()
        second = self._again(first, 1)
        third = self._again(replace(self._result_of(first), attempt=3), 2)
        changes: dict[str, Any] = {
            "duration_ms": 99.5,
            "billed_ms": 100,
            "max_memory_mb": 77,
            "log_tail": b"again",
            "environment": "e-2",
            "init_ms": None,  # it ran in an environment that was there
        }
        third = replace(third, outcome=replace(third.outcome, started=1_700_000_099.5, **changes))
        new = replace(third, task=other.task, outcome=replace(third.outcome, task_id=other.task.id))
        self._put(sink, [first], [second], [third], [new])
        with sink:
            stored, like_new = self._stored(sink, [first, other])
        assert stored.outcome.failure is None, "a success of a later generation has not replaced the failure"
        expected = replace(like_new.outcome, task_id=first.task.id)
        assert (stored.outcome, stored.attempt) == (expected, like_new.attempt), (
            f"a result replaced a failure, and is {stored.outcome}, attempt {stored.attempt}; where there was none it is "
            f"{expected}, attempt {like_new.attempt}"
        )
        with self.again(sink) as log:
            assert first.task.id not in {each.task.id for each in log.failed()}, "`failed` lists what was replaced"

    def test_an_earlier_generation_replaces_nothing(self, sink: ResultSink) -> None:
        """A result of an earlier generation must not replace a later one. An agent that was suspended may answer long
        after the redrive. Read: spi.ResultSink.failed."""
        late = self._failure(self._result())
        success, failure = self._again(self._result_of(late), 1), self._failure(self._result())
        newer = replace(self._again(failure, 1), attempt=5)
        self._put(sink, [late], [success], [late], [failure], [newer], [failure])
        with sink:
            stored = self._stored(sink, [late, failure])
        assert stored[0].outcome.failure is None, "a late failure of an earlier generation has replaced a success"
        assert stored[1].attempt == 5, "a late failure has replaced the failure of a later generation"

    def test_a_late_answer_of_an_earlier_generation_replaces_nothing(self, sink: ResultSink) -> None:
        """A late answer of an earlier generation must not replace a later result, not even a failure. It comes from the
        old code, and a user who has read the newer result must find the same one again. Read: spi.ResultSink.failed."""
        first, second = self._failure(self._result()), self._failure(self._result())
        answer, failure = self._again(self._result_of(first), 1), self._again(second, 2)
        late = [self._answer(first, b"1"), self._answer(second, b"1"), self._again(self._answer(second, b"1"), 1)]
        self._put(sink, [first], [second], [answer], [failure], *([each] for each in late))
        with sink:
            stored = self._stored(sink, [first, second])
        assert stored[0].outcome.payload == answer.outcome.payload, "a late answer has replaced that of a redrive"
        assert stored[1].outcome.failure is not None, "a late answer has replaced the failure of a later generation"

    def test_of_two_generations_in_one_put_the_later_one_stands(self, sink: ResultSink) -> None:
        """When one `put` has two generations of a task, the later one must stay. An agent may hold both, if it lost the
        lease of the first. Read: spi.ResultSink.failed."""
        if sink.max_batch < 2:
            not_asked("`max_batch` is 1: results are put one by one")
        first, second = self._failure(self._result()), self._failure(self._result())
        newer = [self._again(self._result_of(each), 1) for each in (first, second)]
        self._put(sink, [first], [newer[0], self._answer(first, b"1")], [second, newer[1]])
        with sink:
            stored = self._stored(sink, [first, second])
        assert stored[0].outcome.payload == newer[0].outcome.payload, (
            "the earlier generation came second and has replaced the later one"
        )
        assert stored[1].outcome.failure is None, (
            "the later generation came second and has not replaced the earlier one"
        )

    def test_a_full_batch_of_a_later_generation_replaces_each_failure(self, sink: ResultSink) -> None:
        """When a whole batch is of a later generation, each failure in it must be replaced, each success kept, and what
        is new stored: so it is after a redrive of many tasks. Read: spi.ResultSink.failed."""
        if sink.max_batch < 2:
            not_asked("`max_batch` is 1: results are put one by one")
        first = [self._result() for _ in range(min(sink.max_batch, 300))]
        first[::3] = [self._failure(each) for each in first[::3]]
        new, old = first[1::3], first[::3] + first[2::3]
        self._put(sink, old, [self._again(self._answer(each, b"1"), 1) for each in first])
        with sink:
            stored = {each.task.id: each.outcome for each in self._stored(sink, first)}
        wrong = sum(stored[each.task.id].payload != each.outcome.payload for each in first[2::3])
        assert not wrong, f"of {len(first[2::3])} successes {wrong} were replaced by the batch of a later generation"
        left = sum(stored[each.task.id].payload != b"1" for each in first[::3] + new)
        assert not left, f"of {len(first[::3] + new)} failures and new results {left} have not the later generation"

    def test_a_success_is_not_replaced_by_a_later_generation(self, sink: ResultSink) -> None:
        """A later generation must not replace a success: a user who has read an answer must find the same one again. So
        `stored` must name a task with an answer, whatever its generation. Read: spi.ResultSink.failed."""
        first = self._result()
        again = self._again(self._failure(first), 1)
        self._put(sink, [first])
        with self.again(sink) as opened:
            knows = type(sink).stored is not ResultSink.stored
            named = list(opened.stored([again.task])) if knows else [first.task.id]
            assert named == [first.task.id], "a task has an answer, and `stored` does not name it in generation 1"
            opened.put([again])
        with sink:
            (stored,) = self._stored(sink, [first])
        assert stored.outcome.failure is None, "a later failure has replaced a success"

    def test_stored_does_not_name_a_task_whose_failure_is_of_an_earlier_generation(self, sink: ResultSink) -> None:
        """`stored` must not return a task whose failure is of an earlier generation. Otherwise the agent acks the task
        and it does not run again. Read: spi.ResultSink.failed."""
        if type(sink).stored is ResultSink.stored:
            not_asked("`stored` is the default: this sink cannot know")
        bad = self._failure(self._result())
        again = self._again(bad, 1)
        self._put(sink, [bad])
        with self.again(sink) as opened:
            opened.stored([bad.task])  # what it found is not the answer to the next question
            assert not opened.stored([again.task]), "`stored` names a task that is to run again"
            opened.put([again])
            assert list(opened.stored([again.task])) == [again.task.id], "`stored` does not name what failed again"
            assert list(opened.stored([bad.task])) == [bad.task.id], "`stored` does not name an earlier generation"

    def test_an_answer_is_not_replaced_by_a_failure(self, sink: ResultSink) -> None:
        """A failure must not replace an answer of the same generation: where a task ran twice, its answer is what users wait
        for. Read: spi.ResultSink.failed."""
        answer = self._result()
        self._put(sink, [answer], [self._failure(answer)])
        with sink:
            (stored,) = self._stored(sink, [answer])
        assert stored.outcome.failure is None, "a failure of the same generation has replaced an answer"

    def test_a_result_of_the_same_generation_replaces_nothing(self, sink: ResultSink) -> None:
        """A second result of the same generation must not replace the first: a task that ran twice has one result.
        Read: spi.ResultSink.failed."""
        first = self._failure(self._result())
        again = replace(self._again(first, 1), attempt=3)
        self._put(sink, [first], [self._result_of(first)])
        with sink:
            (kept,) = self._stored(sink, [first])
        assert kept.outcome.failure is not None, "an answer of the same generation has replaced a failure"
        self._put(sink, [again], [replace(again, attempt=4)])
        with sink:
            (found,) = self._stored(sink, [first])
        assert found.attempt == 3, "a failure of the same later generation has replaced another"

    def test_failed_tells_the_task_that_failed_last(self, sink: ResultSink) -> None:
        """When a failure was replaced by the failure of a redrive, `failed` must list the attributes of the later task, with
        its generation: the next redrive counts on from there. Read: spi.ResultSink.failed."""
        if not self.failures_have_attributes:
            not_asked("the attributes of a failure are kept elsewhere")
        first, other = self._failure(self._result()), self._failure(self._result())
        again = self._again(self._failure(first, FailureKind.EXIT), 1)
        attributes = {**again.task.attributes, "city": "Basel"}
        again = replace(again, task=replace(again.task, payload=b'{"value": "again"}', attributes=attributes))
        self._put(sink, [first], [other], [again])
        with self.again(sink) as log:
            failures = {each.task.id: each for each in log.failed()}
            kinds = log.stats().failures
        expected = {"handler_error": 1, "exit": 1}
        assert kinds is None or {str(kind): n for kind, n in kinds.items() if n} == expected, (
            f"a failure was replaced by one of another kind: there are {expected}, and `stats` says {kinds}"
        )
        self._check_event(failures[first.task.id], again)
        found = {task_id: dict(each.task.attributes) for task_id, each in failures.items()}
        assert found == {each.task.id: dict(each.task.attributes) for each in (again, other)}, (
            f"one of two failures was replaced by a failure of generation 1, and `failed` lists {found}"
        )

    def test_what_was_replaced_has_not_failed(self, sink: ResultSink) -> None:
        """`has_failed` must be false once every failure was replaced by a success: the exit code depends on the results
        at the end. Read: spi.ResultSink.has_failed."""
        first, other = self._failure(self._result()), self._failure(self._result(), FailureKind.EXIT)
        self._put(sink, [first, other][: sink.max_batch], [other])
        with self.again(sink) as log:
            assert log.has_failed(), "two results are failures, and `has_failed` says none is"
            log.put([self._again(self._result_of(first), 1)])
            assert log.has_failed(), "a failure of the kind `exit` is left, and `has_failed` says none is"
            log.put([self._again(self._result_of(other), 1)])
            assert not log.has_failed(), "all failures were replaced by answers, and `has_failed` says there is one"
            failures = log.stats().failures
            assert not failures or not sum(failures.values()), f"all failures were replaced, and stats has {failures}"

    def test_failed_lists_all_of_many_failures(self, sink: ResultSink) -> None:
        """`failed` must list all of many failures, more than one page, each with the attributes of its task.
        Read: spi.ResultSink.failed."""
        bad = [self._failure(self._result(), kind) for _ in range(80) for kind in FailureKind]
        self._put(sink, *(bad[start : start + sink.max_batch] for start in range(0, len(bad), sink.max_batch)))
        with self.again(sink) as log:
            found = {each.task.id: each for each in log.failed()}
        assert len(found) == len(bad), f"{len(bad)} results are failures, and `failed` lists {len(found)}"
        for each in bad:
            listed = found[each.task.id]
            assert listed.outcome.failure is each.outcome.failure
            assert dict(listed.task.attributes) == dict(each.task.attributes) or not self.failures_have_attributes, (
                f"put with the attributes {each.task.attributes}, listed with {listed.task.attributes}"
            )
            self._check_event(listed, each)

    def test_failed_lists_failures_behind_megabytes_of_answers(self, sink: ResultSink) -> None:
        """`failed` must list the failures among many answers: a service may return a page in which nothing is a failure, and have
        more. Read: spi.ResultSink.failed."""
        size = 900
        results = [self._answer(self._result(), b'"%s"' % base64.b64encode(os.urandom(3000))) for _ in range(size)]
        bad = [self._failure(self._result()) for _ in range(3)]
        results[0], results[size // 2], results[-1] = bad
        self._put(sink, *(results[start : start + sink.max_batch] for start in range(0, size, sink.max_batch)))
        with self.again(sink) as log:
            found = {each.task.id for each in log.failed()}
            assert found == {each.task.id for each in bad}, (
                f"3 of {size} results are failures, among answers of 4 KB, and `failed` lists {len(found)}"
            )
            assert log.has_failed(), f"3 of {size} results are failures, and `has_failed` says none is"

    # --- helpers ---

    failures_have_attributes: bool = True
    """Whether `failed` gives the attributes of a task; a file of results may have them elsewhere."""
    failures_have_events: bool = False
    """Whether the sink keeps the event of each failure, and `failed` gives it; else it may be empty."""

    def _check_event(self, listed: Result, put: Result) -> None:
        if self.failures_have_events:
            assert listed.task.payload, "`failed` gives no event, and the sink keeps events (`failures_have_events`)"
        assert listed.task.payload in {b"", put.task.payload}, "the event in `failed` is not the one that was put"

    def _put(self, sink: ResultSink, *batches: Sequence[Result]) -> None:
        if not sink.lists_failures:
            not_asked("`lists_failures` is False: its failures cannot be run again by htcgrid")
        with self.again(sink) as opened:
            for batch in batches:
                opened.put(batch)

    def _result(self) -> Result:
        raise NotImplementedError

    def _stored(self, sink: ResultSink, expected: Collection[Result]) -> Sequence[Result]:
        raise NotImplementedError

    def _failure(self, result: Result, kind: FailureKind = FailureKind.HANDLER_ERROR) -> Result:
        return replace(result, outcome=replace(result.outcome, payload=_ERROR, failure=kind))

    def _result_of(self, failure: Result) -> Result:
        return self._answer(failure, b'{"price": 2}')

    def _answer(self, result: Result, payload: bytes) -> Result:
        return replace(result, outcome=replace(result.outcome, payload=payload, failure=None))

    def _again(self, result: Result, generation: int) -> Result:
        attributes = {**result.task.attributes, GENERATION: str(generation)}
        return replace(result, task=replace(result.task, attributes=attributes))

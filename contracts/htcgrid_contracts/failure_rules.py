"""What a sink whose failures can be run again must do: `spi.ResultSink.failed`."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from htcgrid.spi import GENERATION, FailureKind, Result, ResultSink

from htcgrid_contracts.common import PluginContract, not_asked

_ERROR = b'{"errorType": "E", "errorMessage": "m"}'


class FailureLogRules(PluginContract):
    """Asked of sinks that offer it. Results are read once the sink that put them is closed."""

    def test_failed_lists_the_failures_alone(self, sink: ResultSink) -> None:
        """`htcgrid failures` shows them, `redrive` runs them again. Read: spi.ResultSink.failed."""
        good, bad = self._result(), self._failure(self._result())
        self._put(sink, [good], [bad])
        with self.again(sink) as log:
            assert log.has_failed(), "`has_failed` says that there is no failure, and there is one"
            found = [each for each in log.failed() if each.task.id in {good.task.id, bad.task.id}]
        assert [each.task.id for each in found] == [bad.task.id], f"`failed` lists {len(found)} of 1 failures"
        assert found[0].outcome.failure is FailureKind.HANDLER_ERROR
        assert found[0].outcome.payload == bad.outcome.payload
        assert found[0].outcome.log_tail == bad.outcome.log_tail
        assert found[0].task.payload in {b"", bad.task.payload}, "the event in `failed` is not the one that was put"

    def test_without_a_failure_nothing_has_failed(self, sink: ResultSink) -> None:
        """The exit code of a run says so. Read: spi.ResultSink.has_failed."""
        self._put(sink, [self._result()])
        with self.again(sink) as log:
            assert not log.has_failed(), "`has_failed` says that there is a failure, and there is none"

    def test_a_later_generation_replaces_a_failure(self, sink: ResultSink) -> None:
        """That is what a redrive is for. Read: spi.ResultSink.failed."""
        first = self._failure(self._result())
        second = self._again(first, 1)
        third = self._again(self._result_of(first), 2)
        self._put(sink, [first], [second], [third])
        with sink:
            (stored,) = self._stored(sink, [first])
        assert stored.outcome.failure is None, "a success of a later generation has not replaced the failure"
        with self.again(sink) as log:
            assert first.task.id not in {each.task.id for each in log.failed()}, "`failed` lists what was replaced"

    def test_an_earlier_generation_replaces_nothing(self, sink: ResultSink) -> None:
        """An agent that was suspended answers when the redrive is long over. Read: spi.ResultSink.failed."""
        late = self._failure(self._result())
        success, failure = self._again(self._result_of(late), 1), self._failure(self._result())
        newer = replace(self._again(failure, 1), attempt=5)
        self._put(sink, [late], [success], [late], [failure], [newer], [failure])
        with sink:
            stored = self._stored(sink, [late, failure])
        assert stored[0].outcome.failure is None, "a late failure of an earlier generation has replaced a success"
        assert stored[1].attempt == 5, "a late failure has replaced the failure of a later generation"

    def test_a_success_is_not_replaced_by_a_later_generation(self, sink: ResultSink) -> None:
        """Whoever has read an answer must find it again. Read: spi.ResultSink.failed."""
        first = self._result()
        self._put(sink, [first], [self._again(self._failure(first), 1)])
        with sink:
            (stored,) = self._stored(sink, [first])
        assert stored.outcome.failure is None, "a later failure has replaced a success"

    def test_stored_does_not_name_a_task_whose_failure_is_of_an_earlier_generation(self, sink: ResultSink) -> None:
        """Named, it would be acked without running again. Read: spi.ResultSink.failed."""
        if type(sink).stored is ResultSink.stored:
            not_asked("`stored` is the default: this sink cannot know")
        bad = self._failure(self._result())
        again = self._again(bad, 1)
        self._put(sink, [bad])
        with self.again(sink) as opened:
            assert not opened.stored([again.task]), "`stored` names a task that is to run again"
            opened.put([again])
            assert list(opened.stored([again.task])) == [again.task.id], "`stored` does not name what failed again"
            assert list(opened.stored([bad.task])) == [bad.task.id], "`stored` does not name an earlier generation"

    # --- words ---

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

    def _failure(self, result: Result) -> Result:
        return replace(result, outcome=replace(result.outcome, payload=_ERROR, failure=FailureKind.HANDLER_ERROR))

    def _result_of(self, failure: Result) -> Result:
        return replace(failure, outcome=replace(failure.outcome, payload=b'{"price": 2}', failure=None))

    def _again(self, result: Result, generation: int) -> Result:
        attributes = {**result.task.attributes, GENERATION: str(generation)}
        return replace(result, task=replace(result.task, attributes=attributes))

"""What every result sink must do: `spi.ResultSink`, rule by rule."""

import os
import signal
import time
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

import pytest
from htcgrid.spi import FailureKind, Outcome, Plugin, Rejected, Result, ResultSink, ResultStore, Task

from htcgrid_contracts.common import in_threads, not_asked, unique_id
from htcgrid_contracts.failure_rules import FailureLogRules
from htcgrid_contracts.network_rules import NetworkRules
from htcgrid_contracts.payloads import AWKWARD_PAYLOADS
from htcgrid_contracts.reader_rules import ReaderRules
from htcgrid_contracts.recovery_rules import RecoveryRules
from htcgrid_contracts.run_rules import RunRules
from htcgrid_contracts.sink_beside_rules import SinkBesideRules
from htcgrid_contracts.sink_sharing_rules import SinkSharingRules
from htcgrid_contracts.stored_value_rules import StoredValueRules


def result(payload: bytes = b'{"price": 1.5}', failure: FailureKind | None = None) -> Result:
    """A result of a task that no other test has, with a value in every field."""
    task = Task(unique_id(), b'{ "value" : 1.0, "\\u00e9":[1e2]}', {"session_id": "s-1", "city": "Zürich"})
    outcome = Outcome(
        task.id,
        payload,
        failure,
        started=1_700_000_000.25,
        duration_ms=12.5,
        billed_ms=13,
        max_memory_mb=64,
        log_tail="printed é\n".encode(),
        init_ms=7.5,
        environment="e-1",
    )
    return Result(task, outcome, attempt=2)


class ResultSinkContract(
    SinkSharingRules,
    ReaderRules,
    StoredValueRules,
    SinkBesideRules,
    FailureLogRules,
    RunRules,
    RecoveryRules,
    NetworkRules,
):
    """Subclass it, and give the fixture `sink`: a sink, not opened, with a new and empty store.

    The kit reads with `read_back` what is stored, without the sink. See `PluginContract` for what else may be overridden.
    """

    too_large: int | None = None
    """Bytes of a payload that the sink can never store, where it has a limit."""

    # --- what a subclass gives ---

    @pytest.fixture
    def sink(self) -> ResultSink:
        """A sink, not opened, with a new and empty store."""
        pytest.fail("override the fixture `sink`: return a sink, not opened, with a new and empty store")

    def read_back(self, sink: ResultSink, task_ids: Sequence[str]) -> Sequence[Result]:
        """All results that are stored for these tasks, without using the sink: with the SDK, by reading the file.

        A task that has two results is there twice. The default uses `get` of a `ResultStore`, which
        proves less.
        """
        if not isinstance(sink, ResultStore):
            not_asked("override `read_back(sink, task_ids)`: read what is stored, without the plugin")
        return list(sink.get(task_ids).values())

    # --- fixtures ---

    @pytest.fixture
    def plugin(self, sink: ResultSink) -> ResultSink:
        return sink

    # --- what is stored ---

    def test_a_result_is_stored(self, sink: ResultSink) -> None:
        """`put` must store the id, answer, failure and attempt of a result: users ask for these.
        Read: spi.ResultSink.put."""
        with sink:
            put = result()
            sink.put([put])
            (stored,) = self._stored(sink, [put])
            assert stored.outcome.task_id == stored.task.id == put.task.id
            assert stored.outcome.payload == put.outcome.payload
            assert stored.outcome.failure is None, f"an answer was stored as the failure {stored.outcome.failure}"
            assert stored.attempt == put.attempt, f"attempt 2 was stored as attempt {stored.attempt}"

    @pytest.mark.parametrize("kind", list(FailureKind))
    def test_a_failure_is_stored_with_its_kind_and_document(self, sink: ResultSink, kind: FailureKind) -> None:
        """A failure must be stored with its kind and its error document. It is a result like any other.
        Read: spi.FailureKind, spi.Outcome."""
        with sink:
            put = result(b'{"errorType": "E", "errorMessage": "m"}', kind)
            sink.put([put])
            (stored,) = self._stored(sink, [put])
            assert stored.outcome.failure is kind, f"{kind} was stored as {stored.outcome.failure}"
            assert stored.outcome.payload == put.outcome.payload

    def test_the_facts_of_an_outcome_are_stored(self, sink: ResultSink) -> None:
        """Times, memory, billed time and log must be stored: users look up a result for these. Read: spi.Outcome."""
        with sink:
            put = result()
            sink.put([put])
            (stored,) = self._stored(sink, [put])
            names = ("started", "duration_ms", "billed_ms", "max_memory_mb", "log_tail", "init_ms", "environment")
            changed = [name for name in names if getattr(stored.outcome, name) != getattr(put.outcome, name)]
            assert not changed, f"changed or not stored: {', '.join(changed)}"

    @pytest.mark.parametrize("name", AWKWARD_PAYLOADS)
    def test_an_answer_is_stored_as_it_came(self, sink: ResultSink, name: str) -> None:
        """An answer must be stored with the same bytes. A plugin that parses JSON and writes it again changes numbers,
        the order of keys, or keys that come twice. Read: spi.Outcome."""
        with sink:
            put = result(AWKWARD_PAYLOADS[name])
            sink.put([put])
            (stored,) = self._stored(sink, [put])
            assert stored.outcome.payload == put.outcome.payload, (
                f"put {put.outcome.payload[:80]!r} ({len(put.outcome.payload)} bytes), "
                f"found {stored.outcome.payload[:80]!r} ({len(stored.outcome.payload)} bytes)"
            )

    def test_a_full_batch_is_stored(self, sink: ResultSink) -> None:
        """`put` must accept `max_batch` results in one call: the agent makes batches of that size.
        Read: spi.ResultSink.max_batch."""
        with sink:
            assert sink.max_batch >= 1, f"max_batch = {sink.max_batch}; it is 1 at least"
            results = tuple(result() for _ in range(min(sink.max_batch, 500)))
            sink.put(results)  # any sequence
            self._stored(sink, results)

    # --- once, and for good ---

    def test_a_result_outlives_a_process_that_is_killed_right_after_put(self, sink: ResultSink) -> None:
        """A result must survive when the process is killed right after `put`. The task is acked then, so a result that
        is only in memory is lost for good. Read: spi.ResultSink.put."""
        put = [result() for _ in range(min(sink.max_batch, 3))]
        status = _put_and_die(self.again(sink), put, 30 * self.wait_factor)
        assert status == -signal.SIGKILL, f"a process that put a result ended with status {status}: see what it printed"
        with sink:
            self._stored(sink, put)

    def test_a_result_is_there_after_close_and_open(self, sink: ResultSink) -> None:
        """A result must be there after `close` and `open`: users read results when the agent has ended.
        Read: spi.ResultSink.put."""
        put = result()
        with self.again(sink) as first:
            first.put([put])
        with sink:
            self._stored(sink, [put])

    def test_the_same_task_again_leaves_one_result(self, sink: ResultSink) -> None:
        """`put` of the same task again must leave one result. A task may run twice, and the agent repeats a `put` when
        its answer was lost. Read: spi.ResultSink.put."""
        with sink:
            put, other, last = result(), result(), result()
            sink.put([put])
            sink.put([put])
            if sink.max_batch > 1:
                sink.put([other, put])
                sink.put([put, last])
            else:
                for each in (other, last):
                    sink.put([each])
            self._stored(sink, [put, other, last])

    def test_four_threads_lose_no_result(self, sink: ResultSink) -> None:
        """When four threads put at the same time, every result must be stored. The agent calls from several threads.
        Read: spi, rules for all three."""
        with sink:
            piece = min(sink.max_batch, 5)
            results = [[result() for _ in range(piece)] for _ in range(40)]

            def work(number: int) -> None:
                for batch in results[number::4]:
                    sink.put(batch)

            in_threads([lambda number=number: work(number) for number in range(4)], 60 * self.wait_factor)  # type: ignore[misc]
            self._stored(sink, [each for batch in results for each in batch])

    def test_every_call_works_in_any_thread(self, sink: ResultSink) -> None:
        """Every call must work in another thread than the one that called `open`. The agent puts, asks and reads in several
        threads. Read: spi, rules for all three."""
        with sink:
            for where in ("another thread", "another thread, the second", "the thread that called `open`"):
                calls = self._calls(sink, result())
                for name, call in calls.items():
                    try:
                        call() if "open" in where else in_threads([call], 30 * self.wait_factor)
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
                        raise AssertionError(f"`{name}` in {where} raised {type(error).__name__}: {error}") from None

    # --- what cannot be stored ---

    def test_a_result_too_large_is_rejected_by_name_and_the_others_are_stored(self, sink: ResultSink) -> None:
        """`put` must raise Rejected with the id of a result that is too large, and store the others. One result must
        not stop its whole batch. Read: spi.Rejected, spi.ResultSink.put."""
        if self.too_large is None:
            not_asked("set `too_large`: the bytes of a payload that the sink can never store")
        with sink:
            size = 2 if sink.max_batch > 1 else 1
            texts = (b"x" * (self.too_large - 2), "é".encode() * (self.too_large // 2))  # the limit is in bytes
            large = [result(b'"' + text + b'"') for text in texts[:size]]
            others = [result() for _ in range(min(sink.max_batch - size, 2))]
            with pytest.raises(Rejected) as caught:
                sink.put([*others[:1], *large, *others[1:]])
            assert set(caught.value.task_ids) == {each.task.id for each in large}, (
                f"Rejected(task_ids=...) names what can never be stored, here {size} tasks; "
                f"it names {sorted(caught.value.task_ids)}"
            )
            self.keeps_secrets(sink, "the error of a result that is too large", str(caught.value))
            self._stored(sink, others)
            for _ in range(12):  # each may take a connection
                with pytest.raises(Rejected):
                    sink.put(large[:1])
            put = result()
            in_threads([lambda: sink.put([put])], 30 * self.wait_factor)
            self._stored(sink, [put])

    def test_a_place_that_went_away_is_unavailable(self, sink: ResultSink) -> None:
        """When the store cannot be reached, `put` must raise Unavailable. The agent then waits and puts the same
        results again. Read: spi.Unavailable."""
        with sink, self.away(sink):
            with self.unavailable("put", sink):
                sink.put([result()])
            sink.close()  # also while it is away
            self.opens_or_says_why(sink)
            reader = self.again(sink)
            self.says_unavailable(sink, "open_to_read", reader.open_to_read)
            reader.close()

    def test_what_was_throttled_is_stored_when_it_is_put_again(self, sink: ResultSink) -> None:
        """Results that the store refused since there were too many calls must be stored when they are put again: what was not
        written must not be taken for stored. Read: spi.Unavailable, spi.ResultSink.put."""
        self.needs("throttle")
        with sink:
            results = [result() for _ in range(min(sink.max_batch, 30))]
            with self.throttled(sink), self.unavailable("put of what the store refused", sink):
                sink.put(results)
            self.comes_back(lambda: sink.put(results), 30, "store")
            self._stored(sink, results)

    # --- what can be asked of it ---

    def test_stored_never_names_a_task_without_a_result(self, sink: ResultSink) -> None:
        """`stored` must not return a task that has no result: the agent acks such a task without running it.
        Read: spi.ResultSink.stored."""
        with sink:
            put, absent = result(), result()
            sink.put([put])
            named = set(sink.stored([put.task, absent.task]))
            assert absent.task.id not in named, "`stored` names a task that has no result: it would never run"
            assert named <= {put.task.id}, f"`stored` names tasks that it was not asked about: {sorted(named)}"

    def test_stored_names_the_tasks_that_have_a_result(self, sink: ResultSink) -> None:
        """`stored` must return the tasks that have a result. A run that was interrupted uses it to go on where it
        stopped. Read: spi.ResultSink.stored."""
        if type(sink).stored is ResultSink.stored:
            not_asked("`stored` is the default: this sink cannot know")
        with sink:
            put = [result() for _ in range(min(sink.max_batch, 3))]
            sink.put(put)
            named = set(sink.stored([each.task for each in put]))
            assert named == {each.task.id for each in put}, (
                f"{len(put)} tasks have a result, `stored` names {len(named)}"
            )

    def test_get_finds_the_results_that_are_there(self, sink: ResultSink) -> None:
        """`get` must return the results that are there: `htcgrid results` shows them. Read: spi.ResultStore.get."""
        if not isinstance(sink, ResultStore):
            not_asked("no ResultStore: its results are read in other ways")
        with sink:
            put, failed, absent = result(), result(b'{"errorType": "E"}', FailureKind.EXIT), result()
            assert not sink.get([put.task.id]), "`get` found a result before there was one"
            for each in (put, failed):
                sink.put([each])
            found = sink.get([put.task.id, absent.task.id, failed.task.id])
            assert absent.task.id not in found, "`get` found a result of a task that has none"
            assert set(found) == {put.task.id, failed.task.id}, f"`get` found {len(found)} of 2 results"
            assert found[put.task.id].outcome.payload == put.outcome.payload
            assert found[failed.task.id].outcome.failure is FailureKind.EXIT

    def test_scan_gives_results_in_the_order_they_were_stored(self, sink: ResultSink) -> None:
        """`scan` must return results in the order in which they were stored: `htcgrid results --follow` goes on after
        the last number. Read: spi.ResultSink.scan."""
        if not sink.keeps_order:
            not_asked("`keeps_order` is False: it has no `scan`")
        with sink:
            put = [result() for _ in range(3)]
            for each in put:
                sink.put([each])
            found = list(sink.scan())
            numbers = [number for number, _ in found]
            assert [each.task.id for _, each in found] == [each.task.id for each in put], "`scan` has another order"
            assert numbers == sorted(set(numbers)), f"the numbers of `scan` do not ascend: {numbers}"
            rest = [each.task.id for _, each in sink.scan(after=numbers[0])]
            assert rest == [each.task.id for each in put[1:]], "`scan` does not go on after a number"

    def test_it_can_be_read_beside_a_run_that_writes(self, sink: ResultSink) -> None:
        """A second sink must be able to read while a run writes: `htcgrid failures` may be called during a run.
        Read: spi.ResultSink.open_to_read."""
        if not isinstance(sink, ResultStore) and not sink.lists_failures:
            not_asked("it cannot be read")
        with sink:
            put = result()
            sink.put([put])
            reader = self.again(sink)
            reader.open_to_read()
            try:
                if isinstance(reader, ResultStore):
                    assert set(reader.get([put.task.id])) == {put.task.id}, "a reader does not find what was put"
            finally:
                reader.close()
            sink.put([result()])

    def test_stats_count_what_is_stored(self, sink: ResultSink) -> None:
        """`stats` must count the results that are stored: `htcgrid status` shows the number.
        Read: spi.ResultSink.stats."""
        if type(sink).stats is ResultSink.stats:
            not_asked("`stats` is the default: it cannot tell what it holds")
        with sink:
            for each in (result(), result(b'{"errorType": "E"}', FailureKind.EXIT)):
                sink.put([each])
            stats = sink.stats()
            self.keeps_secrets(sink, "what `stats` says", repr(stats))
            known = stats.stored in {2, None} or bool(stats.note)  # a note says how late the count is
            assert known, f"two results are stored, and `stats` says {stats.stored}"
            sink.put([each])
            again = sink.stats()
            assert again.stored == stats.stored or again.note, (
                f"a result was put a second time, and `stats` says {again.stored} after {stats.stored}"
            )
            if stats.failures is not None:
                assert sum(stats.failures.values()) == 1, f"one result is a failure, and `stats` says {stats.failures}"

    def test_stats_count_failures_by_their_kind(self, sink: ResultSink) -> None:
        """`stats` must count failures by kind: `htcgrid status` shows them. Read: spi.StoreStats."""
        if type(sink).stats is ResultSink.stats:
            not_asked("`stats` is the default: it cannot tell what it holds")
        with sink:
            kinds = [None, *FailureKind, FailureKind.EXIT, None]
            for kind in kinds:
                sink.put([result(b'{"errorType": "E", "errorMessage": "m"}', kind)])
            stats = sink.stats()
            assert stats.stored in {len(kinds), None} or stats.note, (
                f"{len(kinds)} results are stored; `stats` says {stats.stored}"
            )
            expected = {str(kind): 2 if kind is FailureKind.EXIT else 1 for kind in FailureKind}
            assert stats.failures is None or {str(kind): n for kind, n in stats.failures.items() if n} == expected, (
                f"the failures are {expected}, and `stats` says {stats.failures}"
            )

    def test_every_call_says_unavailable_once_its_place_went_away(self, sink: ResultSink) -> None:
        """Every call must raise Unavailable when the store cannot be reached, after one try. If it returns "not found", the
        task runs again. Read: spi.Unavailable, spi, one attempt."""
        with sink:
            put = result()
            sink.put([put])
            calls = self._calls(sink, put)
            with self.away(sink):
                for name, call in calls.items():
                    with self.one_try(name, sink):
                        call()

    # --- helpers ---

    def use(self, plugin: ResultSink) -> None:  # type: ignore[override]
        """Store a result and ask for it."""
        put = result()
        plugin.put([put])
        plugin.stored([put.task])

    def use_wrongly(self, plugin: Plugin) -> None:
        """Put a result that is too large."""
        if isinstance(plugin, ResultSink) and self.too_large is not None:
            plugin.put([result(b'"' + b"x" * (self.too_large - 2) + b'"')])

    def calls_through(self, plugin: ResultSink) -> Mapping[str, Callable[[], object]]:
        return self._calls(plugin, result())

    def _calls(self, sink: ResultSink, put: Result) -> Mapping[str, Callable[[], object]]:
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: sink.put([put]),
            "stored": lambda: sink.stored([put.task]),
            "stats": sink.stats,
            "scan": lambda: list(sink.scan("s-1")),
            "failed": lambda: list(sink.failed()),
            "every_result": lambda: list(sink.every_result()),
            "add_run": lambda: sink.add_run(b'{"command": "run"}'),
            "runs": lambda: list(sink.runs()),
        }
        calls = {
            name: call for name, call in calls.items() if getattr(type(sink), name) is not getattr(ResultSink, name)
        }
        if isinstance(sink, ResultStore):
            calls["get"] = lambda: sink.get([put.task.id])
        if sink.lists_failures:
            calls["has_failed"] = sink.has_failed
        if sink.wait_for_more(0.0) is not None:
            calls["wait_for_more"] = lambda: [
                sink.wait_for_more(0.0),
                sink.wait_for_more(0.0),
            ]  # the first may not look
        return calls

    def _result(self) -> Result:
        return result()

    def _stored(self, sink: ResultSink, expected: Collection[Result]) -> Sequence[Result]:
        """What is stored for these, in the same order; checks that each is there once."""
        ids = [each.task.id for each in expected]
        found = self.read_back(sink, ids)
        counts = {task_id: sum(each.task.id == task_id for each in found) for task_id in ids}
        lost = [task_id for task_id, times in counts.items() if times == 0]
        assert not lost, f"{len(lost)} of {len(ids)} results are not stored, such as that of {lost[0]}"
        doubled = [task_id for task_id, times in counts.items() if times > 1]
        assert not doubled, f"{len(doubled)} of {len(ids)} tasks have more than one result, such as {doubled[0]}"
        return sorted(found, key=lambda each: ids.index(each.task.id))


def _put_and_die(sink: ResultSink, results: Sequence[Result], seconds: float) -> int:
    """Call `put` in a process that is killed right after it returns; returns its exit status."""
    with warnings.catch_warnings():
        # Newer Pythons warn of forks where threads are; this child puts once and is killed.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            sink.open()
            sink.put(results)
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    deadline = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail(f"open and put in a new process had not returned after {seconds:.0f} s")
        time.sleep(0.02)

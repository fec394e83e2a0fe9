"""How a sink stores large numbers, zero and generations, and what it shows while results change."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from htcgrid.spi import GENERATION, Result, ResultSink, ResultStore

from htcgrid_contracts.common import EAST, WEST, eventually, in_time_zone, not_asked
from htcgrid_contracts.payloads import AWKWARD_PAYLOADS
from htcgrid_contracts.reading_rules import ReadingRules, varied

_NUMBERS = ("started", "duration_ms", "billed_ms", "max_memory_mb", "init_ms", "environment", "log_tail")
_MONTH_MS = 2_592_000_000
"""The longest timeout that a function can have, which is more than 31 bits hold."""


class StoredValueRules(ReadingRules):
    """Asked of every sink; rules about reading, of those that can be read."""

    def test_large_numbers_are_stored_as_they_are(self, sink: ResultSink) -> None:
        """Large numbers must be stored exactly: a task may run for 30 days, with 16 TiB, in the year 2100.
        Read: spi.Outcome."""
        put = varied(0)
        large = replace(
            put.outcome,
            started=4_102_444_800.25,
            duration_ms=_MONTH_MS + 0.5,
            billed_ms=_MONTH_MS + 1,
            max_memory_mb=16_777_216,
            init_ms=900_000.5,
            environment="e" * 100,
            log_tail=b"0123456789abcde\n" * 256,
        )
        put = replace(put, outcome=large, attempt=40_000)
        with sink:
            kept = self._kept(sink)
            sink.put([put])
            (stored,) = self._stored(sink, [put])
        for name in kept:
            found, wanted = getattr(stored.outcome, name), getattr(large, name)
            assert found == wanted, f"{name} {wanted!r} was stored as {found!r}"
        assert stored.attempt == put.attempt, f"attempt {put.attempt} was stored as {stored.attempt}"

    def test_zero_is_stored_as_zero(self, sink: ResultSink) -> None:
        """Zero must be stored as zero. It is a number, and must not become "no value". Read: spi.Outcome."""
        put = varied(0)
        nothing = replace(put.outcome, started=0.0, duration_ms=0.0, billed_ms=0, max_memory_mb=0, init_ms=0.0)
        put = replace(put, outcome=replace(nothing, log_tail=b"", environment=""))
        with sink:
            kept = self._kept(sink)
            sink.put([put])
            (stored,) = self._stored(sink, [put])
        changed = {name: found for name in kept if (found := getattr(stored.outcome, name)) not in {0, "", b""}}
        assert not changed, f"0 was stored as {changed}"

    def test_a_time_is_the_same_in_every_time_zone(self, sink: ResultSink) -> None:
        """`started` must be the same for a reader in another time zone than the agent that stored it. The machines of one
        grid may be anywhere. Read: spi.Outcome."""
        put = [varied(0), varied(1)]
        with sink:
            if "started" not in self._kept(sink):
                not_asked("the sink does not keep `started`")
            with in_time_zone(EAST):
                for each in put:
                    sink.put([each])
            with in_time_zone(WEST):
                stored = self._stored(sink, put)
        for found, expected in zip(stored, put, strict=True):
            apart = found.outcome.started - expected.outcome.started
            assert not apart, f"`started` was stored in one time zone and read in another, {apart / 3600:g} hours apart"

    def test_no_answer_harms_another(self, sink: ResultSink) -> None:
        """No answer may change another, whatever is in it: quotes, line breaks, letters of any language.
        Read: spi.ResultSink.put."""
        plain = varied(0)
        odd = [replace(each, outcome=replace(each.outcome, payload=payload)) for each, payload in self._awkward()]
        put = [*odd, plain]
        with sink:
            for start in range(0, len(put), sink.max_batch):
                sink.put(put[start : start + sink.max_batch])
            try:
                stored = self._stored(sink, put)
            except ValueError as error:
                raise AssertionError(
                    f"answers of odd bytes were put, and what is stored cannot be read: {error}"
                ) from None
        for found, expected in zip(stored, put, strict=True):
            wanted = expected.outcome.payload
            assert json.loads(found.outcome.payload) == json.loads(wanted), (
                f"put {wanted[:80]!r} beside other answers, found {found.outcome.payload[:80]!r}"
            )

    def test_the_generations_of_results_are_numbers(self, sink: ResultSink) -> None:
        """Generations must be compared as numbers: generation 10 is later than generation 9.
        Read: spi.ResultSink.failed."""
        self._must_list_failures(sink)
        ninth = self._of_generation(varied(1), 9)
        tenth = self._of_generation(varied(0), 10, ninth)
        with self.again(sink) as before:
            before.put([ninth])
        with self.again(sink) as after:
            if type(sink).stored is not ResultSink.stored:
                assert not after.stored([tenth.task]), "a task failed in generation 9, and `stored` names it in 10"
            shown = after.get([tenth.task.id]) if isinstance(after, ResultStore) else {}
            after.put([tenth])
            if isinstance(after, ResultStore) and shown:
                found = after.get([tenth.task.id])[tenth.task.id]
                assert found.outcome.failure is None, "`get` gives a failure that it gave before and that was replaced"
        with sink:
            (stored,) = self._stored(sink, [tenth])
        assert stored.outcome.failure is None, "an answer of generation 10 has not replaced a failure of generation 9"

    def test_whoever_follows_is_given_what_replaces_a_failure(self, sink: ResultSink) -> None:
        """`scan` must return a result that replaces a failure as something new: `htcgrid results --follow` shows the
        result of a redrive. Read: spi.ResultSink.scan."""
        self._must_list_failures(sink)
        if not sink.keeps_order:
            not_asked("`keeps_order` is False: it has no `scan`")
        failure, other = varied(1), varied(0)
        answer = self._of_generation(varied(3), 1, failure)
        with sink:
            for each in (failure, other):
                sink.put([each])
            last = max(number for number, _ in sink.scan())
            can_wait = sink.wait_for_more(0.0) is not None
            if can_wait:
                eventually(lambda: not sink.wait_for_more(0.1), 5 * self.wait_factor, "an end of what it reports")
            sink.put([answer])
            assert not can_wait or sink.wait_for_more(10 * self.wait_factor), (
                "a failure was replaced by an answer, and `wait_for_more` says that nothing was stored"
            )
            seen = [each for _, each in sink.scan(after=last)]
            assert [each.task.id for each in seen] == [failure.task.id], (
                f"a failure was replaced by an answer, and `scan` after the last number seen gives {len(seen)} results; "
                f"expected that answer"
            )
            assert seen[0].outcome.failure is None, "`scan` gives the failure that was replaced"
            everything = sorted(each.task.id for _, each in sink.scan())
        assert everything == sorted([failure.task.id, other.task.id]), (
            f"2 tasks have a result, and `scan` gives {len(everything)}"
        )

    def test_one_failure_among_many_answers_has_failed(self, sink: ResultSink) -> None:
        """`has_failed` must be true for one failure among many successes, also an old one: the exit code of a run
        depends on it. Read: spi.ResultSink.has_failed."""
        self._must_list_failures(sink)
        failure = varied(1)
        answers = [varied(3 * number) for number in range(min(self.many, 300))]
        with sink:
            sink.put([failure])
            for start in range(0, len(answers), sink.max_batch):
                sink.put(answers[start : start + sink.max_batch])
            assert sink.has_failed(), (
                f"a failure was stored, then {len(answers)} answers, and `has_failed` says none is"
            )
            listed = [each.task.id for each in sink.failed()]
        assert listed == [failure.task.id], f"a failure and {len(answers)} answers are stored; `failed` lists {listed}"

    def test_stats_follow_what_is_put(self, sink: ResultSink) -> None:
        """`stats` must change with each `put`: `htcgrid status` asks again and again. Read: spi.ResultSink.stats."""
        self._must_count(sink)
        with sink:
            for number, failures in ((0, 0), (1, 1), (3, 1), (4, 2)):
                sink.put([varied(number)])
                stats = sink.stats()
                expected = [0, 1, 3, 4].index(number) + 1
                assert stats.stored in {expected, None} or stats.note, (
                    f"{expected} results are stored one by one, and `stats` says {stats.stored}"
                )
                found = None if stats.failures is None else sum(stats.failures.values())
                assert found in {failures, None} or stats.note, (
                    f"{failures} of {expected} results are failures, and `stats` says {found}"
                )

    def test_the_rate_is_by_the_second(self, sink: ResultSink) -> None:
        """The rate in `stats` must be results per second, not per minute. Read: spi.StoreStats."""
        self._must_count(sink)
        size = 60
        with sink:
            began = time.monotonic()
            put = [self._of_now(varied(number)) for number in range(size)]
            for start in range(0, size, sink.max_batch):
                sink.put(put[start : start + sink.max_batch])
            if sink.stats().per_second is None:
                not_asked("per_second is None: it cannot tell")
            time.sleep(max(0.0, began + 2.0 - time.monotonic()))
            rate = sink.stats().per_second
            took = time.monotonic() - began
        assert rate is not None, "per_second was told, and is None two seconds later"
        assert 0 <= rate <= 1.5 * size / 2.0, (
            f"{size} results were stored in the last {took:.1f} s, and per_second is {rate:g}"
        )

    # --- helpers ---

    def _awkward(self) -> Iterator[tuple[Result, bytes]]:
        return ((varied(0), payload) for payload in AWKWARD_PAYLOADS.values())

    def _kept(self, sink: ResultSink) -> Sequence[str]:
        """The part of an outcome that the sink keeps: a file for users may leave some of it out."""
        put = varied(3)
        sink.put([put])
        (stored,) = self._stored(sink, [put])
        return [name for name in _NUMBERS if getattr(stored.outcome, name) == getattr(put.outcome, name)]

    def _must_list_failures(self, sink: ResultSink) -> None:
        if not sink.lists_failures:
            not_asked("`lists_failures` is False: its failures cannot be run again by htcgrid")

    def _must_count(self, sink: ResultSink) -> None:
        if type(sink).stats is ResultSink.stats:
            not_asked("`stats` is the default: it cannot tell what it holds")

    def _of_now(self, result: Result) -> Result:
        """The same result, of a task that ran just now."""
        return replace(result, outcome=replace(result.outcome, started=time.time(), duration_ms=1.0, billed_ms=1))

    def _of_generation(self, result: Result, generation: int, of: Result | None = None) -> Result:
        """The same result, of this generation, and of the task of another result where one is given."""
        task_id = (of or result).task.id
        attributes = {**result.task.attributes, GENERATION: str(generation)}
        task = replace(result.task, id=task_id, attributes=attributes)
        return replace(result, task=task, outcome=replace(result.outcome, task_id=task_id))

"""What can be read from a sink: more than one page, beside other writers, and all that was put."""

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest
from htcgrid.spi import FailureKind, Outcome, Rejected, Result, ResultSink, ResultStore, Task

from htcgrid_contracts.common import PluginContract, in_threads, not_asked, unique_id
from htcgrid_contracts.payloads import AWKWARD_ATTRIBUTES, AWKWARD_IDS, large_text
from htcgrid_contracts.typed import misfits

_FIGURES = ("attempt", "failure", "started", "duration_ms", "billed_ms", "max_memory_mb")
"""What a report reads of each result."""
_KINDS = list(FailureKind)
_ODD = [each for each in AWKWARD_ATTRIBUTES.values() if "session_id" not in each]


def varied(number: int, session: str | None = None) -> Result:
    """A result that differs in every field from those of other numbers."""
    failure = _KINDS[number // 3 % len(_KINDS)] if number % 3 == 1 else None
    payload = (
        b'{"errorType": "E", "errorMessage": "%d"}' if failure else b'{"number": %d.50, "text": "\\u0000\xc3\xa9"}'
    )
    attributes = {"session_id": session or f"s-{number % 2}", "city": f"Zürich {number}", "note": ""}
    attributes |= _ODD[number % len(_ODD)]
    task = Task(unique_id(), b'{"value": %d}' % number, {} if number % 5 == 0 and session is None else attributes)
    outcome = Outcome(
        task.id,
        payload % number,
        failure,
        started=1_700_000_000.25 + number,
        duration_ms=12.5 + number,
        billed_ms=13 + number,
        max_memory_mb=64 + number % 1000,
        log_tail=b"" if number % 4 == 0 else b"%d \xff\xfe \x00 printed \xc3\xa9\r\n" % number,
        init_ms=7.5 + number if number % 2 else None,
        environment=f"e-{number}",
    )
    return Result(task, outcome, attempt=1 + number % 4)


class ReadingRules(PluginContract):
    """Asked of sinks that can be read."""

    many: int = 1100
    """Results that are more than a page of what the sink reads from."""

    largest_payload: int = 2_000_000
    """Bytes of an answer that the sink takes; give less where it has a limit."""

    @pytest.fixture
    def writer(self, sink: ResultSink) -> Iterator[Callable[[], ResultSink]]:
        """Call it while the sink is open: the sink of another agent on the same store, opened."""

        def writer() -> ResultSink:
            other = self.again(sink)
            try:
                return opened.enter_context(other)
            except Rejected as error:
                not_asked(f"one writes at a time: {error}")

        with ExitStack() as opened:
            yield writer

    # --- what was put ---

    def test_each_result_of_a_batch_is_stored_as_it_is(self, sink: ResultSink) -> None:
        """Each result of a batch must be stored with its own answer, failure and attempt. Read: spi.ResultSink.put."""
        with sink:
            put = [varied(number) for number in range(min(sink.max_batch, 25))]
            sink.put(put)
            for stored, expected in zip(self._stored(sink, put), put, strict=True):
                for name, found, wanted in (
                    ("payload", stored.outcome.payload, expected.outcome.payload),
                    ("failure", stored.outcome.failure, expected.outcome.failure),
                    ("attempt", stored.attempt, expected.attempt),
                ):
                    assert found == wanted, f"of a batch of {len(put)}, {name} {wanted!r} was stored as {found!r}"

    def test_a_large_answer_is_stored_whole(self, sink: ResultSink) -> None:
        """A large answer must be stored complete. The size of a page or an item is not a limit of an answer.
        Read: spi.Outcome."""
        with sink:
            payload = large_text(self.largest_payload)
            put = with_payload(varied(0), payload)
            sink.put([put])
            (stored,) = self._stored(sink, [put])
            assert len(stored.outcome.payload) == len(payload), (
                f"put {len(payload)} bytes, found {len(stored.outcome.payload)}: set `largest_payload` if it takes less"
            )
            assert stored.outcome.payload == payload, "a large answer was stored changed"
            failure = varied(1)
            document = b'{"errorType": "E", "errorMessage": "%s"}' % (b"a long trace\\n" * (len(payload) // 140))
            failure = replace(failure, outcome=replace(failure.outcome, payload=document))
            sink.put([failure])
            (stored,) = self._stored(sink, [failure])
            assert stored.outcome.payload == document, (
                f"an error document of {len(document)} bytes was stored with {len(stored.outcome.payload)}, or changed"
            )

    def test_ids_that_differ_are_different_tasks(self, sink: ResultSink) -> None:
        """Ids must be compared exactly. They differ in upper and lower case, in a space, or in how a letter is composed
        in Unicode. Read: spi.Task."""
        with sink:
            first = unique_id()
            put = [_of(varied(number), first + end) for number, end in enumerate(AWKWARD_IDS)]
            ids = [each.task.id for each in put]
            for some in cut(put[::2], min(sink.max_batch, 5)):
                sink.put(some)
            if type(sink).stored is not ResultSink.stored:
                named = set(sink.stored([each.task for each in put]))
                assert named == set(ids[::2]), f"{ids[::2]} have a result, and `stored` names {sorted(named)}"
            if isinstance(sink, ResultStore):
                found = set(sink.get(ids))
                assert found == set(ids[::2]), f"{ids[::2]} have a result, and `get` finds {sorted(found)}"
            for some in cut(put[1::2], min(sink.max_batch, 5)):
                sink.put(some)
            for stored, expected in zip(self._stored(sink, put), put, strict=True):
                assert stored.outcome.payload == expected.outcome.payload, (
                    f"the result of {expected.task.id!r} is that of another task"
                )
            if isinstance(sink, ResultStore):
                got = {task_id: each.outcome.payload for task_id, each in sink.get(ids).items()}
                wrong = [each.task.id for each in put if got.get(each.task.id) != each.outcome.payload]
                assert not wrong, f"all of {ids} have a result, and `get` finds for {wrong} none, or another's"

    def test_an_id_twice_in_a_batch_or_from_two_writers_is_one_result(
        self, sink: ResultSink, writer: Callable[[], ResultSink]
    ) -> None:
        """An id that comes twice, in one batch or from two agents, must be stored once. A task may have run twice.
        Read: spi.ResultSink.put."""
        with sink:
            if sink.max_batch == 1:
                not_asked("max_batch is 1")
            first, second = varied(0), varied(3)
            sink.put([first, second, first][: sink.max_batch])
            self._stored(sink, [first, second][: sink.max_batch - 1])
            other = writer()
            other.put([first, second])
            sink.put([second])
            self._stored(sink, [first, second])

    def test_every_result_is_each_task_once(self, sink: ResultSink) -> None:
        """`every_result` must list each task once, more than one page, with its times and memory: a report is made of what
        is listed. Read: spi.ResultSink.every_result."""
        if not sink.keeps_order and type(sink).every_result is ResultSink.every_result:
            not_asked("the sink has neither `scan` nor `every_result`")
        with sink:
            put = {each.task.id: each for each in self._put_many(sink)}
            listed = list(sink.every_result())
        assert sorted(each.task.id for each in listed) == sorted(put), (
            f"{len(put)} results were put, and `every_result` lists {len(listed)}, or others"
        )
        for each in listed:
            wanted, given = _fields(put[each.task.id]), _fields(each)
            changed = {name: (wanted[name], given[name]) for name in _FIGURES if given[name] != wanted[name]}
            assert not changed, f"`every_result` lists other figures than were put; field: (put, listed): {changed}"

    def test_what_is_read_has_the_types_of_the_interface(self, sink: ResultSink) -> None:
        """What a sink returns must have the types that the interface names. A `Decimal`, a `bytearray` or a text in place of
        a `FailureKind` may be equal to the right value, and still cannot be printed as JSON. Read: spi.Outcome, spi.Result."""
        with sink:
            put = [varied(number) for number in range(6)]
            for some in cut(put, sink.max_batch):
                sink.put(some)
            found: dict[str, Iterable[object]] = {"stats": [sink.stats()]}
            if isinstance(sink, ResultStore):
                found["get"] = sink.get([each.task.id for each in put]).values()
            if sink.keeps_order:
                found["scan"] = (each for _, each in sink.scan("s-1"))
            if sink.lists_failures:
                found["failed"] = sink.failed()
            if type(sink).every_result is not ResultSink.every_result:
                found["every_result"] = sink.every_result()
            wrong = {name: text for name, values in found.items() for text in map(misfits, values) if text}
            named: object = sink.stored([each.task for each in put])
        assert not wrong, "; ".join(f"of `{name}`: {text}" for name, text in wrong.items())
        assert isinstance(named, Collection), f"`stored` returned {named!r}: return a list, a set or a tuple of ids"

    # --- stored, get, scan ---

    def test_what_can_be_read_is_said(self, sink: ResultSink) -> None:
        """A sink with `scan` or `failed` must set `keeps_order` or `lists_failures`. Otherwise htcgrid never calls the
        method. Read: spi.ResultSink.keeps_order, spi.ResultSink.lists_failures."""
        for flag, method in (("keeps_order", "scan"), ("lists_failures", "failed")):
            offers = getattr(type(sink), method) is not getattr(ResultSink, method)
            said = getattr(sink, flag)
            assert said is offers, f"`{flag}` is {said}, and there is {'a' if offers else 'no'} `{method}`"

    def test_stored_sees_what_another_has_put(self, sink: ResultSink, writer: Callable[[], ResultSink]) -> None:
        """`stored` must see answers and failures that other agents have put since `open`.
        Read: spi.ResultSink.stored."""
        if type(sink).stored is ResultSink.stored:
            not_asked("`stored` is the default: this sink cannot know")
        with sink:
            put = [varied(0), varied(1), varied(4)]
            sink.stored([each.task for each in put])
            other = writer()
            for each in put:
                other.put([each])
            named = set(sink.stored([each.task for each in put]))
            assert named == {each.task.id for each in put}, (
                f"another agent stored an answer and two failures, and `stored` names {len(named)} of the 3"
            )

    def test_who_waits_is_told_of_what_another_has_put(
        self, sink: ResultSink, writer: Callable[[], ResultSink]
    ) -> None:
        """`wait_for_more` must tell each thread once of what another agent has put, and not again of what it knows.
        Read: spi.ResultSink.wait_for_more."""
        with sink:
            if sink.wait_for_more(0.0) is None:
                not_asked("`wait_for_more` is the default: this sink cannot tell")
            sink.wait_for_more(0.0)
            assert not sink.wait_for_more(0.0), "nothing was stored since the last call, and it says that something was"
            writer().put([varied(0)])
            assert sink.wait_for_more(10.0 * self.wait_factor), (
                "another agent stored a result, and whoever waits is not told"
            )

    def test_stored_looks_at_every_task_that_it_is_asked_about(self, sink: ResultSink) -> None:
        """`stored` must look at every task that it is given, also at more than one page of the store.
        Read: spi.ResultSink.stored."""
        if type(sink).stored is ResultSink.stored:
            not_asked("`stored` is the default: this sink cannot know")
        with sink:
            put = self._put_many(sink)
            asked = [task for each in put for task in (each.task, varied(0).task)]
            random.Random(1).shuffle(asked)  # noqa: S311 - else a page may always end with a task of one kind
            named = list(sink.stored(asked))
            assert sorted(named) == sorted(each.task.id for each in put), (
                f"asked about {len(asked)} tasks of which {len(put)} have a result, `stored` names {len(named)}"
            )

    def test_get_returns_all_that_was_put(self, sink: ResultSink) -> None:
        """`get` must return every result that was put, more than one page, with every field as it was.
        Read: spi.ResultStore.get."""
        if not isinstance(sink, ResultStore):
            not_asked("no ResultStore: its results are read in other ways")
        with sink:
            put = self._put_many(sink)
            found = sink.get(tuple(each.task.id for each in put))  # any sequence
            stats = sink.stats()
            failed = sum(each.outcome.failure is not None for each in put)
            told = None if stats.failures is None else sum(stats.failures.values())
            assert stats.note or (stats.stored in {len(put), None} and told in {failed, None}), (
                f"{len(put)} results are stored, {failed} of them failures; `stats` says {stats.stored}, and {told} failures"
            )
            assert len(found) == len(put), f"{len(put)} results were put, and `get` found {len(found)}"
            for each in put:
                self._same(found[each.task.id], each, "get")
            assert not sink.get([]), "`get` of no id found something"

    def test_scan_goes_through_all_pages_and_sessions(self, sink: ResultSink) -> None:
        """`scan` must go through all pages, for one session or for all, from the start or after a number.
        Read: spi.ResultSink.scan."""
        if not sink.keeps_order:
            not_asked("`keeps_order` is False: it has no `scan`")
        with sink:
            ends = [varied(number, "at both ends") for number in (0, 3)]
            sink.put(ends[:1])
            put = {each.task.id: each for each in [*ends, *self._put_many(sink)]}
            sink.put(ends[1:])
            found = list(sink.scan())
            assert sorted(each.task.id for _, each in found) == sorted(put), (
                f"{len(put)} results were put, and `scan` gives {len(found)}"
            )
            for _, each in found:
                self._same(each, put[each.task.id], "scan")
            of_session = [pair for pair in found if pair[1].task.attributes.get("session_id") == "s-1"]
            middle = found[len(found) // 2][0]
            for session, after, expected in (
                (None, middle, [number for number, _ in found if number > middle]),
                ("s-1", 0, [number for number, _ in of_session]),
                ("s-1", middle, [number for number, _ in of_session if number > middle]),
                ("at both ends", 0, [found[0][0], found[-1][0]]),  # pages without any of them are between
                ("at both ends", middle, [found[-1][0]]),
                ("s", 0, []),
                ("s_1", 0, []),  # a name and no pattern
                ("S-%", 0, []),
            ):
                numbers = [number for number, _ in sink.scan(session, after)]
                assert numbers == expected, (
                    f"scan(session_id={session!r}, after={after}) gives {len(numbers)} results; expected {len(expected)}"
                )
            others = [each for _, each in sink.scan("") if each.task.attributes.get("session_id")]
            assert not others, f"scan(session_id='') gives {len(others)} results of tasks that have a session"

    def test_scan_misses_none_of_eight_writers(self, sink: ResultSink, writer: Callable[[], ResultSink]) -> None:
        """`scan` must miss no result when eight agents write. They may commit in another order than they began.
        Read: spi.ResultSink.scan."""
        if not sink.keeps_order:
            not_asked("`keeps_order` is False: it has no `scan`")
        with sink:
            writers = [writer() for _ in range(8)]
            batches = [[varied(number) for number in range(min(sink.max_batch, 10))] for _ in range(48)]
            long = large_text(min(340_000, self.largest_payload))
            for batch in batches[::8]:  # the first writer takes longer over each of its batches
                batch[:] = [each if each.outcome.failure else with_payload(each, long) for each in batch]
            seen: list[tuple[int, str]] = []

            writing, done = set(range(8)), threading.Event()

            def write(number: int) -> None:
                try:
                    for batch in batches[number::8]:
                        writers[number].put(batch)
                finally:
                    writing.discard(number)
                    if not writing:
                        done.set()

            def follow() -> None:
                size, more = sum(map(len, batches)), True
                deadline = time.monotonic() + 30 * self.wait_factor
                while time.monotonic() < deadline:
                    after = seen[-1][0] if seen else 0
                    seen.extend((number, each.task.id) for number, each in sink.scan(after=after))
                    if len(seen) >= size or (done.is_set() and not more):
                        return
                    more = not done.is_set()

            calls = [lambda number=number: write(number) for number in range(8)]
            in_threads([*calls, follow], 60 * self.wait_factor)
            numbers = [number for number, _ in seen]
            assert numbers == sorted(set(numbers)), "the numbers of a `scan` that goes on do not ascend"
            assert len({task_id for _, task_id in seen}) == len(seen), (
                "`scan` gives a result again, with another number"
            )
            missed = {each.task.id for batch in batches for each in batch} - {task_id for _, task_id in seen}
            assert not missed, (
                f"8 writers stored results, and a `scan` that went on after each number missed {len(missed)}"
            )

    # --- helpers ---

    def _put_many(self, sink: ResultSink) -> Sequence[Result]:
        put = [varied(number) for number in range(self.many)]
        for some in cut(put, sink.max_batch):
            sink.put(some)
        return put

    def _same(self, found: Result, put: Result, what: str) -> None:
        wanted, given = _fields(put), _fields(found)
        changed = {name: (value, given[name]) for name, value in wanted.items() if given[name] != value}
        assert not changed, f"`{what}` returned another result than was put; field: (put, returned): {changed}"

    def _stored(self, sink: ResultSink, expected: Collection[Result]) -> Sequence[Result]:
        raise NotImplementedError


def _fields(result: Result) -> Mapping[str, object]:
    outcome = {name: getattr(result.outcome, name) for name in Outcome.__dataclass_fields__}
    return {**outcome, "id": result.task.id, "attributes": dict(result.task.attributes), "attempt": result.attempt}


def with_payload(result: Result, payload: bytes) -> Result:
    """This result with another answer."""
    return replace(result, outcome=replace(result.outcome, payload=payload))


def _of(result: Result, task_id: str) -> Result:
    return replace(result, task=replace(result.task, id=task_id), outcome=replace(result.outcome, task_id=task_id))


def cut(results: Sequence[Result], size: int) -> Iterator[Sequence[Result]]:
    """The results in batches of this size."""
    return (results[start : start + size] for start in range(0, len(results), size))

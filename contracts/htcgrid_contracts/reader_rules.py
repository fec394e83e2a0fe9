"""Several readers of a sink: at the same time, in threads, and in other programs."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice

from htcgrid.spi import GENERATION, HtcgridError, Plugin, Rejected, Result, ResultSink, ResultStore, Unavailable

from htcgrid_contracts.common import HeldResources, eventually, in_threads, not_asked
from htcgrid_contracts.payloads import AWKWARD_SESSIONS, large_text
from htcgrid_contracts.reading_rules import ReadingRules, cut, varied, with_payload

Reading = Callable[[ResultSink], Iterator[object]]

_ABANDONED = 24
"""More than the connections of a usual pool."""

"""Names that differ, and that a pattern, a collation or a key of parts may take for one another."""


class ReaderRules(ReadingRules):
    """Asked of sinks that can be read."""

    def test_a_call_with_nothing_in_it_does_nothing(self, sink: ResultSink) -> None:
        """A call with an empty list, or with an id twice, must raise nothing. Read: spi, rules for all three."""
        put = varied(0)
        calls: dict[str, tuple[Callable[[], object], int]] = {
            "put([])": (lambda: [sink.put([])][1:], 0),
            "stored([])": (lambda: sink.stored([]), 0),
        }
        if type(sink).stored is not ResultSink.stored:
            calls["stored of a task twice"] = (lambda: set(sink.stored([put.task, put.task])), 1)
        if isinstance(sink, ResultStore):
            calls["get([])"] = (lambda: sink.get([]), 0)
            calls["get of an id twice"] = (lambda: sink.get([put.task.id, put.task.id]), 1)
        with sink:
            sink.put([put])
            for name, (call, expected) in calls.items():
                try:
                    found = list(call())  # type: ignore[call-overload]
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
                    raise AssertionError(f"{name} is allowed, and raised {type(error).__name__}: {error}") from None
                assert len(found) == expected, f"{name} named {len(found)}; expected {expected}"

    def test_several_large_answers_go_through_one_call(self, sink: ResultSink) -> None:
        """`put` and `get` must accept several large answers in one call. The size of one request or page is not a limit
        of a batch. Read: spi.ResultSink.put, spi.ResultStore.get."""
        payload = large_text(self.largest_payload)
        put = [with_payload(varied(number), payload) for number in range(0, 18, 3)]  # more than a page of 8 MB holds
        failure = varied(1)
        put.append(replace(failure, task=replace(failure.task, payload=payload)))
        with sink:
            for start in range(0, len(put), sink.max_batch):
                sink.put(put[start : start + sink.max_batch])
            self._all(self._stored(sink, put), put, "there are")
            if isinstance(sink, ResultStore):
                self._all(list(sink.get([each.task.id for each in put]).values()), put, "`get` finds")
            if sink.keeps_order:
                self._all([each for _, each in sink.scan()], put, "`scan` gives")
            if sink.lists_failures:
                (listed,) = sink.failed()
                event = listed.task.payload
                assert event in {b"", payload}, (
                    f"an event of {len(payload)} bytes is listed by `failed` with {len(event)}"
                )

    def test_sessions_are_told_apart_by_their_whole_names(self, sink: ResultSink) -> None:
        """Sessions must be compared by their exact and whole names. A user must not see the results of another.
        Read: spi.ResultSink.scan."""
        if not sink.keeps_order:
            not_asked("`keeps_order` is False: it has no `scan`")
        with sink:
            put = {name: varied(0, name) for name in (*AWKWARD_SESSIONS, "s")}
            for each in put.values():
                sink.put([each])
            for name, each in put.items():
                found = [result.task.id for _, result in sink.scan(name)]
                assert found == [each.task.id], (
                    f"the session {name!r} has one result, and `scan` of it gives {len(found)}"
                )

    # --- side by side ---

    def test_two_may_read_at_once(self, sink: ResultSink) -> None:
        """Two readers must be able to read at the same time: two threads, or one reading inside another.
        Read: spi.ResultSink.scan, spi.ResultSink.failed."""
        with sink:
            for number in (1, 4, 7):  # failures
                sink.put([varied(number)])
            for name, reading in self._readings(sink).items():
                first = reading(sink)
                next(first)
                second = list(reading(sink))
                found = 1 + len(list(first)), len(second)
                assert found == (3, 3), (
                    f"3 failures are stored; of two that were within `{name}` at once one was given {found[0]}, the other "
                    f"{found[1]}"
                )

    def test_a_reading_may_be_left(self, sink: ResultSink) -> None:
        """A caller must be able to stop reading before the end, for example once it has found its result.
        Read: spi.ResultSink.scan, spi.ResultSink.failed."""
        with sink:
            sink.put([varied(1)])
            sink.put([varied(4)])
            for name, reading in self._readings(sink).items():
                for number in range(_ABANDONED):
                    try:
                        next(reading(sink))
                        sink.stored([varied(0).task])
                    except HtcgridError as error:
                        raise AssertionError(
                            f"`{name}` was left {number} times after its first result, and the next call raised: {error}"
                        ) from None
            sink.put([varied(7)])

    # --- other programs ---

    def test_a_reader_sees_what_is_stored_after_it_was_opened(self, sink: ResultSink) -> None:
        """A reader must see results that are stored after it was opened: `htcgrid results --follow` reads during a run.
        Read: spi.ResultSink.open_to_read."""
        readings = self._readings(sink)
        with sink:
            sink.put([varied(1)])
            reader = self.again(sink)
            reader.open_to_read()
            with closing(reader):
                before = {name: len(list(reading(reader))) for name, reading in readings.items()}
                assert set(before.values()) == {1}, f"a failure is stored, and a reader is given {before}"
                put = varied(4)
                sink.put([put])

                def sees_it() -> bool:
                    gets_it = not isinstance(reader, ResultStore) or put.task.id in reader.get([put.task.id])
                    return gets_it and all(len(list(reading(reader))) == 2 for reading in readings.values())

                eventually(sees_it, 10 * self.wait_factor, "what was stored after a reader was opened, for that reader")

    def test_a_reader_is_told_the_same_as_a_writer(self, sink: ResultSink) -> None:
        """Every method that reads must work after `open_to_read` as it does after `open`: `htcgrid results`, `report` and
        `status` open a sink in this way. Read: spi.ResultSink.open_to_read."""
        self._readings(sink)
        with sink:
            for number in range(5):
                sink.put([varied(number)])
            if sink.keeps_runs:
                sink.add_run(b'{"command": "run"}')
            asked: dict[str, Callable[[ResultSink], object]] = {
                "stats": lambda each: replace(each.stats(), per_second=None),
                "runs": lambda each: list(each.runs()),
                "wait_for_more": lambda each: each.wait_for_more(0.0) is None,
            }
            if sink.keeps_order:
                asked["scan"] = lambda each: [found.task.id for _, found in each.scan("s-1")]
            if sink.lists_failures:
                asked["failed"] = lambda each: sorted(found.task.id for found in each.failed())
                asked["has_failed"] = lambda each: each.has_failed()
            if type(sink).every_result is not ResultSink.every_result:
                asked["every_result"] = lambda each: sorted(found.task.id for found in each.every_result())
            reader = self.again(sink)
            reader.open_to_read()
            with closing(reader):
                for name, ask in asked.items():
                    self._agrees(name, ask, reader, sink)

    def test_what_is_replaced_while_it_is_read_hides_no_other(self, sink: ResultSink) -> None:
        """When failures are replaced while they are read, the others must be read all the same: a redrive reads them while
        agents put. Pages must begin after the last one that was read, and not at a number of rows.
        Read: spi.ResultSink.failed, spi.ResultSink.scan."""
        readings = self._readings(sink)
        if not sink.lists_failures:
            not_asked("`lists_failures` is False: nothing is replaced")
        with sink:
            for name in readings:
                put = [varied(3 * number + 1) for number in range(self.many)]
                for some in cut(put, sink.max_batch):
                    sink.put(some)
                ids = {each.task.id for each in put}
                rows = sink.failed() if name == "failed" else (each for _, each in sink.scan())
                first = list(islice((each for each in rows if each.task.id in ids), self.many * 6 // 11))
                for some in cut([_answered(each) for each in first], sink.max_batch):
                    sink.put(some)
                seen = {each.task.id for each in (*first, *rows)}
                assert ids <= seen, (
                    f"{len(put)} failures were stored; once {len(first)} were read by `{name}` these were replaced, and "
                    f"{len(ids - seen)} of the others were never read"
                )

    def test_a_reader_releases_all_that_it_took(self, sink: ResultSink) -> None:
        """`close` after `open_to_read` must release every thread, file and process. What is left adds up.
        Read: spi.ResultSink.open_to_read, spi.Plugin.close."""
        readings = self._readings(sink)
        with sink:
            sink.put([varied(1)])

        def read() -> None:
            reader = self.again(sink)
            reader.open_to_read()
            with closing(reader):
                for reading in readings.values():
                    list(reading(reader))

        read()  # what an SDK loads once and keeps is no leak
        before = HeldResources.now()
        for _ in range(3):
            read()
        self.nothing_is_held(before, "open_to_read and close, three times over,")

    def test_a_reader_of_a_place_that_is_not_there_is_told(self, sink: ResultSink, missing: Plugin) -> None:
        """`open_to_read` must raise an error where the store does not exist. Otherwise the user sees an empty list and
        thinks that nothing failed. Read: spi.ResultSink.open_to_read."""
        readings = self._readings(sink)
        assert isinstance(missing, ResultSink)
        with closing(missing):
            try:
                missing.open_to_read()
                found = {name: len(list(reading(missing))) for name, reading in readings.items()}
            except (Rejected, Unavailable):
                return
        raise AssertionError(
            f"what the config names is not there, `open_to_read` went through, and a reader is given {found}"
        )

    def test_each_thread_that_waits_is_told(self, sink: ResultSink) -> None:
        """`wait_for_more` must tell each thread what is new since its own last call; at the first call at once. Results
        that this sink has put count too. Read: spi.ResultSink.wait_for_more."""
        with sink:
            if sink.wait_for_more(0.0) is None:
                not_asked("`wait_for_more` is the default: this sink cannot tell")
            told: list[str] = []
            ready = threading.Event()

            def another() -> None:
                if not sink.wait_for_more(0.0):
                    told.append("a thread's first call said that nothing was stored: it says True")
                eventually(lambda: not sink.wait_for_more(0.1), 5 * self.wait_factor, "an end of what it reports")
                ready.set()
                if not sink.wait_for_more(10 * self.wait_factor):
                    told.append("a result was stored, two threads wait, and one of them alone is told")

            def this() -> None:
                eventually(lambda: not sink.wait_for_more(0.1), 5 * self.wait_factor, "an end of what it reports")
                ready.wait(20 * self.wait_factor)
                sink.put([varied(0)])
                if not sink.wait_for_more(10 * self.wait_factor):
                    told.append("this sink stored a result itself, and a thread that waits for more is not told")

            in_threads([another, this], 60 * self.wait_factor)
            assert not told, "; ".join(told)

    # --- helpers ---

    def _agrees(self, name: str, ask: Callable[[ResultSink], object], reader: ResultSink, writer: ResultSink) -> None:
        found: object = None

        def agrees() -> bool:
            nonlocal found
            found = ask(reader)
            return found == ask(writer)

        try:
            eventually(agrees, 10 * self.wait_factor, "the same")
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
            raise AssertionError(
                f"`{name}` after `open_to_read` must be as after `open`: {type(error).__name__}: {error}"
            ) from None

    def _readings(self, sink: ResultSink) -> Mapping[str, Reading]:
        """The methods that list results, by name; where there are none, the rule is left out."""
        readings: dict[str, Reading] = {}
        if sink.keeps_order:
            readings["scan"] = lambda reader: iter(reader.scan())
        if sink.lists_failures:
            readings["failed"] = lambda reader: iter(reader.failed())
        if not readings:
            not_asked("neither `keeps_order` nor `lists_failures`: nothing of it is listed")
        return readings

    def _all(self, found: Sequence[Result], put: Sequence[Result], what: str) -> None:
        sizes = {each.task.id: len(each.outcome.payload) for each in found}
        expected = {each.task.id: len(each.outcome.payload) for each in put}
        assert sizes == expected, (
            f"{len(put)} results of {sum(expected.values())} bytes were put, and {what} {len(sizes)} of "
            f"{sum(sizes.values())} bytes"
        )


def _answered(failure: Result) -> Result:
    """The answer of a redrive of this failure."""
    task = replace(failure.task, attributes={**failure.task.attributes, GENERATION: "1"})
    return replace(failure, task=task, outcome=replace(failure.outcome, failure=None, payload=b"1"))

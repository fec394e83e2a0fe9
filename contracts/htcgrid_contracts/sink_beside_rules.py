"""A sink whose calls come side by side, that is empty, or that gets texts which a database refuses."""

import time
from dataclasses import replace

from htcgrid.spi import Rejected, ResultSink, ResultStore

from htcgrid_contracts.common import in_threads, not_asked, patiently
from htcgrid_contracts.payloads import LONG_TEXT, ODD_TEXTS
from htcgrid_contracts.reading_rules import ReadingRules, varied


class SinkBesideRules(ReadingRules):
    """Asked of every sink."""

    def test_calls_of_every_kind_may_come_side_by_side(self, sink: ResultSink) -> None:
        """Every call must work while other threads make others, and each must get its own answer: `put`, `stored` and `get`
        beside `scan`, `failed` and `stats`. Read: spi, rules for all three."""
        until = time.monotonic() + 0.8 * max(1.0, self.wait_factor)
        knows = type(sink).stored is not ResultSink.stored

        def work() -> None:
            while time.monotonic() < until:
                put, absent = varied(0), varied(3)
                patiently(lambda put=put: sink.put([put]))  # type: ignore[misc]
                named = set(patiently(lambda asked=(put.task, absent.task): sink.stored(asked)))  # type: ignore[misc]
                assert named == ({put.task.id} if knows else set()), (
                    f"a thread asked about a task with a result and one without, and `stored` names {sorted(named)}"
                )
                if isinstance(sink, ResultStore):
                    ids = (put.task.id, absent.task.id)
                    found = patiently(lambda ids=ids: sink.get(ids))  # type: ignore[misc]
                    assert list(found) == [put.task.id], (
                        f"a thread asked for a result that is there and one that is not, and `get` found {list(found)}"
                    )

        def look() -> None:
            while time.monotonic() < until:
                patiently(sink.stats)
                if sink.keeps_order:
                    patiently(lambda: list(sink.scan("s-1")))
                if sink.lists_failures:
                    patiently(lambda: list(sink.failed()))
                    patiently(sink.has_failed)

        with sink:
            sink.put([varied(1)])
            in_threads([work, work, work, look], 30 * self.wait_factor)

    def test_an_empty_store_is_told_as_empty(self, sink: ResultSink) -> None:
        """A store in which nothing is must be told as empty: 0 is a number, and the last of nothing must not be an error.
        Read: spi.ResultSink.stats, spi.ResultSink.scan."""
        with sink:
            empty = sink.stats()
            assert empty.stored in {0, None}, f"nothing is stored, and `stats` says {empty.stored}"
            assert not any((empty.failures or {}).values()), f"nothing is stored, and the failures are {empty.failures}"
            assert not empty.per_second, f"nothing is stored, and per_second is {empty.per_second}"
            assert not sink.stored([varied(0).task]), "nothing is stored, and `stored` names a task"
            if isinstance(sink, ResultStore):
                assert not sink.get([varied(0).task.id]), "nothing is stored, and `get` finds something"
            assert not list(sink.runs()), "nothing is stored, and `runs` gives something"
            if sink.keeps_order:
                assert not [*sink.scan(), *sink.scan("s-1", 7)], "nothing is stored, and `scan` gives something"
            if sink.lists_failures:
                assert not list(sink.failed()), "nothing is stored, and `failed` lists something"
                assert not sink.has_failed(), "nothing is stored, and `has_failed` is true"
            if sink.keeps_order or type(sink).every_result is not ResultSink.every_result:
                assert not list(sink.every_result()), "nothing is stored, and `every_result` lists something"
            sink.put([varied(1)])
            then = sink.stats()
            for name in ("stored", "failures"):
                was_told = getattr(empty, name) is not None or getattr(then, name) is None
                assert was_told, f"`{name}` is told of a store with a result, and is None of an empty one"

    def test_any_text_in_an_attribute_is_stored_or_rejected_by_name(self, sink: ResultSink) -> None:
        """A result whose task has any text in an attribute must be stored, or raise Rejected with its id while the others are
        stored. A NUL or half of a surrogate pair comes in JSON, and a text of any length: many databases refuse it. Read: spi.ResultSink.put."""
        if sink.max_batch == 1:
            not_asked("max_batch is 1")
        with sink:
            # The session may be in a column of its own, where the others are in a document.
            for name, text in (
                *(("note", text) for text in (*ODD_TEXTS, LONG_TEXT)),
                *(("session_id", text) for text in ODD_TEXTS if text),
            ):
                odd, plain = varied(1), varied(3)
                odd = replace(odd, task=replace(odd.task, attributes={name: text}))
                what = f"a result whose task has the attribute {name} = {text[:80]!r}"
                refused: frozenset[str] = frozenset()
                try:
                    sink.put([odd, plain])
                except Rejected as error:
                    refused = error.task_ids
                    self.keeps_secrets(sink, "the error of a result that is Rejected", str(error))
                    assert refused == {odd.task.id}, f"{what} was Rejected; named are {sorted(refused)}"
                except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
                    raise AssertionError(f"{what} was put, which raised {type(error).__name__}: {error}") from None
                self._stored(sink, [plain] if refused else [odd, plain])
                if isinstance(sink, ResultStore) and not refused:
                    found = dict(sink.get([odd.task.id])[odd.task.id].task.attributes)
                    assert found == {name: text} or not self._has_attributes(sink), (
                        f"a task with the attribute {name} = {text[:80]!r} is read with {str(found)[:200]}"
                    )

    # --- helpers ---

    def _has_attributes(self, sink: ResultSink) -> bool:
        """Whether `get` returns attributes."""
        assert isinstance(sink, ResultStore)
        put = varied(1)
        sink.put([put])
        return dict(sink.get([put.task.id])[put.task.id].task.attributes) == dict(put.task.attributes)

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import FailureKind, Function, Outcome, Rejected, Result, ResultStore, Task, Unavailable


def sink_at(path: Path) -> SqliteSink:
    return SqliteSink(SqliteSink.Config(path=path), Function())


def result(task_id: str, payload: bytes = b"1", session: str = "") -> Result:
    attributes = {"session_id": session} if session else {}
    return Result(Task(task_id, b"event", attributes), Outcome(task_id, payload))


def scanned(sink: SqliteSink, session: str | None = None, after: int = 0) -> list[str]:
    return [one.task.id for _, one in sink.scan(session, after)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.db"


@pytest.fixture
def sink(path: Path) -> Iterator[SqliteSink]:
    with sink_at(path) as sink:
        yield sink


def test_it_meets_the_protocol_of_a_store(sink: SqliteSink) -> None:
    assert isinstance(sink, ResultStore)


def test_every_field_of_an_outcome_survives_but_not_the_event(sink: SqliteSink) -> None:
    outcome = Outcome(
        "t", b'{"errorMessage": "\xc3\xa9"}', FailureKind.OUT_OF_MEMORY, 1732312345.678, 12.5, 13, 97, b"log \xff\x00", 0.25, "env-1"
    )  # fmt: skip
    sink.put([Result(Task("t", b"event", {"session_id": "s", "priority": "3"}), outcome, 4)])
    assert sink.get(["t"]) == {"t": Result(Task("t", b"", {"session_id": "s", "priority": "3"}), outcome, 4)}


def test_an_answer_has_no_failure_and_defaults_survive(sink: SqliteSink) -> None:
    sink.put([result("t")])
    assert sink.get(["t"])["t"].outcome == Outcome("t", b"1")


@pytest.mark.parametrize(
    ("began", "rate"),
    [pytest.param(10, 4, id="a run that is young"), pytest.param(600, 40 / 60, id="tasks of ten minutes")],
)
def test_the_rate_is_that_of_the_time_in_which_tasks_ran_up_to_a_minute(
    sink: SqliteSink, began: float, rate: float
) -> None:
    started = time.time() - began
    outcomes = [Outcome(f"t{n}", b"1", started=started, duration_ms=began * 1000 - 1) for n in range(40)]
    sink.put([Result(Task(outcome.task_id, b"event"), outcome) for outcome in outcomes])
    assert sink.stats().per_second == pytest.approx(rate, rel=0.5)


def test_the_rate_of_a_store_in_which_nothing_ended_lately_is_zero(sink: SqliteSink) -> None:
    sink.put([Result(Task("t", b"event"), Outcome("t", b"1", started=time.time() - 600))])
    assert sink.stats().per_second == 0


@pytest.mark.parametrize("payload", [b"", b"null", '"Zoë 東京 🚀"'.encode(), b"\x00\xff", b"x" * 200_000])
def test_answers_come_back_byte_for_byte(sink: SqliteSink, payload: bytes) -> None:
    sink.put([result("t", payload)])
    received = sink.get(["t"])["t"].outcome.payload
    assert received == payload
    assert type(received) is bytes


def test_results_are_there_for_another_reader_when_put_returns(sink: SqliteSink, path: Path) -> None:
    with sink_at(path) as reader:
        sink.put([result("a"), result("b")])
        assert set(reader.get(["a", "b", "c"])) == {"a", "b"}


def test_the_first_result_of_a_task_stays(sink: SqliteSink) -> None:
    sink.put([result("t", b"first"), result("t", b"second")])
    sink.put([result("t", b"third"), result("u")])
    assert sink.get(["t"])["t"].outcome.payload == b"first"
    assert scanned(sink) == ["t", "u"]


def test_stored_names_the_tasks_that_have_a_result(sink: SqliteSink) -> None:
    sink.put([result("a"), result("é \x00")])
    asked = [Task("a", b""), Task("b", b""), Task("é \x00", b""), Task("\x00", b"")]
    assert set(sink.stored(asked)) == {"a", "é \x00"}


def test_a_scan_gives_a_session_or_all_in_the_order_stored(sink: SqliteSink) -> None:
    sink.put([result("z", session="one"), result("a", session="two"), result("m"), result("b", session="one")])
    assert scanned(sink) == ["z", "a", "m", "b"]
    assert scanned(sink, "one") == ["z", "b"]
    assert scanned(sink, "none such") == []


def test_a_scan_goes_on_after_the_last_number_seen(sink: SqliteSink) -> None:
    sink.put([result("a", session="s"), result("b", session="s")])
    last = max(number for number, _ in sink.scan("s"))
    assert scanned(sink, "s", last) == []
    sink.put([result("c", session="other"), result("a", session="s"), result("d", session="s")])
    assert scanned(sink, "s", last) == ["d"]
    assert scanned(sink, None, last) == ["c", "d"]


def test_a_scan_holds_a_part_in_memory_and_lets_others_write_in_between(
    sink: SqliteSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.builtin.sqlite_store.CHUNK_BYTES", 100)
    sink.put([result(f"t{number}", bytes(60)) for number in range(10)])
    scan = sink.scan()
    assert next(scan)[1].task.id == "t0"
    sink.put([result("late", bytes(60))])
    assert [one.task.id for _, one in scan] == [*(f"t{number}" for number in range(1, 10)), "late"]


def test_a_result_that_cannot_be_stored_is_rejected_and_the_others_are_stored(sink: SqliteSink) -> None:
    with sink._file.reading() as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
    with pytest.raises(
        Rejected, match=r"results\.db: too large.*'big', '\\ud800'; the other 2 results are stored"
    ) as error:
        sink.put([result("a"), result("big", bytes(200_000)), result("\ud800"), result("b")])
    assert error.value.task_ids == {"big", "\ud800"}
    assert scanned(sink) == ["a", "b"]


@pytest.mark.parametrize("payload", [b"1", bytes(200_000)], ids=["small answers", "large answers"])
def test_results_of_a_large_batch_are_stored_in_order_but_for_the_one_that_is_refused(
    sink: SqliteSink, payload: bytes
) -> None:
    results = [result(f"t-{n}" if n != 27 else "\ud800", payload) for n in range(47)]
    with pytest.raises(Rejected, match="the other 46 results are stored"):
        sink.put(results)
    assert scanned(sink) == [f"t-{n}" for n in range(47) if n != 27]


def test_a_large_batch_of_a_later_generation_replaces_failures_each_under_a_number_of_its_own(sink: SqliteSink) -> None:
    def results(generation: str, failure: FailureKind | None) -> list[Result]:
        tasks = [Task(f"t-{n}", b"event", {"generation": generation}) for n in range(45)]
        return [Result(task, Outcome(task.id, b"1", failure)) for task in tasks]

    sink.put(results("0", FailureKind.EXIT))
    sink.put(results("1", None))
    assert scanned(sink, after=45) == [f"t-{n}" for n in range(45)]
    assert not list(sink.failed())


def test_the_first_result_of_a_task_stays_in_a_large_batch_too(sink: SqliteSink) -> None:
    sink.put([result(f"t-{n % 30}", str(n).encode()) for n in range(60)])
    assert scanned(sink) == [f"t-{n}" for n in range(30)]
    assert {one.outcome.payload for _, one in sink.scan(None, 0)} == {str(n).encode() for n in range(30)}


def test_a_full_disk_is_unavailable_and_the_same_results_can_be_put_again(sink: SqliteSink) -> None:
    results = [result(f"t{number}", bytes(10_000)) for number in range(100)]
    with sink._file.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(Unavailable, match="the disk is full; this call stored nothing"):
        sink.put(results)
    assert scanned(sink) == []
    with sink._file.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    sink.put(results)
    assert len(scanned(sink)) == 100


def test_threads_and_a_source_share_one_file_and_lose_nothing(sink: SqliteSink, path: Path) -> None:
    config = SqliteSource.Config(path=path)
    with SqliteSource(config, Function()) as source:
        source.put([Task(f"t{number}", b"%d" % number) for number in range(2000)])

        def work() -> None:
            while leases := source.receive(13, 0):
                assert not sink.stored([lease.task for lease in leases])
                sink.put([Result(lease.task, Outcome(lease.task.id, lease.task.payload)) for lease in leases])
                source.ack(leases)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert source.stats(brief=True).states.waiting == 0
    assert {one.task.id: one.outcome.payload for _, one in sink.scan()} == {f"t{n}": b"%d" % n for n in range(2000)}


def test_a_file_from_before_generations_is_read_and_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with SqliteSink(SqliteSink.Config(path=path), Function()) as sink:
        sink.put([Result(Task("a", b"1"), Outcome("a", b"{}", FailureKind.EXIT))])
    with closing(sqlite3.connect(path)) as old, old:
        old.execute("ALTER TABLE results DROP COLUMN generation")
        old.execute("ALTER TABLE results DROP COLUMN event")
    with SqliteSink(SqliteSink.Config(path=path), Function()) as sink:
        assert [(result.task.id, result.task.payload) for result in sink.failed()] == [("a", b"")]
        sink.put([Result(Task("a", b"1", {"generation": "1"}), Outcome("a", b"2"))])
        assert not sink.has_failed()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        pytest.param(column, value, id=f"{column} {value!r}")
        for column in (
            "task_id",
            "attempt",
            "started",
            "duration_ms",
            "billed_ms",
            "max_memory_mb",
            "init_ms",
            "payload",
        )
        for value in ("x", b"\xff", 1e300)
        if not (isinstance(value, float) and column.endswith(("_ms", "_mb")))
        and (column, value) not in {("task_id", "x"), ("task_id", 1e300), ("payload", b"\xff")}
    ],
)
def test_a_damaged_column_is_named_and_not_a_bug(path: Path, column: str, value: object) -> None:
    with sink_at(path) as sink:
        sink.put([result("t")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE results SET {column} = ?", (value,))
    with sink_at(path) as sink, pytest.raises(Rejected, match="result 1 is damaged"):
        list(sink.scan())

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import pytest

from htcgrid.builtin import sqlite_clock
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import (
    Function,
    Lease,
    Rejected,
    States,
    Task,
    TaskQueue,
    Unavailable,
)

LONG = 30.0


def source_at(path: Path, **options: object) -> SqliteSource:
    return SqliteSource(SqliteSource.Config.model_validate({"path": path, **options}), Function())


def tasks(count: int, prefix: str = "t", **attributes: str) -> list[Task]:
    return [Task(f"{prefix}{number}", b"%d" % number, attributes) for number in range(count)]


def ids(leases: Iterable[Lease]) -> list[str]:
    return [lease.task.id for lease in leases]


def until(found: Callable[[], object], seconds: float = LONG) -> object:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.005)
    pytest.fail(f"not within {seconds} s")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "queue.db"


@pytest.fixture
def source(path: Path) -> Iterator[SqliteSource]:
    with source_at(path) as source:
        yield source


@pytest.fixture
def hasty(path: Path) -> Iterator[SqliteSource]:
    with source_at(path, lease_seconds=0.05) as source:
        yield source


def test_it_meets_the_protocols_of_a_queue(source: SqliteSource) -> None:
    assert isinstance(source, TaskQueue)


# --- Lending -----------------------------------------------------------------------------------------


def test_tasks_come_in_the_order_they_were_put(source: SqliteSource) -> None:
    source.put(tasks(3))
    source.put(tasks(2, "u"))
    assert ids(source.receive(10, 0)) == ["t0", "t1", "t2", "u0", "u1"]


def test_the_highest_priority_comes_first_and_in_order_within_it(source: SqliteSource) -> None:
    source.put(tasks(2, "low", priority="-1"))
    source.put(tasks(2, "none"))
    source.put(tasks(2, "nine", priority="9"))
    source.put(tasks(2, "ten", priority="10"))
    assert ids(source.receive(10, 0)) == ["ten0", "ten1", "nine0", "nine1", "none0", "none1", "low0", "low1"]


def test_no_more_is_lent_than_asked_for_nor_than_a_batch(source: SqliteSource) -> None:
    source.put(tasks(source.max_batch + 5))
    assert len(source.receive(3, 0)) == 3
    assert len(source.receive(source.max_batch + 1, 0)) == source.max_batch
    assert len(source.receive(source.max_batch, 0)) == 2
    assert source.receive(0, 0) == ()


def test_large_payloads_are_lent_a_few_at_a_time_and_none_is_lost(source: SqliteSource) -> None:
    source.put([Task(f"t{number}", bytes(6_000_000)) for number in range(8)])
    first = source.receive(8, 0)
    assert 1 <= len(first) < 8
    assert ids([*first, *source.receive(8, 0)]) == [f"t{number}" for number in range(8)]


@pytest.mark.parametrize("payload", [b"", b"null", '{"name": "Zoë 東京 🚀"}'.encode(), b"\x00\xff", b"x" * 200_000])
def test_payloads_come_back_byte_for_byte(source: SqliteSource, payload: bytes) -> None:
    source.put([Task("t", payload)])
    received = source.receive(1, 0)[0].task.payload
    assert received == payload
    assert type(received) is bytes


@pytest.mark.parametrize(
    "attributes", [{}, {"": ""}, {"session_id": "Zoë 東京 🚀", "a": "b\x00\n'\""}, {"broken": "\ud800"}]
)
def test_ids_and_attributes_come_back_as_they_were(source: SqliteSource, attributes: dict[str, str]) -> None:
    task = Task("id ' \" é 東京 \x00 end", b"1", attributes)
    source.put([task])
    assert source.receive(1, 0)[0].task == task


def test_a_lent_task_is_not_lent_again(source: SqliteSource, path: Path) -> None:
    source.put(tasks(2))
    assert ids(source.receive(1, 0)) == ["t0"]
    with source_at(path) as other:
        assert ids(other.receive(10, 0)) == ["t1"]
    assert source.receive(10, 0) == ()


def test_a_lease_that_lapsed_is_handed_out_again_and_counted(hasty: SqliteSource) -> None:
    hasty.put(tasks(1))
    first = hasty.receive(1, 0)[0]
    second = hasty.receive(1, LONG)[0]
    assert (first.attempt, second.attempt) == (1, 2)
    assert first.task == second.task
    assert first.receipt != second.receipt


def test_tasks_of_a_source_that_went_away_are_handed_out_by_another(path: Path) -> None:
    with source_at(path, lease_seconds=0.05) as gone:
        gone.put(tasks(3))
        assert len(gone.receive(3, 0)) == 3
    with source_at(path) as source:
        again = source.receive(3, LONG)
        assert [(lease.task.id, lease.attempt) for lease in again] == [("t0", 2), ("t1", 2), ("t2", 2)]


# --- Waiting -----------------------------------------------------------------------------------------


def test_a_row_that_is_no_task_is_lent_as_invalid_and_keeps_nothing_up(source: SqliteSource) -> None:
    source.put(tasks(2, session_id="s"))
    with source._file.writing(durable=False) as connection:
        connection.execute("UPDATE tasks SET attributes = '[1' WHERE id = 't0'")
    bad, good = source.receive(2, 0)
    assert bad.invalid == "its attributes are not a JSON object: [1"
    assert good.task == tasks(2, session_id="s")[1]


def test_receive_returns_empty_handed_when_its_wait_is_over(source: SqliteSource) -> None:
    began = time.monotonic()
    assert source.receive(1, 0.1) == ()
    assert time.monotonic() - began >= 0.1


@pytest.mark.timing
@pytest.mark.parametrize("elsewhere", [False, True], ids=["this source", "another"])
def test_a_waiting_receive_returns_as_soon_as_something_is_put(path: Path, elsewhere: bool) -> None:
    with source_at(path) as source, source_at(path) as other:
        received: list[Lease] = []
        waiting = threading.Thread(target=lambda: received.extend(source.receive(1, LONG)))
        began = time.monotonic()
        waiting.start()
        (other if elsewhere else source).put(tasks(1))
        waiting.join()
        assert ids(received) == ["t0"]
        assert time.monotonic() - began < LONG / 2


@pytest.mark.timing
def test_a_put_in_this_process_wakes_a_receive_before_it_looks_again(
    source: SqliteSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.builtin.sqlite_changes.SELDOM_SECONDS", LONG)
    received: list[Lease] = []
    waiting = threading.Thread(target=lambda: received.extend(source.receive(1, LONG)))
    began = time.monotonic()
    waiting.start()
    until(lambda: source._file.changes._is_read)
    source.put(tasks(1))
    waiting.join()
    assert ids(received) == ["t0"]
    assert time.monotonic() - began < LONG / 2


# --- Acking and giving back --------------------------------------------------------------------------


def test_an_ack_is_final(hasty: SqliteSource) -> None:
    hasty.put(tasks(2))
    leases = hasty.receive(2, 0)
    hasty.ack(leases[:1])
    again = hasty.receive(2, LONG)
    assert ids(again) == ["t1"]
    hasty.extend(again, 60)  # a busy machine may take longer than its lease to count it
    assert hasty.stats(brief=True).states == States(waiting=0, leased=1, dead=0)


def test_late_and_double_acks_are_quiet_and_final(hasty: SqliteSource) -> None:
    hasty.put(tasks(1))
    late = hasty.receive(1, 0)
    now = hasty.receive(1, LONG)
    hasty.ack(late)
    hasty.ack(late)
    assert hasty.extend(now, 60) == ["t0"]
    hasty.ack(now)
    hasty.nack(now)
    assert hasty.stats(brief=True).states == States(waiting=0, leased=0, dead=0)


def test_a_late_ack_does_not_meet_a_new_task_of_the_same_id(source: SqliteSource) -> None:
    source.put(tasks(1))
    old = source.receive(1, 0)
    source.ack(old)
    source.put(tasks(1))
    source.ack(old)
    assert ids(source.receive(1, 0)) == ["t0"]


def test_a_receipt_that_is_not_ours_matches_nothing(source: SqliteSource) -> None:
    source.put(tasks(1))
    lease = source.receive(1, 0)[0]
    strange = [dataclasses.replace(lease, receipt=receipt) for receipt in ("", "nonsense", "1", "1.7")]
    source.nack(strange)
    assert source.extend(strange, 60) == ["t0"] * 4
    source.ack(strange[:2])
    assert source.receive(1, 0) == ()
    assert source.extend([lease], 60) == ()


def test_what_is_returned_is_handed_out_at_once_and_counted(source: SqliteSource) -> None:
    source.put(tasks(2))
    source.nack(source.receive(1, 0))
    assert [(lease.task.id, lease.attempt) for lease in source.receive(2, 0)] == [("t0", 2), ("t1", 1)]


@pytest.mark.timing
def test_what_is_returned_with_a_delay_comes_after_it(source: SqliteSource) -> None:
    source.put(tasks(2))
    first, second = source.receive(2, 0)
    source.nack([first], delay=60)
    assert source.receive(1, 0) == ()
    assert source.stats(brief=True).states == States(waiting=1, leased=1, dead=0)
    began = time.monotonic()
    source.nack([second], delay=0.2)
    assert [(lease.task.id, lease.attempt) for lease in source.receive(2, LONG)] == [("t1", 2)]
    assert 0.15 < time.monotonic() - began < LONG / 2


def test_a_late_nack_takes_nothing_from_the_next_holder(hasty: SqliteSource, path: Path) -> None:
    hasty.put(tasks(1))
    late = hasty.receive(1, 0)
    with source_at(path) as other:
        now = other.receive(1, LONG)
        hasty.nack(late)
        hasty.nack(late, delay=9)
        assert hasty.receive(1, 0) == ()
        assert other.extend(now, 60) == ()


# --- Extending ---------------------------------------------------------------------------------------


def test_an_extended_lease_is_kept(hasty: SqliteSource) -> None:
    hasty.put(tasks(1))
    leases = hasty.receive(1, 0)
    assert hasty.extend(leases, 60) == ()
    assert hasty.receive(1, 0.2) == ()


def test_extend_reports_what_was_lost_returned_or_done_and_keeps_the_rest(hasty: SqliteSource, path: Path) -> None:
    hasty.put(tasks(4))
    leases = hasty.receive(4, 0)
    hasty.extend(leases[1:], 60)
    with source_at(path) as other:
        assert ids(other.receive(4, LONG)) == ["t0"]
    hasty.nack(leases[1:2], delay=60)
    hasty.ack(leases[2:3])
    assert hasty.extend(leases, 60) == ["t0", "t1", "t2"]
    assert hasty.receive(4, 0.2) == ()


# --- Putting -----------------------------------------------------------------------------------------


def test_an_id_that_is_there_is_rejected_with_the_whole_batch(source: SqliteSource) -> None:
    source.put(tasks(2))
    with pytest.raises(Rejected, match=r"queue\.db: in the queue already.*: 't1'\. None of the 2 tasks") as error:
        source.put([Task("new", b"1"), Task("t1", b"another")])
    assert error.value.task_ids == {"t1"}
    assert source.stats(brief=True).states == States(waiting=2, leased=0, dead=0)
    source.put([Task("new", b"1")])


def test_a_task_that_is_there_stays_and_the_others_are_accepted(source: SqliteSource) -> None:
    source.put(tasks(2))
    lent = source.receive(1, 0)
    source.put([*tasks(3), Task("new", b"1")])
    assert source.stats(brief=True).states == States(waiting=3, leased=1, dead=0)
    assert [*ids(lent), *ids(source.receive(10, 0))] == ["t0", "t1", "t2", "new"]


def test_a_task_that_was_cancelled_is_not_accepted_again(source: SqliteSource) -> None:
    source.put(tasks(1))
    source.cancel(task_ids=["t0"])
    with pytest.raises(Rejected, match="cancelled"):
        source.put(tasks(1))


def test_an_id_twice_in_one_call_is_rejected(source: SqliteSource) -> None:
    with pytest.raises(Rejected, match="twice in this call: 'a'") as error:
        source.put([Task("a", b"1"), Task("b", b"1"), Task("a", b"2")])
    assert error.value.task_ids == {"a"}
    assert source.stats(brief=True).states == States(waiting=0, leased=0, dead=0)


def test_many_repeated_ids_make_a_short_message(source: SqliteSource) -> None:
    source.put(tasks(1000))
    with pytest.raises(Rejected, match=r"'t0', 't1', 't2', 't3', 't4' and 995 more") as error:
        source.put([Task(task.id, b"another") for task in tasks(1000)])
    assert len(error.value.task_ids) == 1000


@pytest.mark.parametrize("priority", ["high", "", "1.5", "99999999999"])
def test_a_priority_that_is_no_whole_number_is_rejected_by_name(source: SqliteSource, priority: str) -> None:
    with pytest.raises(Rejected, match=rf"task 'bad' has priority '{priority}'; expected a whole number"):
        source.put([*tasks(2), Task("bad", b"1", {"priority": priority})])
    assert source.stats(brief=True).states == States(waiting=0, leased=0, dead=0)


@pytest.mark.parametrize("task", [Task("\ud800", b"1"), Task("t", b"1", {"session_id": "\ud800"})])
def test_text_that_is_no_unicode_is_rejected(source: SqliteSource, task: Task) -> None:
    with pytest.raises(Rejected, match="not Unicode") as error:
        source.put([Task("fine", b"1"), task])
    assert error.value.task_ids == {task.id}
    assert source.stats(brief=True).states == States(waiting=0, leased=0, dead=0)


def test_a_payload_past_sqlites_limit_is_rejected(source: SqliteSource) -> None:
    with source._file.reading() as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
    with pytest.raises(Rejected, match=r"too large for SQLite.*: 'big'"):
        source.put([Task("fine", b"1"), Task("big", bytes(200_000))])
    assert source.stats(brief=True).states == States(waiting=0, leased=0, dead=0)


def test_a_full_disk_is_unavailable_and_nothing_is_lost(source: SqliteSource) -> None:
    source.put(tasks(10))
    with source._file.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(Unavailable, match=r"queue\.db: the disk is full; this call stored nothing"):
        source.put([Task(f"big{number}", bytes(10_000)) for number in range(100)])
    with source._file.reading() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    source.put([Task("after", b"1")])
    assert ids(source.receive(100, 0)) == [f"t{number}" for number in range(10)] + ["after"]


# --- Cancelling --------------------------------------------------------------------------------------


def test_a_waiting_task_that_is_cancelled_never_runs(source: SqliteSource) -> None:
    source.put(tasks(3, priority="5"))
    assert source.cancel(task_ids=["t1", "unknown"]) == [Task("t1", b"", {"priority": "5"})]
    assert ids(source.receive(10, 0)) == ["t0", "t2"]
    assert source.stats(brief=True).states == States(waiting=0, leased=2, dead=0)


def test_cancelling_a_session_leaves_the_others(source: SqliteSource) -> None:
    source.put(tasks(3, "a", session_id="one"))
    source.put(tasks(3, "b", session_id="two"))
    source.put(tasks(1, "c"))
    assert [task.id for task in source.cancel("one")] == ["a0", "a1", "a2"]
    assert source.cancel("none such") == []
    assert ids(source.receive(10, 0)) == ["b0", "b1", "b2", "c0"]


def test_cancelling_again_names_the_same_tasks_once_each(source: SqliteSource) -> None:
    source.put(tasks(3, session_id="one"))
    first = source.cancel("one", ["t1"])
    assert sorted(task.id for task in first) == ["t0", "t1", "t2"]
    assert source.cancel("one") == sorted(first, key=lambda task: task.id)
    assert source.cancel(task_ids=["t1"]) == [Task("t1", b"", {"session_id": "one"})]


def test_more_are_cancelled_than_one_transaction_takes(source: SqliteSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htcgrid.builtin.sqlite_source.CANCEL_ROWS", 4)
    source.put(tasks(10, "a", session_id="one"))
    source.put(tasks(10, "b"))
    assert len(source.cancel("one", [f"b{number}" for number in range(9)])) == 19
    assert ids(source.receive(50, 0)) == ["b9"]


def test_a_running_task_that_is_cancelled_is_reported_by_extend_and_never_runs_again(
    hasty: SqliteSource, path: Path
) -> None:
    hasty.put(tasks(2))
    leases = hasty.receive(2, 0)
    with source_at(path) as user:
        assert [task.id for task in user.cancel(task_ids=["t0"])] == ["t0"]
    assert hasty.extend(leases, 60) == ["t0"]
    assert hasty.extend(leases, 60) == ["t0"]
    hasty.nack(leases[:1])
    hasty.nack(leases[:1], delay=0.01)
    hasty.dead_letter(leases[:1], "why")
    assert hasty.receive(2, 0.2) == ()
    assert [task.id for task in hasty.cancel(task_ids=["t0"])] == ["t0"]


def test_a_delayed_task_that_is_cancelled_never_runs(source: SqliteSource) -> None:
    source.put(tasks(1))
    source.nack(source.receive(1, 0), delay=0.01)
    source.cancel(task_ids=["t0"])
    assert source.receive(1, 0.1) == ()


def test_the_room_of_cancelled_events_is_used_again(source: SqliteSource, path: Path) -> None:
    for number in range(8):
        source.put([Task(f"{number}-{one}", bytes(20_000), {"session_id": "s"}) for one in range(100)])
        source.cancel("s")
    source.close()
    assert path.stat().st_size < 8_000_000  # of 16 MB that were put


def test_a_cancelled_task_that_was_done_all_the_same_is_done(source: SqliteSource) -> None:
    source.put(tasks(1))
    leases = source.receive(1, 0)
    source.cancel(task_ids=["t0"])
    source.ack(leases)
    assert source.cancel(task_ids=["t0"]) == []


def test_what_is_cancelled_does_not_keep_a_queue_from_being_drained(path: Path) -> None:
    with source_at(path, drain=True) as source:
        source.put(tasks(2))
        source.receive(1, 0)
        source.cancel(task_ids=["t0", "t1"])
        assert source.exhausted


# --- Setting aside, counting, ending -----------------------------------------------------------------


def test_a_dead_letter_keeps_its_event_and_reason_and_is_not_handed_out(hasty: SqliteSource) -> None:
    hasty.put(tasks(2, session_id="s"))
    leases = hasty.receive(2, 0)
    hasty.dead_letter(leases[:1], "exit: signal: killed, three times")
    hasty.ack(leases[:1])
    hasty.nack(leases[:1])
    assert ids(hasty.receive(2, LONG)) == ["t1"]
    assert [task.id for task in hasty.cancel("s")] == ["t1"]
    assert hasty.cancel(task_ids=["t0"]) == []
    dead = list(hasty.dead_letters())
    assert [(one.task, one.attempt, one.reason) for one in dead] == [
        (tasks(2, session_id="s")[0], 1, "exit: signal: killed, three times")
    ]
    assert hasty.stats(brief=True).states.dead == 1


def test_depth_counts_a_lapsed_lease_as_waiting(hasty: SqliteSource) -> None:
    hasty.put(tasks(5))
    leases = hasty.receive(4, 0)
    hasty.extend(leases[1:], 60)
    hasty.nack(leases[1:2], delay=60)
    hasty.dead_letter(leases[2:3], "why")
    until(lambda: hasty.stats(brief=True).states == States(waiting=3, leased=1, dead=1))


def test_the_survey_tells_states_sessions_and_the_oldest(source: SqliteSource) -> None:
    assert source.stats().oldest_seconds is None
    source.put(tasks(4, "a", session_id="one"))
    source.put(tasks(2, "b"))
    leases = source.receive(3, 0)
    source.nack(leases[:1], delay=60)
    source.dead_letter(leases[1:2], "why")
    source.cancel(task_ids=["b1"])
    survey = source.stats()
    assert survey.sessions == {
        "one": States(waiting=1, delayed=1, leased=1, cancelled=0, dead=1),
        "": States(waiting=1, delayed=0, leased=0, cancelled=1, dead=0),
    }
    assert survey.states == States(waiting=2, delayed=1, leased=1, cancelled=1, dead=1)
    assert survey.oldest_seconds is not None
    assert 0 <= survey.oldest_seconds < LONG


def test_the_survey_names_the_agents_with_what_they_hold_until_they_leave(path: Path) -> None:
    with source_at(path) as submitter:
        submitter.put(tasks(3))
        assert submitter.stats().agents == {}
        with source_at(path) as agent:
            agent.receive(2, 0)
            ((name, holder),) = (submitter.stats().agents or {}).items()
            assert name == f"{socket.gethostname()}-{os.getpid()}"
            assert holder.leased == 2
            assert 0 <= holder.silent_seconds < LONG
        assert submitter.stats().agents == {}


def test_an_agent_that_finds_nothing_to_do_is_named_all_the_same(source: SqliteSource) -> None:
    source.receive(1, 0)
    assert [holder.leased for holder in (source.stats().agents or {}).values()] == [0]


def test_what_a_silent_agent_had_is_told_with_its_name(hasty: SqliteSource, caplog: pytest.LogCaptureFixture) -> None:
    hasty.put(tasks(2))
    hasty.receive(2, 0)
    until(lambda: hasty.receive(2, 0))
    assert f"tasks of agent {socket.gethostname()}-{os.getpid()} are handed out again" in caplog.text
    assert "'t0', 't1'" in caplog.text


def test_the_oldest_task_ages(source: SqliteSource) -> None:
    source.put(tasks(1))
    until(lambda: (source.stats().oldest_seconds or 0) > 0.05)
    source.receive(1, 0)
    assert source.stats().oldest_seconds is None


def test_a_queue_never_ends_unless_it_is_to_be_drained(source: SqliteSource, path: Path) -> None:
    assert not source.exhausted
    with source_at(path, drain=True) as draining:
        assert draining.exhausted


def test_a_queue_is_drained_when_nothing_waits_is_delayed_or_lent(path: Path) -> None:
    with source_at(path, drain=True) as source:
        source.put(tasks(2))
        assert not source.exhausted
        leases = source.receive(2, 0)
        assert not source.exhausted
        source.nack(leases[:1], delay=0.1)
        source.ack(leases[1:])
        assert not source.exhausted
        source.dead_letter(source.receive(1, LONG), "why")
        assert source.exhausted


@pytest.mark.timing
def test_a_receive_that_waits_on_a_queue_returns_when_it_is_drained(path: Path) -> None:
    with source_at(path, drain=True) as source:
        source.put(tasks(1))
        leases = source.receive(1, 0)
        waiting = threading.Thread(target=source.receive, args=(1, LONG))
        waiting.start()
        began = time.monotonic()
        source.ack(leases)
        waiting.join()
        assert time.monotonic() - began < LONG / 2


def test_four_threads_share_a_source_and_lose_and_double_nothing(source: SqliteSource) -> None:
    source.put(tasks(3000))
    seen: list[list[str]] = [[] for _ in range(4)]

    def work(mine: list[str]) -> None:
        while leases := source.receive(7, 0):
            assert source.extend(leases, 60) == ()
            source.nack([lease for lease in leases if lease.attempt == 1 and lease.task.id.endswith("3")])
            done = [lease for lease in leases if lease.attempt > 1 or not lease.task.id.endswith("3")]
            source.ack(done)
            mine.extend(ids(done))

    threads = [threading.Thread(target=work, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(chain(*seen)) == sorted(task.id for task in tasks(3000))
    assert source.stats(brief=True).states == States(waiting=0, leased=0, dead=0)


def test_receiving_costs_the_same_at_any_depth(source: SqliteSource) -> None:
    from htcgrid.builtin import sqlite_statements as sql  # noqa: PLC0415

    source.put(tasks(100))
    with source._file.reading() as connection:
        for statement, values in (
            (sql.NEXT_DUE, ()),
            (sql.READY, (5,)),
            (sql.LEASE_OVER, (0,)),
            (sql.DELAY_OVER, (0,)),
        ):
            plan = json.dumps([row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)])
            assert "TEMP B-TREE" not in plan
            assert 'SCAN queue"' not in plan
            assert "INDEX" in plan


# --- Time --------------------------------------------------------------------------------------------


def test_a_wall_clock_that_jumps_back_keeps_no_dead_agents_tasks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with source_at(path, lease_seconds=0.1) as dead:
        dead.put(tasks(1))
        assert len(dead.receive(1, 0)) == 1
        monkeypatch.setattr(time, "time", lambda: real() - 86_400)
        with source_at(path) as other:
            assert ids(other.receive(1, LONG)) == ["t0"]


def test_a_wall_clock_that_jumps_forward_takes_no_living_agents_tasks(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    with source_at(path, lease_seconds=LONG) as living:
        living.put(tasks(1))
        leases = living.receive(1, 0)
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        with source_at(path) as other:
            assert other.receive(1, 0.05) == ()
        assert living.extend(leases, LONG) == ()


def test_leases_and_delays_of_before_a_restart_of_the_machine_are_over(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with source_at(path, lease_seconds=LONG) as before:
        before.put(tasks(3))
        before.nack(before.receive(1, 0), LONG)
        before.receive(1, 0)
    monkeypatch.setattr("htcgrid.builtin.sqlite_clock._boot_id", lambda: "another boot")
    monkeypatch.setattr("htcgrid.builtin.sqlite_clock._since_boot", lambda: 3.0)
    with source_at(path) as after:
        assert sorted(ids(after.receive(10, 0))) == ["t0", "t1", "t2"]


@pytest.mark.parametrize(
    "damage",
    ["UPDATE tasks SET id = x'ff' WHERE seq = 2", "UPDATE tasks SET seq = 1000 WHERE seq = 2"],
    ids=["an id that is no text", "a task that is missing"],
)
def test_a_damaged_task_is_an_invalid_one_and_the_others_run_to_the_end(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "grid.db"
    with source_at(path) as source:
        source.put(tasks(3))
    connection = sqlite3.connect(path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with source_at(path, drain=True) as source:
        leases = source.receive(10, 0)
        assert ids(leases) == ["t0", "damaged-2", "t2"]
        assert [bool(lease.invalid) for lease in leases] == [False, True, False]
        source.ack(leases)
        assert source.exhausted


def test_a_damaged_clock_is_set_anew(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    with source_at(path) as source:
        source.put(tasks(1))
    connection = sqlite3.connect(path)
    connection.execute("UPDATE clock SET base = 'x'")
    connection.commit()
    connection.close()
    with source_at(path) as source:
        assert ids(source.receive(10, 0)) == ["t0"]


def test_a_machine_without_a_boot_id_is_told_what_the_source_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_clock, "_BOOT", tmp_path / "nothing")
    with pytest.raises(Rejected, match="which only Linux has"), source_at(tmp_path / "grid.db"):
        pass

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from htcgrid.agent.leases import LeaseTable
from htcgrid.spi import Lease, Outcome, Result, Task


def leases(*ids: str) -> list[Lease]:
    return [Lease(Task(task_id, b"1")) for task_id in ids]


def ids(taken: Iterable[Lease]) -> list[str]:
    return [lease.task.id for lease in taken]


@pytest.fixture
def table(request: pytest.FixtureRequest) -> LeaseTable:
    """For as many slots as the test asks for; a slot takes up to four at once."""
    slots = getattr(request, "param", 1)
    table = LeaseTable(slots)
    for _ in range(slots):
        table.new_slot()
    table.prefetch.batch = 4
    table.prefetch.size = lambda: 3  # type: ignore[method-assign]
    return table


def put(table: LeaseTable, *ids: str) -> None:
    table.offer(table.add(leases(*ids)))


def returned(table: LeaseTable) -> list[str]:
    return [lease.task.id for some in table.next_returning().values() for lease in some]


two_slots = pytest.mark.parametrize("table", [2], indirect=True)


def test_tasks_are_handed_out_in_order(table: LeaseTable) -> None:
    put(table, "a", "b", "c")
    assert list(table.take(0)) == ["a", "b", "c"]


@two_slots
def test_no_slot_takes_more_than_its_share(table: LeaseTable) -> None:
    put(table, "a", "b", "c", "d")
    assert list(table.take(0)) == ["a", "b"]
    assert list(table.take(1)) == ["c"]
    assert list(table.take(1)) == ["d"]


def test_what_is_put_back_is_next(table: LeaseTable) -> None:
    table.prefetch.batch = 1
    put(table, "a", "b")
    table.put_back(table.take(0).popitem()[1])
    table.prefetch.batch = 2
    assert list(table.take(0)) == ["a", "b"]


def test_a_slot_that_waits_gets_what_comes(table: LeaseTable) -> None:
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(table.take, 0)
        put(table, "a")
        assert list(taken.result(timeout=10)) == ["a"]


@two_slots
def test_closing_wakes_every_slot_with_nothing(table: LeaseTable) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(table.take, slot) for slot in range(2)]
        table.close()
        assert [taken.result(timeout=10) for taken in waiting] == [{}, {}]
    assert returned(table) == []


def test_closing_returns_what_was_left_and_what_comes_later(table: LeaseTable) -> None:
    put(table, "a", "b")
    table.close()
    assert table.take(0) == {}
    put(table, "c")
    assert returned(table) == ["a", "b", "c"]


def test_what_runs_is_known_until_it_ends(table: LeaseTable) -> None:
    put(table, "a", "b")
    batch = table.take(0)
    assert ids(table.running()) == ["a", "b"]
    del batch["a"]
    assert ids(table.running()) == ["b"]


def test_room_counts_down_to_what_is_to_be_prefetched(table: LeaseTable) -> None:
    assert table.wait_for_room(0) == 3
    put(table, "a", "b")
    assert table.wait_for_room(0) == 1
    put(table, "c", "d")
    assert table.wait_for_room(0) == 0


def test_with_no_prefetch_there_is_room_for_a_slot_that_waits(table: LeaseTable) -> None:
    table.prefetch.size = lambda: 0  # type: ignore[method-assign]
    assert table.wait_for_room(0) == 0
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(table.take, 0)
        assert table.wait_for_room(10) == 1
        put(table, "a")
        assert list(taken.result(timeout=10)) == ["a"]


def test_taking_wakes_whoever_waits_for_room(table: LeaseTable) -> None:
    put(table, "a", "b", "c")
    with ThreadPoolExecutor() as pool:
        room = pool.submit(table.wait_for_room, 10)
        table.take(0)
        assert room.result(timeout=10) >= 1


def test_there_is_no_room_while_too_much_waits_to_be_stored(table: LeaseTable) -> None:
    table._most_finished = 1
    finished = [Result(lease.task, Outcome(lease.task.id, b"1")) for lease in leases("a", "b")]
    for result in finished:
        table.finish(result)
    assert table.wait_for_room(0) == 0
    with ThreadPoolExecutor() as pool:
        room = pool.submit(table.wait_for_room, 10)
        table.stored(table.next_finished(2))
        assert room.result(timeout=10) == 3


@pytest.mark.parametrize("table", [4], indirect=True)
def test_many_slots_take_each_task_once(table: LeaseTable) -> None:
    table.prefetch.batch = 7
    seen: list[str] = []
    lock = threading.Lock()

    def slot(number: int) -> None:
        while taken := table.take(number):
            with lock:
                seen.extend(taken)

    with ThreadPoolExecutor() as pool:
        slots = [pool.submit(slot, number) for number in range(4)]
        wanted = [str(number) for number in range(2000)]
        for start in range(0, 2000, 100):
            put(table, *wanted[start : start + 100])
        while table.wait_for_room(10) == 0:
            pass
        table.close()
        for done in slots:
            done.result(timeout=10)
    assert sorted(seen + returned(table)) == sorted(wanted)


# --- the end of a run --------------------------------------------------------------------------------


def test_all_is_settled_once_the_last_lease_is_stored(table: LeaseTable) -> None:
    put(table, "a")
    [lease] = table.take(0).values()
    with ThreadPoolExecutor() as pool:
        settled = pool.submit(table.wait_until_settled, 10)
        table.finish(Result(lease.task, Outcome("a", b"1")))
        table.stored(table.next_finished(5))
        assert settled.result(timeout=5) is True


def test_whoever_waits_for_the_end_is_woken_by_a_return_since_the_task_may_come_again(table: LeaseTable) -> None:
    put(table, "a", "b")
    batch = table.take(0)
    with ThreadPoolExecutor() as pool:
        settled = pool.submit(table.wait_until_settled, 10)
        table.return_now(batch.pop("a"))
        assert table.next_returning()
        table.returned_all()
        assert settled.result(timeout=5) is False


def test_a_batch_of_lost_results_does_not_hide_those_behind_it(table: LeaseTable) -> None:
    put(table, "a", "b")
    batch = dict(table.take(0))
    table.lose([batch["a"]])
    for lease in batch.values():
        table.finish(Result(lease.task, Outcome(lease.task.id, b"1")))
    assert [result.task.id for result, _ in table.next_finished(1)] == ["b"]


def test_a_task_that_was_lost_and_leased_again_is_returned_once(table: LeaseTable) -> None:
    put(table, "a")
    [first] = table.take(0).values()
    table.lose([first])
    table.add([replace(first, attempt=2, receipt="second")])
    table.finish(Result(first.task, Outcome("a", b"1")))
    assert table.next_finished(5) == []
    assert returned(table) == ["a"]
    assert returned(table) == []
    assert len(table) == 0


def test_a_lease_that_was_lost_is_neither_stored_nor_returned(table: LeaseTable) -> None:
    put(table, "a", "b", "c")
    batch = table.take(0)
    held = list(batch.values())
    assert table.lose(held[:2]) == ["a", "b"]
    table.finish(Result(batch["a"].task, Outcome("a", b"1")))
    table.return_now(batch["b"])
    assert table.next_finished(5) == []
    assert returned(table) == []
    assert ids(table.held()) == ["c"]

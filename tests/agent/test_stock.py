from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from htcgrid.agent.stock import Stock
from htcgrid.spi import Lease, Task


def leases(*ids: str) -> list[Lease]:
    return [Lease(Task(task_id, b"1")) for task_id in ids]


def ids(taken: list[Lease]) -> list[str]:
    return [lease.task.id for lease in taken]


def test_tasks_are_handed_out_in_order() -> None:
    stock = Stock()
    stock.put(leases("a", "b", "c"))
    assert ids(stock.take(3, 1)) == ["a", "b", "c"]


def test_no_slot_takes_more_than_its_share() -> None:
    stock = Stock()
    stock.put(leases("a", "b", "c", "d"))
    assert ids(stock.take(4, 2)) == ["a", "b"]
    assert ids(stock.take(4, 2)) == ["c"]
    assert ids(stock.take(4, 2)) == ["d"]


def test_what_is_put_back_is_next() -> None:
    stock = Stock()
    stock.put(leases("a", "b"))
    [first] = stock.take(1, 1)
    stock.put_back(first)
    assert ids(stock.take(2, 1)) == ["a", "b"]


def test_a_slot_that_waits_gets_what_comes() -> None:
    stock = Stock()
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(stock.take, 1, 1)
        stock.put(leases("a"))
        assert ids(taken.result(timeout=10)) == ["a"]


def test_closing_wakes_every_slot_with_nothing_and_returns_what_was_left() -> None:
    stock = Stock()
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(stock.take, 1, 2) for _ in range(2)]
        assert stock.close() == []
        assert [taken.result(timeout=10) for taken in waiting] == [[], []]
    filled = Stock()
    filled.put(leases("a", "b"))
    assert ids(filled.close()) == ["a", "b"]
    assert filled.take(1, 1) == []


def test_room_counts_the_slots_that_wait_beyond_the_size_wanted() -> None:
    stock = Stock()
    assert stock.wait_for_room(3, 0) == 3
    stock.put(leases("a", "b"))
    assert stock.wait_for_room(3, 0) == 1
    stock.put(leases("c", "d"))
    assert stock.wait_for_room(3, 0) == 0


def test_a_stock_of_none_still_has_room_for_a_slot_that_waits() -> None:
    stock = Stock()
    assert stock.wait_for_room(0, 0) == 0
    with ThreadPoolExecutor() as pool:
        taken = pool.submit(stock.take, 1, 1)
        assert stock.wait_for_room(0, 10) == 1
        stock.put(leases("a"))
        assert ids(taken.result(timeout=10)) == ["a"]


def test_taking_wakes_whoever_waits_for_room() -> None:
    stock = Stock()
    stock.put(leases("a", "b"))
    with ThreadPoolExecutor() as pool:
        room = pool.submit(stock.wait_for_room, 2, 10)
        stock.take(1, 1)
        assert room.result(timeout=10) >= 1


def test_many_slots_take_each_task_once() -> None:
    stock = Stock()
    seen: list[str] = []
    lock = threading.Lock()

    def slot() -> None:
        while taken := stock.take(7, 4):
            with lock:
                seen.extend(ids(taken))

    with ThreadPoolExecutor() as pool:
        slots = [pool.submit(slot) for _ in range(4)]
        wanted = [str(number) for number in range(2000)]
        for start in range(0, 2000, 100):
            stock.put(leases(*wanted[start : start + 100]))
        while stock.wait_for_room(1, 10) == 0:
            pass
        left = stock.close()
        for done in slots:
            done.result(timeout=10)
    assert sorted(seen + ids(left)) == sorted(wanted)

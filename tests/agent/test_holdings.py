from __future__ import annotations

from htcgrid.agent.holdings import Holdings
from htcgrid.spi import Lease, Outcome, Result, Task


def lease(task_id: str, receipt: str = "") -> Lease:
    return Lease(Task(task_id, b"1"), receipt=receipt)


def result(task_id: str) -> Result:
    return Result(Task(task_id, b"1"), Outcome(task_id, b"2"))


def test_a_task_that_is_held_is_not_new_when_it_is_delivered_twice() -> None:
    held = Holdings()
    assert held.add([lease("a", "1")]) == [lease("a", "1")]
    assert held.add([lease("a", "2"), lease("b", "3")]) == [lease("b", "3")]
    assert len(held) == 2


def test_a_task_twice_in_one_delivery_is_new_once() -> None:
    assert Holdings().add([lease("a", "1"), lease("a", "2")]) == [lease("a", "1")]


def test_the_newer_receipt_is_the_one_that_is_acked() -> None:
    held = Holdings()
    held.add([lease("a", "1")])
    held.add([lease("a", "2")])
    assert held.release(["a"]) == [lease("a", "2")]


def test_what_is_released_is_held_no_more() -> None:
    held = Holdings()
    held.add([lease("a"), lease("b")])
    assert held.release(["a", "never"]) == [lease("a")]
    assert held.release(["a"]) == []
    assert held.all() == [lease("b")]


def test_the_result_of_a_lost_lease_is_not_kept() -> None:
    held = Holdings()
    held.add([lease("a"), lease("b")])
    held.lose(["a"])
    assert held.keep_ours([result("a"), result("b")]) == [result("b")]
    assert held.all() == [lease("b")]


def test_a_task_that_was_lost_and_let_go_may_come_again() -> None:
    held = Holdings()
    held.add([lease("a", "1")])
    held.lose(["a"])
    held.keep_ours([result("a")])
    assert held.add([lease("a", "2")]) == [lease("a", "2")]
    assert held.keep_ours([result("a")]) == [result("a")]


def test_losing_what_is_not_held_means_nothing_to_its_next_lease() -> None:
    held = Holdings()
    held.lose(["a"])
    held.add([lease("a")])
    assert held.keep_ours([result("a")]) == [result("a")]

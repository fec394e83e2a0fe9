from __future__ import annotations

import threading

import pytest

from htcgrid.agent.leases import LeaseTable
from htcgrid.spi import Lease, Task


def lease(task_id: str, receipt: str = "") -> Lease:
    return Lease(Task(task_id, b"1"), receipt=receipt)


def test_a_task_that_is_held_is_not_new_when_it_is_delivered_twice() -> None:
    held = LeaseTable(1)
    assert held.add([lease("a", "1")]) == [lease("a", "1")]
    assert held.add([lease("a", "2"), lease("b", "3")]) == [lease("b", "3")]
    assert len(held) == 2


def test_a_task_twice_in_one_delivery_is_new_once() -> None:
    assert LeaseTable(1).add([lease("a", "1"), lease("a", "2")]) == [lease("a", "2")]


def test_the_newer_receipt_is_the_one_that_is_acked() -> None:
    held = LeaseTable(1)
    held.add([lease("a", "1")])
    held.add([lease("a", "2")])
    assert held.release([lease("a")]) == [lease("a", "2")]


def test_what_is_released_is_held_no_more() -> None:
    held = LeaseTable(1)
    held.add([lease("a"), lease("b")])
    assert held.release([lease("a"), lease("never")]) == [lease("a")]
    assert held.release([lease("a")]) == []
    assert held.held() == [lease("b")]


def test_a_lost_lease_is_released() -> None:
    held = LeaseTable(1)
    held.add([lease("a"), lease("b")])
    assert held.lose([lease("a")]) == ["a"]
    assert (held.is_lost("a"), held.is_lost("b")) == (True, False)
    held.drop(["a"])
    assert held.returned == 0
    assert held.held() == [lease("b")]


def test_a_task_that_was_lost_and_released_may_come_again() -> None:
    held = LeaseTable(1)
    held.add([lease("a", "1")])
    held.lose([lease("a", "1")])
    held.drop(["a"])
    assert held.add([lease("a", "2")]) == [lease("a", "2")]
    assert not held.is_lost("a")


def test_losing_what_is_not_held_means_nothing_to_its_next_lease() -> None:
    held = LeaseTable(1)
    assert held.lose([lease("a", "1")]) == []
    held.add([lease("a", "2")])
    assert not held.is_lost("a")


def test_losing_an_older_lease_means_nothing_to_the_newer_one() -> None:
    held = LeaseTable(1)
    held.add([lease("a", "1")])
    held.add([lease("a", "2")])
    assert held.lose([lease("a", "1")]) == []
    assert not held.is_lost("a")


def test_a_task_leased_again_while_its_lost_lease_ends_stays_and_is_returned() -> None:
    held = LeaseTable(1)
    held.add([lease("a", "1")])
    held.lose([lease("a", "1")])
    held.add([lease("a", "2")])
    held.drop(["a"])
    assert held.returned == 1
    assert held.release([lease("a")]) == [lease("a", "2")]


def test_a_lease_that_comes_in_while_an_older_one_is_released_is_not_released_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = LeaseTable(1)
    held.add([lease("a", "1")])
    held.lose([lease("a", "1")])
    new: list[Lease] = []
    receiver = threading.Thread(target=lambda: new.extend(held.add([lease("a", "2")])))
    release = held._release

    def interrupted(task_ids: list[str]) -> list[Lease]:
        receiver.start()
        receiver.join(0.05)  # to its end, unless it has to wait until this one is gone
        return release(task_ids)

    monkeypatch.setattr(held, "_release", interrupted)
    held.drop(["a"])
    receiver.join()
    assert held.returned == 1 or new == [lease("a", "2")]
    assert held.held() == [lease("a", "2")]

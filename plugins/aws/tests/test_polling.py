"""Which queue of several is asked, and how often."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Lock
from typing import Any

import pytest
from htcgrid_aws.polling import SKIPPED_SECONDS, Poller
from htcgrid_aws.sqs_queue import BATCH

from htcgrid.spi import Unavailable


class Tasks:
    """As many messages as are put in; it counts how often it is asked."""

    def __init__(self, messages: int = 0) -> None:
        self.messages = messages
        self.asked = 0

    def receive(self, count: int, wait: int, visibility: int) -> list[dict[str, Any]]:
        self.asked += 1
        taken = min(count, BATCH, self.messages)
        self.messages -= taken
        return [{"MessageId": str(number)} for number in range(taken)]


def poller_of(*queues: Tasks) -> Poller:
    return Poller(queues)  # type: ignore[arg-type]


def received_from(poller: Poller, count: int = BATCH) -> int | None:
    number, messages = poller.poll(count, 0, 30)
    return number if messages else None


def test_empty_queues_above_one_that_gives_full_batches_are_not_asked_each_time() -> None:
    low, middle, high = Tasks(100 * BATCH), Tasks(), Tasks()
    poller = poller_of(low, middle, high)
    began = time.monotonic()
    for _ in range(100):
        assert received_from(poller) == 0
    looks = 1 + (time.monotonic() - began) / SKIPPED_SECONDS
    assert low.asked == 100
    assert 1 <= middle.asked == high.asked <= looks


def test_a_high_priority_that_arrives_among_full_batches_is_found_within_a_moment() -> None:
    low, high = Tasks(1_000_000), Tasks()
    poller = poller_of(low, high)
    assert received_from(poller) == 0
    high.messages, arrived = 1, time.monotonic()
    while received_from(poller) == 0:
        assert time.monotonic() < arrived + 2 * SKIPPED_SECONDS + 1
        time.sleep(0.005)
    assert high.messages == 0


def test_a_high_priority_goes_before_what_is_received_one_by_one() -> None:
    low, high = Tasks(5), Tasks()
    poller = poller_of(low, high)
    assert received_from(poller, 1) == 0
    high.messages = 1
    assert received_from(poller, 1) == 1


def test_all_queues_are_asked_as_soon_as_the_one_that_gave_full_batches_is_empty() -> None:
    low, high = Tasks(BATCH), Tasks()
    poller = poller_of(low, high)
    assert received_from(poller) == 0
    high.messages = 3
    assert received_from(poller) == 1


class Gate(Tasks):
    """Messages that are handed out once two receives wait for them; `failing` of those fail."""

    def __init__(self, messages: int, failing: int = 0) -> None:
        super().__init__(messages)
        self.gate = Barrier(2, timeout=20)
        self.failing = failing
        self._lock = Lock()

    def receive(self, count: int, wait: int, visibility: int) -> list[dict[str, Any]]:
        is_first = self.asked == 0
        if not is_first:
            self.gate.wait()
        with self._lock:
            if not is_first and self.failing:
                self.failing -= 1
                raise Unavailable("SQS is away")
            return super().receive(count, wait, visibility)


@pytest.mark.parametrize("others", [0, 1])
def test_a_queue_that_gave_a_full_batch_is_asked_for_two_side_by_side(others: int) -> None:
    queues = [Gate(100), *(Tasks() for _ in range(others))]
    with ThreadPoolExecutor(2) as pool:
        poller = Poller(queues, pool)  # type: ignore[arg-type]
        assert len(poller.poll(2 * BATCH, 0, 30)[1]) == BATCH
        assert len(poller.poll(2 * BATCH, 0, 30)[1]) == 2 * BATCH


def test_what_one_of_two_receives_found_is_kept_where_the_other_failed() -> None:
    with ThreadPoolExecutor(2) as pool:
        poller = Poller([Gate(100, failing=1)], pool)  # type: ignore[list-item]
        poller.poll(2 * BATCH, 0, 30)
        assert len(poller.poll(2 * BATCH, 0, 30)[1]) == BATCH


def test_two_receives_that_fail_say_why() -> None:
    with ThreadPoolExecutor(2) as pool:
        poller = Poller([Gate(100, failing=2)], pool)  # type: ignore[list-item]
        poller.poll(2 * BATCH, 0, 30)
        with pytest.raises(Unavailable, match="SQS is away"):
            poller.poll(2 * BATCH, 0, 30)


def test_fewer_than_two_batches_are_received_as_one() -> None:
    queue = Tasks(100)
    with ThreadPoolExecutor(2) as pool:
        poller = Poller([queue], pool)  # type: ignore[list-item]
        for asked in (1, 2):
            assert len(poller.poll(2 * BATCH - 1, 0, 30)[1]) == BATCH
            assert queue.asked == asked

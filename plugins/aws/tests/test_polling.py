"""Which queue of several is asked, and how often."""

from __future__ import annotations

import time
from typing import Any

from htcgrid_aws.polling import SKIPPED_SECONDS, Poller
from htcgrid_aws.sqs_queue import BATCH


class Tasks:
    """As many messages as are put in; it counts how often it is asked."""

    def __init__(self, messages: int = 0) -> None:
        self.messages = messages
        self.asked = 0

    def receive(self, count: int, wait: int, visibility: int) -> list[dict[str, Any]]:
        self.asked += 1
        taken = min(count, self.messages)
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

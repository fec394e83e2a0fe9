"""Receiving from one queue or from several by priority, with long polls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from htcgrid_aws.sqs_queue import LONGEST_POLL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from htcgrid_aws.sqs_queue import Queue

TURN = 2
"""Seconds that one of several queues is long-polled before all are looked at again from the highest."""


def poll(queues: Sequence[Queue], count: int, wait: float, visibility: int) -> tuple[int, list[dict[str, Any]]]:
    """Up to `count` messages of the highest queue that has any, with that queue's number, after about `wait` seconds.

    One queue is long-polled all the time. Several are looked at quickly from the highest down; where all are empty,
    one after the other is long-polled for `TURN` seconds between two such looks.
    """
    until = time.monotonic() + wait
    if len(queues) == 1:
        return 0, _long_poll(queues[0], count, until, visibility)
    turn = 0
    while True:
        for number in reversed(range(len(queues))):
            if messages := queues[number].receive(count, 0, visibility):
                return number, messages
        left = until - time.monotonic()
        if left < 0.5:
            return 0, []
        number = len(queues) - 1 - turn % len(queues)
        if messages := queues[number].receive(count, max(1, min(TURN, round(left))), visibility):
            return number, messages
        if until - time.monotonic() < 0.5:
            return 0, []
        turn += 1


def _long_poll(queue: Queue, count: int, until: float, visibility: int) -> list[dict[str, Any]]:
    while True:
        left = until - time.monotonic()
        # SQS waits whole seconds; a poll of 0 asks only some of its servers.
        seconds = max(1, min(LONGEST_POLL, round(left))) if left > 0 else 0
        messages = queue.receive(count, seconds, visibility)
        if messages or until - time.monotonic() < 0.5:
            return messages

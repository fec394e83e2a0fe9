"""Receives from one queue, or from several by priority, with long polls."""

from __future__ import annotations

import logging
import time
from itertools import chain
from typing import TYPE_CHECKING, Any

from htcgrid.spi import HtcgridError
from htcgrid_aws.parallel import each, raise_worst
from htcgrid_aws.sqs_queue import BATCH, LONGEST_POLL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from htcgrid_aws.sqs_queue import Queue

log = logging.getLogger("htcgrid.aws.polling")

TURN = 2
"""Seconds that one of several queues is long-polled before all are checked again, the highest priority first."""

SKIPPED_SECONDS = 0.1
"""How long an empty queue is not checked again while a queue of lower priority gives full batches."""


class Poller:
    """The queues of one source, the lowest priority first. Only one thread may use it."""

    def __init__(self, queues: Sequence[Queue], pool: Executor | None = None) -> None:
        self._queues = queues
        self._pool = pool
        self._looked = 0.0
        self._full: int | None = None
        """The queue that gave the last full batch, while those of higher priority were empty."""

    def poll(self, count: int, wait: float, visibility: int) -> tuple[int, list[dict[str, Any]]]:
        """Up to `count` messages of the highest queue that has any, with that queue's number, in about `wait` seconds.

        A single queue is long-polled all the time. Several are checked without a wait, the highest first. If all are empty,
        one is long-polled for `TURN` seconds before they are checked again, each in turn. If a queue gave a full batch last,
        several receives are made on it at a time, if there are threads and `count` is large enough.
        """
        until = time.monotonic() + wait
        is_one = len(self._queues) == 1
        full, receives = self._full, count // BATCH if self._pool else 1
        is_asked = receives > 1 if is_one else time.monotonic() < self._looked + SKIPPED_SECONDS
        if full is not None and is_asked:
            messages = self._receive_at_once(full, max(1, receives), count, visibility)
            if messages:
                return self._found(full, messages)
        if is_one:
            return self._found(0, _long_poll(self._queues[0], count, until, visibility))
        return self._poll_several(count, until, visibility)

    def _receive_at_once(self, number: int, receives: int, count: int, visibility: int) -> list[dict[str, Any]]:
        """The messages of several receives at the same time, without a wait; raises if all of them failed."""
        queue = self._queues[number]
        if self._pool is None or receives == 1:
            return queue.receive(count, 0, visibility)
        answers = [
            answer for _, answer in each(self._pool, lambda _: queue.receive(BATCH, 0, visibility), range(receives))
        ]
        found = [answer for answer in answers if not isinstance(answer, HtcgridError)]
        if not found:
            raise_worst(answers)
        if len(found) < receives:
            log.info(
                "%d of %d simultaneous receives failed; if this lasts, the next one reports the reason",
                receives - len(found),
                receives,
            )
        return list(chain(*found))

    def _poll_several(self, count: int, until: float, visibility: int) -> tuple[int, list[dict[str, Any]]]:
        turn = 0
        while True:
            self._looked = time.monotonic()
            for number in reversed(range(len(self._queues))):
                if messages := self._queues[number].receive(count, 0, visibility):
                    return self._found(number, messages)
            self._full = None
            left = until - time.monotonic()
            if left < 0.5:
                return 0, []
            number = len(self._queues) - 1 - turn % len(self._queues)
            if messages := self._queues[number].receive(count, max(1, min(TURN, round(left))), visibility):
                return number, messages
            if until - time.monotonic() < 0.5:
                return 0, []
            turn += 1

    def _found(self, number: int, messages: list[dict[str, Any]]) -> tuple[int, list[dict[str, Any]]]:
        self._full = number if len(messages) >= BATCH else None
        return number, messages


def _long_poll(queue: Queue, count: int, until: float, visibility: int) -> list[dict[str, Any]]:
    while True:
        left = until - time.monotonic()
        # SQS waits whole seconds; a poll of 0 seconds asks only some of its servers.
        seconds = max(1, min(LONGEST_POLL, round(left))) if left > 0 else 0
        messages = queue.receive(count, seconds, visibility)
        if messages or until - time.monotonic() < 0.5:
            return messages

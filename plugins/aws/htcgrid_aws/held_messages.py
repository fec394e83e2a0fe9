"""Messages that were received and could not be leased: their row, their input or a mark was unavailable.

They stay with the source, invisible to other receivers. If they were visible again, each would use one more of the receives
(maxReceiveCount) after which SQS moves a message to the dead-letter queue, although no handler saw it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any

from htcgrid.spi import HtcgridError
from htcgrid_aws.message_leases import MessageLease, safe_seconds

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from htcgrid_aws.polling import Poller
    from htcgrid_aws.sqs_queue import Queue

log = logging.getLogger("htcgrid.aws.held")

LONGEST_PAUSE = 60
"""In seconds: longer than the agent waits between two calls of `receive` while something is unavailable."""

RELEASE_DELAY = 30
"""Held messages are visible to others this many seconds after the source has closed."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as SQS returns it, and its lease, which has the message's id in place of the task's id."""

    message: dict[str, Any]
    lease: MessageLease


def find(poller: Poller, count: int, wait: float, visibility: int) -> list[ReceivedMessage]:
    """Messages that were received just now."""
    number, messages = poller.poll(count, wait, visibility)
    now = time.monotonic()
    until = now + safe_seconds(visibility)
    return [
        ReceivedMessage(message, MessageLease(message["MessageId"], number, message["ReceiptHandle"], now, until))
        for message in messages
    ]


class HeldMessages:
    """The held messages of one source. They are of one `receive`: no others are received until they are leased. Thread-safe."""

    def __init__(self, queues: Sequence[Queue], lease_seconds: float) -> None:
        self._queues = queues
        self._lease_seconds = lease_seconds
        self._lock = Lock()
        self._found: list[ReceivedMessage] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._found)

    def take(self, count: int) -> list[ReceivedMessage]:
        """Up to `count` of them, each invisible for at least a whole lease. If SQS fails, all stay held."""
        with self._lock:
            self._extend(self._lease_seconds)
            taken, self._found = self._found[:count], self._found[count:]
        return taken

    def hold(self, found: Iterable[ReceivedMessage]) -> None:
        """Keep these until the next `take`, which may come after a pause."""
        with self._lock:
            self._found += found
            try:
                self._extend(LONGEST_PAUSE)
            except HtcgridError as error:
                log.warning("%d messages may be visible again before they are tried again: %s", len(self._found), error)

    def release(self) -> None:
        """Make them visible to others, after a delay: the same calls may fail for others too."""
        with self._lock:
            found, self._found = self._found, []
        try:
            self._hide(found, RELEASE_DELAY)
        except HtcgridError as error:
            log.warning("%d messages are visible again when their visibility timeout ends: %s", len(found), error)

    def _extend(self, least: float) -> None:
        """Forget messages that others may have; extend those that become visible within `least` seconds."""
        self._found = [each for each in self._found if not each.lease.expired]
        soon = [each for each in self._found if each.lease.until < time.monotonic() + least]
        if not soon:
            return
        hidden = {each.lease.receipt: each for each in self._hide(soon, self._lease_seconds + LONGEST_PAUSE)}
        gone = {each.lease.receipt for each in soon} - hidden.keys()
        self._found = [hidden.get(each.lease.receipt, each) for each in self._found if each.lease.receipt not in gone]

    def _hide(self, found: Sequence[ReceivedMessage], seconds: float) -> list[ReceivedMessage]:
        """Make these invisible for `seconds`; returns those that are still ours, with their new end."""
        kept: list[ReceivedMessage] = []
        for number in {each.lease.queue for each in found}:
            lengths = {
                each.lease.handle: length
                for each in found
                if each.lease.queue == number and (length := each.lease.at_most(seconds))
            }
            now = time.monotonic()
            lost = self._queues[number].change_visibility(lengths)
            kept += [
                ReceivedMessage(each.message, replace(each.lease, until=now + lengths[each.lease.handle]))
                for each in found
                if each.lease.queue == number and each.lease.handle in lengths.keys() - lost
            ]
        return kept

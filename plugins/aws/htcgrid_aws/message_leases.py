"""Which messages are leased to this source, and until when on this machine's clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from htcgrid_aws.sqs_queue import LONGEST_LEASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from htcgrid.spi import Lease


_TRANSIT_SECONDS = 1.0


class Receipt(NamedTuple):
    """Names one receive of a message: the number of the queue and SQS's receipt handle.

    `reference` is the payload's address in S3, if it is there: a dead letter needs it even after the lease was lost.
    """

    queue: int
    handle: str
    reference: str = ""


@dataclass(frozen=True, slots=True)
class MessageLease:
    """A message leased to this source. `received` and `until` are in seconds of the monotonic clock."""

    task_id: str
    queue: int
    handle: str
    received: float
    until: float
    reference: str = ""

    @property
    def receipt(self) -> Receipt:
        """The lease's receipt."""
        return Receipt(self.queue, self.handle, self.reference)

    @property
    def expired(self) -> bool:
        """Whether another receiver may have the message by now."""
        return time.monotonic() >= self.until

    def at_most(self, seconds: float) -> int:
        """`seconds` rounded up, but not more than remains of the 12 hours that SQS allows for a lease in all."""
        left = self.received + LONGEST_LEASE - _TRANSIT_SECONDS - time.monotonic()
        return max(0, math.floor(min(math.ceil(seconds), left)))


class MessageLeases:
    """The leases of one source. Thread-safe; keyed by receipt.

    A thread that changes visibility timeouts holds `changing_visibility` from reading the leases to the last request. Otherwise,
    if a message were returned at the same time with a delay, an extend could still make it invisible for a whole lease, because
    its receipt handle stays valid.
    """

    def __init__(self) -> None:
        self.changing_visibility = Lock()
        self._lock = Lock()
        self._leases: dict[object, MessageLease] = {}

    def add(self, message_leases: Iterable[MessageLease]) -> None:
        with self._lock:
            self._leases.update((message_lease.receipt, message_lease) for message_lease in message_leases)

    def of(self, leases: Sequence[Lease]) -> list[MessageLease]:
        """The message leases of these leases, without those that have expired."""
        return [message_lease for message_lease in self.known(leases) if not message_lease.expired]

    def known(self, leases: Sequence[Lease]) -> list[MessageLease]:
        """The message leases of these leases, without those that were returned or lost. Some may have expired."""
        with self._lock:
            found = [self._leases.get(lease.receipt) for lease in leases]
        return [message_lease for message_lease in found if message_lease]

    def extend(self, message_lease: MessageLease, until: float) -> None:
        with self._lock:
            if message_lease.receipt in self._leases:
                self._leases[message_lease.receipt] = replace(message_lease, until=until)

    def drop(self, receipts: Iterable[object]) -> None:
        with self._lock:
            for receipt in receipts:
                self._leases.pop(receipt, None)


def safe_seconds(lease_seconds: float) -> float:
    """How long a message is leased for certain after its arrival: SQS counts from the time when it sent the answer."""
    return lease_seconds - min(_TRANSIT_SECONDS, lease_seconds / 4)


def receipt_of(lease: Lease) -> Receipt:
    """The receipt of a lease of this source."""
    if not isinstance(lease.receipt, Receipt):
        raise TypeError(f"task {lease.task.id}: this is not a lease of an SQS queue: {lease.receipt!r}")
    return lease.receipt

"""Which messages are lent to us, and until when, by our own clock."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from htcgrid_aws.queue import LONGEST_LEASE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from htcgrid.spi import Lease


_TRANSIT_SECONDS = 1.0


class Receipt(NamedTuple):
    """Which message, and which receive of it: the number of the queue and SQS's receipt handle."""

    queue: int
    handle: str


@dataclass(frozen=True, slots=True)
class Loan:
    """A message lent to us. `received` and `until` are in seconds of the monotonic clock."""

    task_id: str
    queue: int
    handle: str
    received: float
    until: float
    reference: str = ""

    @property
    def receipt(self) -> Receipt:
        """The lease's receipt."""
        return Receipt(self.queue, self.handle)

    @property
    def lapsed(self) -> bool:
        """Whether another receiver may have the message by now."""
        return time.monotonic() >= self.until

    def at_most(self, seconds: float) -> int:
        """`seconds` from now in whole ones, or what is left of the 12 hours that SQS allows a loan in all."""
        left = self.received + LONGEST_LEASE - time.monotonic()
        return max(0, math.floor(min(math.ceil(seconds), left)))


class Loans:
    """The loans of one source. Thread-safe; keyed by receipt.

    Whoever changes how long messages are hidden holds `hiding` from the look-up of their loans to the last request: else
    what is given back meanwhile with a delay is hidden for a whole lease, since its receipt handle stays good.
    """

    def __init__(self) -> None:
        self.hiding = Lock()
        self._lock = Lock()
        self._loans: dict[object, Loan] = {}

    def add(self, loans: Iterable[Loan]) -> None:
        with self._lock:
            self._loans.update((loan.receipt, loan) for loan in loans)

    def of(self, leases: Sequence[Lease]) -> list[Loan]:
        """The loans of these leases that still run."""
        with self._lock:
            found = [self._loans.get(lease.receipt) for lease in leases]
        return [loan for loan in found if loan and not loan.lapsed]

    def find(self, receipt: object) -> Loan | None:
        """The loan of a receipt, lapsed or not; None once it was returned."""
        with self._lock:
            return self._loans.get(receipt)

    def prolong(self, loan: Loan, until: float) -> None:
        with self._lock:
            if loan.receipt in self._loans:
                self._loans[loan.receipt] = replace(loan, until=until)

    def drop(self, receipts: Iterable[object]) -> None:
        with self._lock:
            for receipt in receipts:
                self._loans.pop(receipt, None)


def sure_seconds(lease_seconds: float) -> float:
    """How long a message is surely ours from when it has arrived: SQS counts from when it sent it."""
    return lease_seconds - min(_TRANSIT_SECONDS, lease_seconds / 4)


def receipt_of(lease: Lease) -> Receipt:
    """The receipt of a lease of ours."""
    if not isinstance(lease.receipt, Receipt):
        raise TypeError(f"task {lease.task.id}: this is not a lease of an SQS queue: {lease.receipt!r}")
    return lease.receipt

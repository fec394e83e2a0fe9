"""What this run used, and what that costs."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock

from htcgrid_aws_lambda.prices import Price
from htcgrid_aws_lambda.reports import Report

_INCLUDED_STORAGE_MB = 512


@dataclass(frozen=True, slots=True)
class Usage:
    """`requests` that were answered, the GB-seconds they were billed for, and those of /tmp over 512 MB.

    `unreported` requests were answered with no REPORT line; `lost` ones may have run, but their answer never came.
    The GB-seconds of both are not known.
    """

    requests: int = 0
    gb_seconds: float = 0.0
    storage_gb_seconds: float = 0.0
    unreported: int = 0
    lost: int = 0

    def cost(self, price: Price) -> float:
        """Dollars, by the first tier of the price list and before the free tier."""
        return (
            self.requests * price.request
            + self.gb_seconds * price.gb_second
            + self.storage_gb_seconds * price.storage_gb_second
        )


class Ledger:
    """Adds up what the service reports, call by call, from any thread."""

    def __init__(self, storage_mb: int = _INCLUDED_STORAGE_MB) -> None:
        self._storage_gb = max(0, storage_mb - _INCLUDED_STORAGE_MB) / 1024
        self._usage = Usage()
        self._lock = Lock()

    @property
    def usage(self) -> Usage:
        """The sum so far."""
        return self._usage

    def answered(self, report: Report | None) -> None:
        """A call was answered; the service billed what the report says."""
        seconds = report.billed_ms / 1000 if report else 0.0
        memory_gb = report.memory_mb / 1024 if report else 0.0
        with self._lock:
            sums = self._usage
            self._usage = replace(
                sums,
                requests=sums.requests + 1,
                gb_seconds=sums.gb_seconds + seconds * memory_gb,
                storage_gb_seconds=sums.storage_gb_seconds + seconds * self._storage_gb,
                unreported=sums.unreported + (report is None),
            )

    def lost(self) -> None:
        """A call was sent and its answer never came."""
        with self._lock:
            self._usage = replace(self._usage, lost=self._usage.lost + 1)


def summary(usage: Usage, price: Price | None, region: str, architecture: str) -> Mapping[str, str]:
    """What a run used, as names and values to be shown."""
    lines = {"requests": str(usage.requests), "GB-seconds": f"{usage.gb_seconds:.3f}"}
    if usage.lost or usage.unreported:
        lines["not counted"] = (
            f"{usage.lost} requests whose answer was lost; the GB-seconds of {usage.unreported} without a REPORT line"
        )
    if price is None:
        lines["price"] = f"not known: the price table has no {architecture} in {region}"
    else:
        dollars = f"${usage.cost(price):.6f}"
        lines["price"] = (
            f"{dollars} ({region}, {architecture}, list price of {price.as_of}, without free tier or discounts)"
        )
    return lines

"""What the invocations of a run used, counted with the rest of AWS's requests, and what that costs."""

from collections.abc import Mapping
from typing import Final

from htcgrid_aws.prices import LambdaPrice
from htcgrid_aws.usage import Usage, UsageCounter

from htcgrid_aws_lambda.report_lines import Report

REQUESTS: Final = "lambda requests"
"""Those that were answered."""
GB_SECONDS: Final = "lambda GB-seconds"
STORAGE: Final = "lambda /tmp GB-seconds"
"""Of /tmp over 512 MB."""
UNREPORTED: Final = "lambda requests without a report"
"""Answered with no REPORT line: their GB-seconds are not known."""
LOST: Final = "lambda requests without an answer"
"""They may have run."""

_INCLUDED_STORAGE_MB = 512


def charge_answered(counter: UsageCounter, report: Report | None, storage_mb: int) -> None:
    """A call was answered; the service billed what the report says."""
    counter.charge(REQUESTS, 1)
    if report is None:
        counter.charge(UNREPORTED, 1)
        return
    seconds = report.billed_ms / 1000
    counter.charge(GB_SECONDS, seconds * report.memory_mb / 1024)
    counter.charge(STORAGE, seconds * max(0, storage_mb - _INCLUDED_STORAGE_MB) / 1024)


def charge_lost(counter: UsageCounter) -> None:
    """A call was sent and its answer never came."""
    counter.charge(LOST, 1)


def dollars(usage: Usage, price: LambdaPrice) -> float:
    """By the first tier of the price list and before the free tier."""
    charged = usage.charged
    return (
        charged.get(REQUESTS, 0) * price.request
        + charged.get(GB_SECONDS, 0) * price.gb_second
        + charged.get(STORAGE, 0) * price.storage_gb_second
    )


def summary(usage: Usage, price: LambdaPrice | None, region: str, architecture: str) -> Mapping[str, str]:
    """What a run used, as names and values to be shown."""
    charged = usage.charged
    lines = {
        "requests": f"{charged.get(REQUESTS, 0):.0f}",
        "GB-seconds": f"{charged.get(GB_SECONDS, 0):.3f}",
    }
    lost, unreported = charged.get(LOST, 0), charged.get(UNREPORTED, 0)
    if lost or unreported:
        lines["not counted"] = (
            f"{lost:.0f} requests whose answer was lost; the GB-seconds of {unreported:.0f} without a REPORT line"
        )
    if price is None:
        lines["price"] = f"not known: the price table has no {architecture} in {region}"
    else:
        lines["price"] = (
            f"${dollars(usage, price):.6f} ({region}, {architecture}, list price of {price.as_of}, "
            "without free tier or discounts)"
        )
    return lines

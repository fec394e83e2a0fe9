"""AWS's list prices for what a grid uses, in US dollars. Update the figures and the date together.

The prices of SQS, DynamoDB and S3 are for us-east-1. AWS Lambda's are on demand, in the first tier, without free tier and
discounts: for us-east-1 from AWS's Price List API, for other regions from the data of AWS's pricing calculator
(meteredUnitMaps/lambda). A region that is not here has no price; it is not guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

AS_OF: Final = "2025-07-08"
REGION: Final = "us-east-1"
SOURCES: Final = (
    "https://aws.amazon.com/sqs/pricing/",
    "https://aws.amazon.com/dynamodb/pricing/on-demand/",
    "https://aws.amazon.com/s3/pricing/",
)

SQS_CHUNK: Final = 64 * 1024
"""Bytes that SQS charges as one request."""

WRITE_UNIT: Final = 1024
"""Bytes that one DynamoDB write request unit covers."""

READ_UNIT: Final = 4096
"""Bytes that one DynamoDB read request unit covers, read consistently; half a unit otherwise."""

DOLLARS_PER_MILLION: Final = MappingProxyType(
    {
        "sqs requests": 0.40,  # standard queues, the first 100 billion a month, free tier left out
        "dynamodb write units": 0.625,  # on demand, standard table class, since November 2024
        "dynamodb read units": 0.125,
        "s3 writes": 5.00,  # PUT, COPY, POST, LIST of the standard class
        "s3 reads": 0.40,  # GET and all others
    }
)
"""US dollars for a million of each thing that is counted. Storage and traffic are not included."""


@dataclass(frozen=True, slots=True)
class LambdaPrice:
    """Dollars for one GB-second of memory, for one request, and for one GB-second of /tmp above 512 MB.

    `as_of` says when AWS published it.
    """

    gb_second: float
    request: float
    storage_gb_second: float
    as_of: str


_CALCULATOR = "2024-08"
# region: (x86_64 and arm64 dollars a GB-second, dollars a million requests, dollars a GB-second of /tmp, as of)
_LAMBDA = {
    "af-south-1": (0.0000221000, 0.0000176800, 0.27, 0.0000000404, _CALCULATOR),
    "ap-east-1": (0.0000229200, 0.0000183000, 0.28, 0.0000000407, _CALCULATOR),
    "ap-northeast-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000370, _CALCULATOR),
    "ap-northeast-2": (0.0000166667, 0.0000133334, 0.20, 0.0000000352, _CALCULATOR),
    "ap-northeast-3": (0.0000166667, 0.0000133334, 0.20, 0.0000000370, _CALCULATOR),
    "ap-south-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000352, _CALCULATOR),
    "ap-southeast-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000370, _CALCULATOR),
    "ap-southeast-2": (0.0000166667, 0.0000133334, 0.20, 0.0000000370, _CALCULATOR),
    "ap-southeast-4": (0.0000166667, 0.0000133334, 0.20, 0.0000000370, _CALCULATOR),
    "ap-southeast-5": (0.0000150000, 0.0000120000, 0.18, 0.0000000333, _CALCULATOR),
    "ca-central-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000340, _CALCULATOR),
    "eu-central-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000367, _CALCULATOR),
    "eu-central-2": (0.0000183334, 0.0000146667, 0.22, 0.0000000441, _CALCULATOR),
    "eu-north-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000323, _CALCULATOR),
    "eu-south-1": (0.0000195172, 0.0000156138, 0.23, 0.0000000357, _CALCULATOR),
    "eu-west-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000340, _CALCULATOR),
    "eu-west-2": (0.0000166667, 0.0000133334, 0.20, 0.0000000358, _CALCULATOR),
    "eu-west-3": (0.0000166667, 0.0000133334, 0.20, 0.0000000358, _CALCULATOR),
    "me-south-1": (0.0000206667, 0.0000165334, 0.25, 0.0000000374, _CALCULATOR),
    "sa-east-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000586, _CALCULATOR),
    "us-east-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000309, "2025-10-01"),
    "us-east-2": (0.0000166667, 0.0000133334, 0.20, 0.0000000309, _CALCULATOR),
    "us-west-1": (0.0000166667, 0.0000133334, 0.20, 0.0000000370, _CALCULATOR),
    "us-west-2": (0.0000166667, 0.0000133334, 0.20, 0.0000000309, _CALCULATOR),
}


def lambda_price(region: str, architecture: str) -> LambdaPrice | None:
    """The price in this region for `x86_64` or `arm64`; None if the table has none."""
    row = _LAMBDA.get(region)
    if row is None or architecture not in {"x86_64", "arm64"}:
        return None
    x86_64, arm64, million_requests, storage, as_of = row
    return LambdaPrice(arm64 if architecture == "arm64" else x86_64, million_requests / 1e6, storage, as_of)

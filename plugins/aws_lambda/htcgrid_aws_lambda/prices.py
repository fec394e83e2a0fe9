"""What AWS Lambda charges, on demand and in its first tier, in US dollars before the free tier and discounts.

us-east-1 is from AWS's Price List API, effective 2025-10-01. The other regions are from the data behind AWS's
pricing calculator (meteredUnitMaps/lambda), in a copy made in or after August 2024. A region that is not
here has no price: none is guessed.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Price:
    """Dollars for one GB-second of memory, one request, and one GB-second of /tmp over 512 MB.

    `as_of` says when AWS published it.
    """

    gb_second: float
    request: float
    storage_gb_second: float
    as_of: str


_CALCULATOR = "2024-08"
# region: (x86_64 and arm64 dollars a GB-second, dollars a million requests, dollars a GB-second of /tmp, as of)
_TABLE = {
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


def price(region: str, architecture: str) -> Price | None:
    """The price there, for `x86_64` or `arm64`; None where the table has none."""
    row = _TABLE.get(region)
    if row is None or architecture not in {"x86_64", "arm64"}:
        return None
    x86_64, arm64, million_requests, storage, as_of = row
    return Price(arm64 if architecture == "arm64" else x86_64, million_requests / 1e6, storage, as_of)

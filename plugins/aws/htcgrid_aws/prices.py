"""AWS's list prices that a grid's bill is made of. Update the figures and the date together."""

from __future__ import annotations

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
"""What is counted -> US dollars for a million of it. Storage and traffic are left out."""

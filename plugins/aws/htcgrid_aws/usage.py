"""Counts the requests to AWS, and what they cost at list price."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

from htcgrid_aws import prices

if TYPE_CHECKING:
    from collections.abc import Mapping

S3_WRITES = ("Put", "List", "Create", "Upload", "Complete", "Copy")


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests by `service.Operation`, and amounts of what AWS charges for, by the keys of `prices.DOLLARS_PER_MILLION`."""

    requests: Mapping[str, int] = field(default_factory=dict)
    charged: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.requests.values())

    @property
    def dollars(self) -> float:
        """The price of these requests on the list of `prices.AS_OF` for `prices.REGION`."""
        return sum(prices.DOLLARS_PER_MILLION[what] * amount for what, amount in self.charged.items()) / 1e6

    @property
    def basis(self) -> str:
        """Which price list."""
        return f"list price {prices.AS_OF}, {prices.REGION}"

    def __add__(self, other: Usage) -> Usage:
        requests = Counter(self.requests)
        requests.update(other.requests)
        charged = dict(self.charged)
        for what, amount in other.charged.items():
            charged[what] = charged.get(what, 0) + amount
        return Usage(requests, charged)

    def summary(self, tasks: int) -> str:
        """One line for the end of a run: requests for each task, and dollars per million tasks."""
        services: Counter[str] = Counter()
        for name, count in self.requests.items():
            services[name.partition(".")[0]] += count
        parts = ", ".join(f"{service} {count}" for service, count in sorted(services.items()))
        per_task = (
            f"{self.total / tasks:.2f} a task, ${self.dollars / tasks * 1e6:.2f} per million tasks" if tasks else ""
        )
        return f"AWS requests: {parts or 'none'}; {per_task} ({self.basis})"


class UsageCounter:
    """Counts the requests of the clients that it is attached to. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests: Counter[str] = Counter()
        self._charged: dict[str, float] = {}

    def attach(self, client: Any) -> None:
        """Count every HTTP request of a boto3 client, also repeated ones."""
        client.meta.events.register("before-send", self._sent)
        client.meta.events.register("after-call.sqs.ReceiveMessage", self._received)

    def charge(self, what: str, amount: float) -> None:
        """Add an amount that the request itself does not show, such as DynamoDB's units."""
        with self._lock:
            self._charged[what] = self._charged.get(what, 0) + amount

    def usage(self) -> Usage:
        """The counts so far."""
        with self._lock:
            return Usage(dict(self._requests), dict(self._charged))

    def _sent(self, request: Any, event_name: str, **_: Any) -> None:
        service, operation = event_name.split(".")[1:3]
        with self._lock:
            self._requests[f"{service}.{operation}"] += 1
        if service == "sqs":
            self.charge("sqs requests", max(1, math.ceil(len(request.body or b"") / prices.SQS_CHUNK)))
        elif service == "s3":
            self.charge("s3 writes" if operation.startswith(S3_WRITES) else "s3 reads", 1)

    def _received(self, parsed: Any, **_: Any) -> None:
        size = sum(len(message["Body"]) for message in parsed.get("Messages", ()))
        further = math.ceil(size / prices.SQS_CHUNK) - 1
        if further > 0:
            self.charge("sqs requests", further)

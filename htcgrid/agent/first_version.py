"""The agent's options by the names of the first version, for programs that build an `Agent` themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from htcgrid.agent.options import AgentOptions
from htcgrid.spi import FailureKind


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The first version of `attempts`, `retry_delay`, `retry_delay_limit` and `lost_attempts` of `AgentOptions`."""

    attempts: Mapping[FailureKind, int] = field(default_factory=dict)
    first_delay: float = 0.2
    longest_delay: float = 30.0
    lost_attempts: int = 10


class Rules(AgentOptions):
    """`AgentOptions` that take a `RetryPolicy`."""

    def __init__(self, retries: RetryPolicy | None = None, **options: Any) -> None:
        retries = retries or RetryPolicy()
        super().__init__(
            attempts=retries.attempts,
            retry_delay=retries.first_delay,
            retry_delay_limit=retries.longest_delay,
            lost_attempts=retries.lost_attempts,
            **options,
        )

"""How an agent behaves: `[agent]` of the config file, and what `Agent` takes."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, field_validator

from htcgrid.spi import FAILURES, FailureKind, Keys

_YEAR = 31_536_000


def _percentage(text: str) -> float:
    """The number before the sign; -1 where it is not a percentage."""
    number = text.removesuffix("%")
    is_number = text.endswith("%") and re.fullmatch(r"[0-9]+(\.[0-9]+)?", number) is not None
    return float(number) if is_number and float(number) <= 100 else -1.0


class AgentOptions(Keys):
    """How an agent behaves. Times in seconds."""

    name: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._-]*$",
        max_length=64,
        description="put before the host name and process id by which `htcgrid status` and the queue know this agent",
    )
    grace: float = Field(
        30.0, ge=0, le=_YEAR, description="seconds that running tasks have when the agent is asked to stop"
    )
    unavailable_limit: float = Field(
        60.0, ge=0, le=_YEAR, description="seconds that a plane or queue may be unavailable before the agent gives up"
    )
    init_errors_limit: int = Field(
        3, ge=1, le=1_000_000, description="initialisation errors in a row after which the agent stops"
    )
    init_errors_quiet: float = Field(
        3.0, ge=0, le=_YEAR, description="seconds with nothing under way after which fewer of them stop the agent too"
    )
    linger: float = Field(0.05, ge=0, le=60, description="seconds a result may wait to be stored together with others")
    prefetch_bytes: int = Field(
        64 << 20,
        ge=1,
        le=1 << 50,
        description="bytes of events and answers that the agent holds, whether they wait, run or are to be stored",
    )
    tolerated_failures: int | str | None = Field(
        None, description='failures above which the run stops: a count, or a share of all tasks such as "1%"'
    )
    attempts: Mapping[FailureKind, Annotated[int, Field(ge=1, le=1_000_000)]] = Field(
        default_factory=dict,
        description="attempts in all, by kind of failure; exit = 3 and out_of_memory = 2 by default",
    )
    retry_delay: float = Field(
        0.2,
        ge=0,
        le=_YEAR,
        description="seconds before the second try of a task at most; twice as long before each further",
    )
    retry_delay_limit: float = Field(30.0, ge=0, le=_YEAR, description="seconds that this delay grows to at most")
    lost_attempts: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="how often a task is handed out, where the plane is lost each time it runs, before it counts as failed",
    )

    handler_logs: str = Field(
        "none",
        min_length=1,
        description='where all that handlers print is written, as JSON lines: "none", "stdout", "stderr" (on a terminal as '
        "text) or a folder",
    )
    handler_logs_bytes: int = Field(
        64 << 20, ge=1, le=1 << 50, description="bytes of a file in that folder, after which the next is begun"
    )
    handler_logs_files: int = Field(
        0, ge=0, le=1_000_000, description="files that an agent keeps there, the newest; 0 keeps all"
    )

    @field_validator("tolerated_failures")
    @classmethod
    def _count_or_percentage(cls, value: int | str | None) -> int | str | None:
        if isinstance(value, str) and value.isdecimal():
            return int(value)
        number = value if isinstance(value, int) else _percentage(value) if value is not None else 0
        if number < 0:
            raise ValueError('write a count of 0 or more, or a percentage such as "1%" or "0.5%", at most "100%"')
        return value

    @field_validator("attempts")
    @classmethod
    def _no_init_errors(cls, attempts: Mapping[FailureKind, int]) -> Mapping[FailureKind, int]:
        if FailureKind.INIT_ERROR in attempts:
            raise ValueError("init_error has its own rule: the run stops after `init_errors_limit` of them in a row")
        return attempts

    def attempts_of(self, failure: FailureKind) -> int:
        """How often a task may be tried in all, if it fails so."""
        return self.attempts.get(failure, FAILURES[failure].attempts)

"""Every decision of the agent, as pure functions of what it has seen."""

import math
from enum import StrEnum
from typing import Any

from htcgrid.agent.options import AgentOptions
from htcgrid.spi import FAILURES, FailureKind

__all__ = [
    "Verdict",
    "back_off",
    "batch_size",
    "extension_interval",
    "prefetch_size",
    "retry_delay",
    "verdict",
]


def __getattr__(name: str) -> Any:
    """The names of the first version, for programs that import them from here."""
    if name in {"RetryPolicy", "Rules"}:
        from htcgrid.agent import first_version  # noqa: PLC0415 - few programs need it, and the import would slow every start

        return getattr(first_version, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Verdict(StrEnum):
    """What happens to a task after an outcome."""

    DONE = "done"
    """Its result is stored and it is acked."""
    RETRY = "retry"
    """It goes back to the source."""
    DEAD = "dead"
    """Its result is stored and it becomes a dead letter, where the source has those."""


def verdict(options: AgentOptions, failure: FailureKind | None, attempt: int) -> Verdict:
    """What happens to a task whose `attempt` (from 1) ended with this outcome."""
    if failure is None:
        return Verdict.DONE
    if attempt < options.attempts_of(failure):
        return Verdict.RETRY
    return Verdict.DEAD if FAILURES[failure].is_dead_letter else Verdict.DONE


def retry_delay(options: AgentOptions, attempt: int, chance: float) -> float:
    """Seconds to wait after this attempt, exponential with full jitter; `chance` is a random number from 0 to 1."""
    return back_off(attempt, chance, options.retry_delay, options.retry_delay_limit)


def back_off(failures: int, chance: float, first: float = 0.05, longest: float = 30.0) -> float:
    """Seconds to wait after this many failures in a row: between half and all of a limit that doubles each time."""
    limit = min(longest, first * 2.0 ** min(failures - 1, 32))
    return limit * (0.5 + 0.5 * chance)


_BATCH_SECONDS = 0.05
"""Seconds of work that may be handed over at once: then the time between two tasks is small compared with their own.

A plane that takes several tasks returns those behind a long one when an environment is idle."""


def batch_size(now: int, mean_seconds: float | None, most: int) -> int:
    """How many tasks to hand over together, given how many there were last time and how long each took.

    At most twice as many as before, so that after one short task not many wait behind a slow one.
    """
    if mean_seconds is None:
        return 1
    wanted = int(_BATCH_SECONDS / max(mean_seconds, 1e-9))
    return max(1, min(wanted, now * 2, most))


_AHEAD_SECONDS = 0.5
"""How long a receive may take without leaving an environment idle."""


def prefetch_size(slots: int, mean_seconds: float | None, batch: int, most: int = 8192) -> int:
    """How many tasks to prefetch: enough for the duration of a receive; none if tasks take a minute or longer.

    No other agent can run a task that is held here.
    """
    if mean_seconds is None:
        return slots
    if mean_seconds >= 60.0:
        return 0
    ahead = math.ceil(slots * _AHEAD_SECONDS / max(mean_seconds, 1e-9))
    return max(1, min(max(ahead, 2 * slots * batch if batch > 1 else 0), most))


def extension_interval(lease_seconds: float) -> float:
    """How often to extend leases: often enough that one lost call does not lose the lease."""
    return lease_seconds / 3

"""Every decision of the agent, as pure functions of what it has seen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from htcgrid.spi import FailureKind

ATTEMPTS: Mapping[FailureKind, int] = {FailureKind.OUT_OF_MEMORY: 2, FailureKind.EXIT: 3}
"""How often a task may be tried in all, by kind of its last failure; once where it is not named."""

_SET_ASIDE = frozenset({FailureKind.OUT_OF_MEMORY, FailureKind.EXIT})


class Verdict(StrEnum):
    """What becomes of a task after an outcome."""

    DONE = "done"
    """Its result is stored and it is acked."""
    RETRY = "retry"
    """It goes back to the source."""
    DEAD = "dead"
    """Its result is stored and it is set aside where the source can do that."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Tries in all by kind of failure, and the delay before the next: exponential, with full jitter."""

    attempts: Mapping[FailureKind, int] = field(default_factory=lambda: ATTEMPTS)
    first_delay: float = 0.2
    longest_delay: float = 30.0
    lost_attempts: int = 10
    """How often a task may have been handed out when the plane is lost under it; past that it is the task's fault."""

    def verdict(self, failure: FailureKind | None, attempt: int) -> Verdict:
        """What becomes of a task whose `attempt`, counted from 1, ended so."""
        if failure is None:
            return Verdict.DONE
        if attempt < self.attempts.get(failure, 1):
            return Verdict.RETRY
        return Verdict.DEAD if failure in _SET_ASIDE else Verdict.DONE

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds to wait after this attempt; `chance` is drawn evenly from 0 to 1 by the caller."""
        return back_off(attempt, chance, self.first_delay, self.longest_delay)


@dataclass(frozen=True, slots=True)
class Rules:
    """How the agent behaves; times in seconds."""

    retries: RetryPolicy = field(default_factory=RetryPolicy)
    grace: float = 30.0
    """How long running tasks may go on once it drains."""
    unavailable_limit: float = 60.0
    """How long a plane, source or sink may be away before the agent gives up."""
    init_errors_limit: int = 3
    """After how many initialisation errors, with nothing else, the function counts as broken."""
    init_errors_quiet: float = 3.0
    """After how long with fewer of them, and nothing under way, it counts as broken too."""
    linger: float = 0.05
    """How long a result may wait for others to be stored with."""


def back_off(failures: int, chance: float, first: float = 0.2, longest: float = 30.0) -> float:
    """Seconds to wait after so many failures in a row: between half and all of a doubling limit."""
    limit = min(longest, first * 2.0 ** min(failures - 1, 32))
    return limit * (0.5 + 0.5 * chance)


_BATCH_SECONDS = 0.05
"""How much work may be handed over at once, so that the time between two tasks is small against theirs.

A plane that takes several at once hands back those behind a long one when an environment is idle."""


def batch_size(now: int, mean_seconds: float | None, most: int) -> int:
    """How many tasks to hand over together, given how many there were last time and how long each took.

    Doubles at the most, so that one lucky measurement does not queue much behind a slow task.
    """
    if mean_seconds is None:
        return 1
    wanted = int(_BATCH_SECONDS / max(mean_seconds, 1e-9))
    return max(1, min(wanted, now * 2, most))


_AHEAD_SECONDS = 0.5
"""How long a receive may take without an environment running dry."""


def stock_size(slots: int, mean_seconds: float | None, batch: int, most: int = 8192) -> int:
    """How many tasks to hold beyond those that run.

    Enough work to bridge a receive, and no more: a task held here is one that no other agent can have.
    Of tasks that take a minute or longer none is held.
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

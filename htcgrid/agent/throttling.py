"""How many invocations may run at once on a plane that has throttled: additive increase, multiplicative decrease.

A throttle cuts the limit to 0.8 of what ran, four times a second at most. Then the limit climbs, slowly at first and faster
the longer no throttle comes, so that it does not pass the service's limit by much, and a short burst is soon forgotten. It
climbs with time, not with answers as in TCP: a refusal takes milliseconds, while an answer may take as long as a handler.
"""

from dataclasses import dataclass, replace

CUT = 0.8
CUT_EVERY_SECONDS = 0.25
CLIMB = 0.05
"""The share of the ceiling that is climbed in a second, for each second since the last cut."""
_STEEPEST_AFTER_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """The state of the policy; without a limit at first. Times are monotonic seconds, given by the caller."""

    limit: float = float("inf")
    since: float = 0.0
    last_cut: float = float("-inf")

    @property
    def is_lowered(self) -> bool:
        """Whether there is a limit now."""
        return self.limit != float("inf")

    def allowed(self, ceiling: int) -> int:
        """How many may run now: `ceiling` at most, at least one."""
        return max(1, int(min(self.limit, ceiling)))

    def throttled(self, now: float, running: int) -> "ConcurrencyLimit":
        """The limit after a throttle of one of `running` calls. Throttles right after a cut belong to calls made before it."""
        if now - self.last_cut < CUT_EVERY_SECONDS:
            return self
        return ConcurrencyLimit(max(1.0, min(self.limit, running) * CUT), now, now)

    def grown(self, now: float, ceiling: int, *, full: bool) -> "ConcurrencyLimit":
        """The limit at `now`; it rises only if it is used in `full`, and is removed when it reaches the ceiling."""
        if not self.is_lowered or not full:
            return replace(self, since=now)
        age = min(now - self.last_cut, _STEEPEST_AFTER_SECONDS)
        limit = self.limit + ceiling * CLIMB * age * (now - self.since)
        return replace(self, limit=limit if limit < ceiling else float("inf"), since=now)

"""How many calls may be in flight: additive increase, multiplicative decrease, as a pure policy.

A limit that starts low doubles every quarter of a second while it is used to the full, until the service first
throttles. A throttle cuts it to 0.8 of itself; from then on it climbs, slowly at first and faster the
longer no throttle comes: a limit is approached with care, and a burst that is over is soon forgotten. Growth goes by
time, not by answers as in TCP: the service refuses within milliseconds, while an answer may take the
handler's fifteen minutes.
"""

from dataclasses import dataclass, replace

START = 50.0
DOUBLING_SECONDS = 0.25
CUT = 0.8
CUT_EVERY_SECONDS = 0.25
# The share of the ceiling that is climbed in a second, for each second since the last cut.
CLIMB = 0.05
_STEEPEST_AFTER_SECONDS = 20.0
# A longer silence proves nothing more: nobody asked to go faster in it.
_LONGEST_STEP = 1.0


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """The state of the policy. Times are monotonic seconds, given by the caller."""

    ceiling: int
    limit: float
    since: float
    last_cut: float | None = None

    @classmethod
    def from_rest(cls, ceiling: int, now: float) -> "ConcurrencyLimit":
        """The limit of a plane that was just opened, never above `ceiling`."""
        return cls(ceiling, min(START, ceiling), now)

    @property
    def allowed(self) -> int:
        """How many calls may be in flight now: at least one."""
        return max(1, int(self.limit))

    def grown(self, now: float, *, full: bool) -> "ConcurrencyLimit":
        """The limit at `now`; it only rises where the limit was in use to the `full`."""
        step = min(now - self.since, _LONGEST_STEP)
        if not full or step <= 0:
            return replace(self, since=max(now, self.since))
        if self.last_cut is None:
            limit = self.limit * 2 ** (step / DOUBLING_SECONDS)
        else:
            age = min(now - self.last_cut, _STEEPEST_AFTER_SECONDS)
            limit = self.limit + self.ceiling * CLIMB * age * step
        return replace(self, limit=min(limit, self.ceiling), since=now)

    def throttled(self, now: float) -> "ConcurrencyLimit":
        """The limit after a refusal. Refusals right after a cut were on their way before it."""
        if self.last_cut is not None and now - self.last_cut < CUT_EVERY_SECONDS:
            return self
        return replace(self, limit=max(1.0, self.limit * CUT), since=now, last_cut=now)

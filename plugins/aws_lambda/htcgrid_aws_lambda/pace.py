"""How many calls may be in flight: additive increase, multiplicative decrease, as a pure policy.

A limit that starts low doubles every half second while it is used to the full, until the service throttles.
Then it is cut to 0.8 of itself, once a second at most, and climbs by a twentieth of the ceiling a second.
Growth goes by time, not by answers as in TCP: the service refuses within milliseconds, while an
answer may take the handler's fifteen minutes.
"""

from dataclasses import dataclass, replace

START = 20.0
DOUBLING_SECONDS = 0.5
CUT = 0.8
CUT_EVERY_SECONDS = 1.0
CLIMB_A_SECOND = 0.05
# A longer silence proves nothing more: nobody asked to go faster in it.
_LONGEST_STEP = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """The state of the policy. Times are monotonic seconds, given by the caller."""

    ceiling: int
    limit: float
    threshold: float
    since: float
    last_cut: float

    @classmethod
    def from_rest(cls, ceiling: int, now: float) -> "Pace":
        """The pace of a plane that was just opened, never above `ceiling`."""
        return cls(ceiling, min(START, ceiling), ceiling, now, now - CUT_EVERY_SECONDS)

    @property
    def allowed(self) -> int:
        """How many calls may be in flight now: at least one."""
        return max(1, int(self.limit))

    def grown(self, now: float, *, full: bool) -> "Pace":
        """The pace at `now`; it only rises where the limit was in use to the `full`."""
        step = min(now - self.since, _LONGEST_STEP)
        if not full or step <= 0:
            return replace(self, since=max(now, self.since))
        if self.limit < self.threshold:
            limit = min(self.limit * 2 ** (step / DOUBLING_SECONDS), self.threshold)
        else:
            limit = self.limit + self.ceiling * CLIMB_A_SECOND * step
        return replace(self, limit=min(limit, self.ceiling), since=now)

    def throttled(self, now: float) -> "Pace":
        """The pace after a refusal. Refusals within a second of a cut belong to the burst that caused it."""
        if now - self.last_cut < CUT_EVERY_SECONDS:
            return self
        limit = max(1.0, self.limit * CUT)
        return replace(self, limit=limit, threshold=limit, since=now, last_cut=now)

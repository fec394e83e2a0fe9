"""Execution environments over time: when each began and ended, and how busy it was in between."""

from dataclasses import dataclass, field

from htcgrid.report.scales import Clock, Counts
from htcgrid.spi import Outcome

MOST_DRAWN = 200
"""Only of these, the first that are seen, is kept when they were busy."""
_MOST_COUNTED = 5000


@dataclass(slots=True)
class Life:
    """One environment. Times in Unix seconds."""

    name: str
    began: float = float("inf")
    ended: float = 0.0
    tasks: int = 0
    failed: int = 0
    busy: float = 0.0
    init_ms: float = 0.0
    last_failure: str = ""
    """The kind of failure of its last task, where that failed: it may have ended the environment."""
    by_time: Counts | None = None
    """Busy seconds by bin."""
    _last: float = field(default=0.0, repr=False)

    @property
    def seconds(self) -> float:
        return max(self.ended - self.began, self.busy, 1e-9)

    @property
    def idle_share(self) -> float:
        return max(0.0, 1 - self.busy / self.seconds)

    def add(self, outcome: Outcome) -> None:
        seconds = outcome.duration_ms / 1000
        self.began = min(self.began, outcome.started)
        self.ended = max(self.ended, outcome.started + seconds)
        self.tasks += 1
        self.failed += outcome.failure is not None
        self.busy += seconds
        self.init_ms += outcome.init_ms or 0.0
        if outcome.started >= self._last:
            self._last = outcome.started
            self.last_failure = str(outcome.failure or "")


class Environments:
    """All environments that have a name, in bounded memory however many they are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.lives: dict[str, Life] = {}
        self.unnamed = 0
        """Successes whose result does not say where it ran."""
        self.uncounted = 0
        """Results of further environments, which are not counted one by one."""
        self.starts = 0
        self.init_ms = 0.0
        clock.follow(self._widen)

    def add(self, outcome: Outcome) -> None:
        if outcome.init_ms is not None:
            self.starts += 1
            self.init_ms += outcome.init_ms
        if not outcome.environment:
            self.unnamed += outcome.failure is None
            return
        life = self.lives.get(outcome.environment)
        if life is None:
            if len(self.lives) >= _MOST_COUNTED:
                self.uncounted += 1
                return
            self.lives[outcome.environment] = life = Life(outcome.environment[:200])
            if len(self.lives) <= MOST_DRAWN:
                life.by_time = Counts()
        life.add(outcome)
        if life.by_time is not None:
            self._spread(life.by_time, outcome)

    def _spread(self, counts: Counts, outcome: Outcome) -> None:
        """What one task took, over all bins that it touches."""
        width, begin = self._clock.width, outcome.started
        end = begin + outcome.duration_ms / 1000
        first, last = self._clock.at(begin), self._clock.at(end)
        if first == last:
            counts.add(first, end - begin)
            return
        counts.add(first, (first + 1) * width - begin)
        for place in range(first + 1, last):
            counts.add(place, width)
        counts.add(last, end - last * width)

    def _widen(self) -> None:
        for life in self.lives.values():
            if life.by_time is not None:
                life.by_time.widen()

    @property
    def is_known(self) -> bool:
        """Whether the results say where each task ran; not where a sink keeps that of failures alone."""
        return bool(self.lives) and not self.unnamed

    @property
    def idle_share(self) -> float:
        """The busy share of the time between each environment's first start and last end."""
        total = sum(life.seconds for life in self.lives.values())
        return max(0.0, 1 - sum(life.busy for life in self.lives.values()) / total) if total else 0.0

    def ordered(self) -> list[Life]:
        return sorted(self.lives.values(), key=lambda life: (life.began, life.name))

"""The page of a run that goes on: an observer in its process that keeps the figures, and makes the page when it is asked."""

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from htcgrid.report.advice import Limits
from htcgrid.report.figures import Figures
from htcgrid.report.html import Markup, paragraph, section, tiles
from htcgrid.report.page import Report, live_page_of
from htcgrid.report.queue_look import QueueLook
from htcgrid.report.units import duration, moment
from htcgrid.spi import (
    AgentEnded,
    AgentFigures,
    AgentStarted,
    AlreadyStored,
    EnvironmentEnded,
    EnvironmentStarted,
    Function,
    Lost,
    Observation,
    Observer,
    PluginAvailable,
    PluginUnavailable,
    Retried,
    Stored,
)

_RECENT_SECONDS = 10.0
_PAGE_SECONDS = 1.0
"""A page that is younger than this is shown again, however often somebody asks."""


@dataclass(frozen=True, slots=True)
class _Sample:
    time: float
    count: int


class Live(Observer):
    """Keeps what the page shows. `name` is that of the results, as the user knows them."""

    config: Observer.Config

    def __init__(self, function: Function, name: str) -> None:
        super().__init__(Observer.Config(), function)
        self._name = name
        self._lock = threading.Lock()
        self._figures = Figures()
        self._counts: Counter[str] = Counter()
        self._up: set[str] = set()
        self._samples: deque[_Sample] = deque()
        self._away: dict[str, PluginUnavailable] = {}
        """The plugins that are unavailable, by their part."""
        self._agent: AgentFigures | None = None
        self._queue: QueueLook | None = None
        self._began = self._ended = 0.0
        self._page, self._made = "", 0.0

    def observe(self, observations: Sequence[Observation]) -> None:
        with self._lock:
            for each in observations:
                self._take(each)

    def _take(self, each: Observation) -> None:
        match each:
            case Stored():
                self._figures.add(each.results)
                self._look_at_the_plane(each)
            case Retried() | AlreadyStored() | Lost():
                self._counts[type(each).__name__] += len(each.leases)
            case AgentStarted():
                self._agent, self._began = each.figures, each.time
                self._queue = QueueLook(each.figures.queue)
            case AgentEnded():
                self._ended = each.time
            case _:
                self._take_state(each)

    def _take_state(self, each: Observation) -> None:
        """Of environments, and of plugins that are away."""
        match each:
            case EnvironmentStarted():
                self._up.add(each.environment)
                self._counts["environments"] += 1
            case EnvironmentEnded():
                self._up.discard(each.environment)
            case PluginUnavailable():
                self._away[each.part] = each
            case PluginAvailable():
                self._away.pop(each.part, None)

    def _look_at_the_plane(self, stored: Stored) -> None:
        """A slot that found the plane unavailable may end before it calls again; then the answers of other slots tell."""
        away = self._away.get("plane")
        if away is None:
            return
        outcomes = [result.outcome for result in stored.results]
        if any(each.failure is None and each.started > away.time for each in outcomes):
            del self._away["plane"]

    def page(self) -> str:
        """From any thread."""
        with self._lock:
            if time.monotonic() - self._made > _PAGE_SECONDS:
                limits = Limits(self.function.memory, self.function.timeout)
                retried = self._counts[Retried.__name__]
                report = Report(self._name, time.time(), self._figures, limits, retried=retried)
                self._page, self._made = live_page_of(report, self._now()), time.monotonic()
            return self._page

    def _now(self) -> Markup:
        parts: list[str] = [tiles(self._agent_pairs())]
        if self._queue is not None:
            pairs, note = self._queue.pairs()
            parts += [tiles(pairs)] * bool(pairs) + [paragraph(note, "dim")] * bool(note)
        parts += [paragraph(f"The {part} is unavailable: {away.message}") for part, away in self._away.items()]
        if self.dropped:
            parts.append(paragraph(f"{self.dropped:,} tasks' observations were dropped: these figures are too low."))
        return section("now", "Now", *parts)

    def _agent_pairs(self) -> list[tuple[str, object]]:
        busy = self._agent.busy() if self._agent is not None and not self._ended else 0
        state = "waiting" if not self._began else f"ended {moment(self._ended)}" if self._ended else "running"
        idle = max(0, len(self._up) - busy)
        until = self._ended or time.time()
        elapsed = max(until - self._began, 1e-3) if self._began else 0.0
        slots = max(1, self._agent.slots()) if self._agent is not None else 1
        share = self._figures.busy_ms / 1000 / (elapsed * slots) if elapsed else 0.0
        pairs: list[tuple[str, object]] = [
            ("State", state),
            ("Running for", duration(elapsed * 1000)),
            ("Rate lately", f"{self._rate():,.1f} tasks/s"),
            ("Busy share", f"{min(1.0, share):.0%}"),
            ("Slots busy", f"{busy:,} of {slots:,}"),
            ("Environments", f"{len(self._up) - idle:,} busy, {idle:,} idle"),
            ("Environments started", f"{self._counts['environments']:,}"),
            ("Tasks held", f"{self._agent.held():,}" if self._agent is not None else "-"),
        ]
        others = (("Had a result", "AlreadyStored"), ("Leases lost", "Lost"))
        return pairs + [(name, f"{self._counts[key]:,}") for name, key in others if self._counts[key]]

    def _rate(self) -> float:
        """Tasks a second, over the last seconds in which somebody read the page."""
        now = time.time()
        samples = self._samples
        samples.append(_Sample(now, self._figures.count))
        while len(samples) > 2 and samples[1].time < now - _RECENT_SECONDS:
            samples.popleft()
        first = samples[0] if len(samples) > 1 else _Sample(self._began or now, 0)
        return (self._figures.count - first.count) / (now - first.time) if now > first.time else 0.0

"""The page of a standing grid. A thread asks the services, only while somebody reads the page."""

import threading
import time

from htcgrid.report.advice import Limits
from htcgrid.report.agent_metrics import HEADS
from htcgrid.report.grid_looks import Look, Standing
from htcgrid.report.html import Markup, paragraph, section, table, tiles
from htcgrid.report.page import Report, live_page_of
from htcgrid.report.queue_look import queue_pairs
from htcgrid.report.units import duration
from htcgrid.spi import QueueStats, StoreStats

_READ_SECONDS = 1.0
_FIRST_SECONDS = 3.0
_ROWS = 50
_NOT_READ = "The results have not been read yet: the figures below are without them."


class StandingPage:
    """Makes the page from the last look; looks again at most every `every` seconds."""

    def __init__(self, standing: Standing, name: str, limits: Limits, every: float) -> None:
        self._standing = standing
        self._name = name
        self._limits = limits
        self._every = every
        self._look: Look | None = None
        self._read_error = _NOT_READ
        self._asked = float("-inf")
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def page(self) -> str:
        """From any thread."""
        thread = self._looking()
        if self._look is None:
            thread.join(_FIRST_SECONDS)
        with self._standing.lock:
            report = Report(
                self._name,
                time.time(),
                self._standing.figures,
                self._limits,
                failures_only=self._standing.reads_failures,
            )
            return live_page_of(report, _now(self._look, self._read_error, lists=self._lists))

    @property
    def _lists(self) -> bool:
        return self._standing.reads_all or self._standing.reads_failures

    def _looking(self) -> threading.Thread:
        """The thread that looks, or has looked last."""
        with self._starting:
            thread = self._thread
            if thread is None or (not thread.is_alive() and time.monotonic() - self._asked > self._every):
                self._asked = time.monotonic()
                self._thread = thread = threading.Thread(target=self._see, name="htcgrid-look", daemon=True)
                thread.start()
            return thread

    def _see(self) -> None:
        self._look = self._standing.look()
        self._read_error = self._standing.read(_READ_SECONDS)


def _now(look: Look | None, read_error: str, *, lists: bool) -> Markup:
    if look is None:
        return section("now", "Now", paragraph("The queue and the store have not answered yet."))
    pairs = [*(queue_pairs(look.queue) if look.queue else ()), *(store_pairs(look.store) if look.store else ())]
    parts: list[str] = (
        [tiles(pairs)] if pairs else [paragraph("Neither the queue nor the store tells how much it holds.")]
    )
    notes = [each.note for each in (look.queue, look.store) if each is not None and each.note]
    parts += [paragraph(note, "dim") for note in notes]
    parts += [paragraph(error) for error in dict.fromkeys([*look.errors, *([read_error] if read_error else [])])]
    if not lists:
        parts.append(paragraph("This sink cannot list its results, so there are no figures of them below."))
    if look.queue is not None:
        parts += _queue_tables(look.queue)
    if look.agents:
        parts.append(table("Agents, by their metrics", HEADS, [each.cells() for each in look.agents]))
    return section("now", "Now", *parts)


def _queue_tables(stats: QueueStats) -> list[str]:
    parts: list[str] = []
    if stats.agents:
        rows = [
            (name, f"{holder.leased:,}", duration(holder.silent_seconds * 1000))
            for name, holder in list(stats.agents.items())[:_ROWS]
        ]
        parts.append(
            table(_of("Agents on the queue", len(rows), len(stats.agents)), ("Agent", "Leased", "Silent for"), rows)
        )
    if stats.sessions:
        sessions = list(stats.sessions.items())[-_ROWS:]
        states = [
            (name or "(none)", *(_count(each) for each in (s.waiting, s.delayed, s.leased, s.dead)))
            for name, s in sessions
        ]
        caption = _of("Sessions, the latest", len(states), len(stats.sessions))
        parts.append(table(caption, ("Session", "Waiting", "Delayed", "Leased", "Dead"), states))
    return parts


def store_pairs(stats: StoreStats) -> list[tuple[str, object]]:
    """What is known of what is stored."""
    pairs: list[tuple[str, object]] = []
    if stats.stored is not None:
        pairs.append(("Stored", f"{stats.stored:,}"))
    if stats.failures is not None:
        pairs.append(("Stored failures", f"{sum(stats.failures.values()):,}"))
    if stats.per_second is not None:
        pairs.append(("Rate lately", f"{stats.per_second:,.1f} tasks/s"))
    return pairs


def _of(caption: str, shown: int, of: int) -> str:
    return caption if shown == of else f"{caption} {shown:,} of {of:,}"


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"

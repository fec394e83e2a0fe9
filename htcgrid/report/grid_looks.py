"""A standing grid, seen from its queue, its store and the metrics of its agents."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

from htcgrid.report.agent_metrics import AgentMetrics, metrics_of
from htcgrid.report.figures import Figures
from htcgrid.spi import HtcgridError, QueueStats, Result, ResultSink, StoreStats, TaskSource

T = TypeVar("T")

_AT_ONCE = 1000
_MOST_FAILURES = 10_000


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the queue, the store and the agents; None for a part that is missing or did not answer."""

    time: float
    queue: QueueStats | None = None
    store: StoreStats | None = None
    agents: Sequence[AgentMetrics] = ()
    errors: Sequence[str] = field(default=())


class Standing:
    """Looks at what is open. `after` is the number of the result from which on results are read."""

    def __init__(
        self, source: TaskSource | None, sink: ResultSink | None, agents: Sequence[str] = (), after: int = 0
    ) -> None:
        self._source = source
        self._sink = sink
        self._agents = agents
        self.after = after
        self.figures = Figures()
        self.lock = threading.Lock()
        """Held around the figures: one thread adds to them and others draw them. Never held while the store is asked."""
        self.reads_all = sink is not None and sink.keeps_order
        self.reads_failures = sink is not None and not sink.keeps_order and sink.lists_failures

    def look(self) -> Look:
        """One look: asks each part once."""
        errors: list[str] = []
        source, sink = self._source, self._sink
        queue = _asked("queue", source.stats, errors) if source is not None else None
        store = _asked("store", sink.stats, errors) if sink is not None else None
        return Look(time.time(), queue, store, [metrics_of(address) for address in self._agents], errors)

    def read(self, seconds: float) -> str:
        """Read results for a limited time; the next call reads on. Returns the error as a text; empty where there is none."""
        errors: list[str] = []
        if self.reads_all:
            _asked("store", lambda: self._scan(time.monotonic() + seconds), errors)
        elif self.reads_failures:
            _asked("store", self._failures, errors)
        return " ".join(errors)

    def _scan(self, deadline: float) -> None:
        assert self._sink is not None  # noqa: S101 - see reads_all
        chunk: list[Result] = []
        try:
            for number, result in self._sink.scan(None, self.after):
                self.after = number
                chunk.append(result)
                if len(chunk) == _AT_ONCE:
                    self._add(chunk)
                    chunk = []
                    if time.monotonic() > deadline:
                        return
        finally:
            self._add(chunk)  # after an error too: the next call begins behind them

    def _add(self, chunk: list[Result]) -> None:
        with self.lock:
            self.figures.add(chunk)

    def _failures(self) -> None:
        assert self._sink is not None  # noqa: S101 - see reads_failures
        self.figures = Figures.of(islice(self._sink.failed(), _MOST_FAILURES))


def _asked(what: str, ask: Callable[[], T], errors: list[str]) -> T | None:
    try:
        return ask()
    except HtcgridError as error:
        errors.append(f"The {what} did not answer: {error}")
        return None

"""The fourth kind of plugin: an observer. It is told what happens and changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from htcgrid.spi.observations import Observation
from htcgrid.spi.plugin import Plugin
from htcgrid.spi.stats import QueueStats, Usage
from htcgrid.spi.tracing import TraceContext


class Observer(Plugin):
    """A plugin that is told what happens in a grid: metrics, traces, a page.

    An observer cannot slow or stop the agent. Each one has its own thread and its own bounded queue; what does not fit
    into the queue is dropped and counted. The first error is reported, and the observer is still told what happens later;
    after ten errors in a row it is told nothing more.
    """

    dropped: int = 0
    """The number of tasks whose observations were dropped because this observer was slow or raised errors; set by the agent."""

    scrape_port: int | None = None
    """The port of its HTTP server, where other programs read its metrics at `/metrics`; None if it has no server.
    A deployed plane opens this port. The value is known before `open`."""

    makes_spans: bool = False
    """Whether it makes a span for each attempt, with the id from `htcgrid.spi.tracing.attempt_of`. Handlers then get this id
    as their caller. A program that puts tasks into a queue also opens the observer, asks it for `session_trace` and tells it
    `Sent`."""

    trace: TraceContext | None = None
    """The parent span for attempts of tasks without a trace; None if it makes no spans. The value is known after `open`."""

    @abstractmethod
    def observe(self, observations: Sequence[Observation]) -> None:
        """Process these observations, which are in order; `htcgrid.spi.observations` lists the kinds.

        It is called several times a second with all observations since the last call, from one thread at a time. It must
        ignore kinds that it does not know, and must not keep payloads (events or answers). `close` is called in the same
        thread, after the last observation. At the end of a run both have 2 s together; then the run ends without them.
        """

    def session_trace(self, session: str) -> TraceContext | None:
        """The span of a submit. The tasks of this session get it as their caller. The default is None: no span.

        The same session must always get the same span, so that an interrupted submit can be completed by repeating it.
        """
        return None


class Observers:
    """Passes observations to observers. This class is the default and has no observers."""

    is_watched: bool = False
    """Whether there are observers. If not, observations need not be created."""

    scrape_ports: Sequence[int] = ()
    """The `scrape_port` of each observer that has one."""

    trace: TraceContext | None = None
    """The parent span for attempts of tasks without a trace; None if no observer makes spans."""

    def tell(self, observation: Observation) -> None:
        """Pass this observation on. Any thread may call it; it never blocks and never raises."""

    def session_trace(self, session: str) -> TraceContext | None:
        """The caller that the tasks of this session get; None if no observer makes spans."""
        return None


class AgentFigures(ABC):
    """What an observer may read from a running agent, in a thread that the observer owns."""

    @abstractmethod
    def slots(self) -> int:
        """How many tasks may run at once now: the plane's `max_concurrency`, or fewer while the plane throttles."""

    @abstractmethod
    def busy(self) -> int:
        """How many calls to the plane are running, each in one execution environment."""

    @abstractmethod
    def held(self) -> int:
        """How many leases it holds, in all states."""

    @abstractmethod
    def held_bytes(self) -> int:
        """How many bytes of events and answers it holds."""

    @abstractmethod
    def queue(self) -> QueueStats:
        """The `stats` of its source. This calls the service, which may cost money and time, and raises the same errors."""

    @abstractmethod
    def usage(self) -> Sequence[Usage]:
        """What its source, plane and sink have used of paid services; makes no call to them."""

"""The fourth kind of plugin: an observer, which is told what happens and changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from htcgrid.spi.observations import Observation
from htcgrid.spi.plugin import Plugin
from htcgrid.spi.stats import QueueStats, Usage
from htcgrid.spi.tracing import TraceContext


class Observer(Plugin):
    """A plugin that is told what happens in a grid: metrics, traces, a page.

    An observer can neither slow nor stop the agent. Each has a thread and a bounded queue of its own; what does not fit
    into the queue is dropped and counted. An error is reported once, and the observer is told what comes after; one that
    raises ten times in a row is told nothing more.
    """

    dropped: int = 0
    """How many tasks' observations it was not told of, since it was slow or raised; the agent counts here."""

    scrape_port: int | None = None
    """The port at which other programs read what it shows over HTTP, at `/metrics`; None where they do not.
    A plane that is deployed opens it. Known before `open`."""

    makes_spans: bool = False
    """Whether it makes a span of each attempt, with the id of `htcgrid.spi.tracing.attempt_of`. Then handlers are given this id
    as their caller, and whoever puts tasks into a queue opens it too, asks it for `session_trace` and tells it `Sent`."""

    trace: TraceContext | None = None
    """Known after `open`: the span that attempts of tasks without a trace belong to. None where it makes no spans."""

    @abstractmethod
    def observe(self, observations: Sequence[Observation]) -> None:
        """Take in what has happened, in order; `htcgrid.spi.observations` lists the kinds.

        Called some times a second with all that came since, from one thread at a time. It passes over kinds that it does
        not know, and keeps no payload: neither events nor answers. `close` is called in the same thread, after the last
        observation; at the end of a run both have 2 s together, then the run ends without them.
        """

    def session_trace(self, session: str) -> TraceContext | None:
        """The span of a submit, which the tasks of this session get as their caller; None, the default, for none.

        The same session has the same one, so that a submit that was cut off is completed by giving it again.
        """
        return None


class Observers:
    """Passes observations on. This class, the default, passes them to nobody."""

    is_watched: bool = False
    """Whether anybody is told. Where not, no observation need be made."""

    scrape_ports: Sequence[int] = ()
    """The `scrape_port` of each that has one."""

    trace: TraceContext | None = None
    """The span that attempts of tasks without a trace belong to; None where nobody makes spans."""

    def tell(self, observation: Observation) -> None:
        """From any thread; never blocks and never raises."""

    def session_trace(self, session: str) -> TraceContext | None:
        """The caller that the tasks of this session get; None where nobody makes spans."""
        return None


class AgentFigures(ABC):
    """What an observer may ask of an agent while it runs, from a thread of the observer's own."""

    @abstractmethod
    def slots(self) -> int:
        """How many tasks it lets run at once now: it follows the plane, and is lower while that throttles."""

    @abstractmethod
    def busy(self) -> int:
        """How many calls to the plane are under way, each in an execution environment."""

    @abstractmethod
    def held(self) -> int:
        """How many leases it holds, in whatever state."""

    @abstractmethod
    def held_bytes(self) -> int:
        """How many bytes of events and answers it holds."""

    @abstractmethod
    def queue(self) -> QueueStats:
        """The states and the oldest task of its source. Asks the service, which may cost money and time; raises as that does."""

    @abstractmethod
    def usage(self) -> Sequence[Usage]:
        """What its source, plane and sink have used of paid services; makes no call to them."""

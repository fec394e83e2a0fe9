"""The fourth kind of plugin: an observer, which is told what happens and changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from htcgrid.spi.observations import Observation
from htcgrid.spi.plugin import Plugin
from htcgrid.spi.stats import QueueStats, Usage


class Observer(Plugin):
    """A place that what happens in a grid is told to: metrics, traces, a page.

    An observer can neither slow nor stop the agent. Each has a thread and a bounded queue of its own; what does not fit
    into the queue is dropped and counted. An error is reported once, and the observer is told what comes after; one that
    raises ten times in a row is told nothing more.
    """

    dropped: int = 0
    """How many tasks' observations it was not told of, since it was slow or raised; the agent counts here."""

    scrape_port: int | None = None
    """The port at which other programs read what it shows over HTTP, at `/metrics`; None where they do not.
    A plane that is deployed opens it. Known before `open`."""

    @abstractmethod
    def observe(self, observations: Sequence[Observation]) -> None:
        """Take in what has happened, in order; `htcgrid.spi.observations` lists the kinds.

        Called some times a second with all that came since, from one thread at a time. It passes over kinds that it does
        not know, and keeps no payload: neither events nor answers. `close` is called in the same thread, after the last
        observation; at the end of a run both have 2 s together, then the run ends without them.
        """


class Observers:
    """Passes observations on. This one has nobody to pass them to: the default of everything that has any to tell."""

    is_watched: bool = False
    """Whether there is anybody to be told, so that no observation need be made where there is nobody."""

    scrape_ports: Sequence[int] = ()
    """The `scrape_port` of each that has one."""

    def tell(self, observation: Observation) -> None:
        """From any thread; never blocks and never raises."""


class AgentFigures(ABC):
    """What an observer may ask of an agent while it runs, from a thread of the observer's own."""

    @abstractmethod
    def slots(self) -> int:
        """How many tasks it lets run at once now: it follows the plane, and is lower while that throttles."""

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
        """What its source, plane and sink have used of services that send bills; without a call to them."""

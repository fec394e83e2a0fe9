"""What all threads of one agent share, besides its leases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from htcgrid.agent.backoff import BackOff
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.shutdown import Shutdown
from htcgrid.agent.statistics import Statistics
from htcgrid.spi import AlreadyStored, Observers, Outcome, Stored


@dataclass(frozen=True, slots=True)
class Shared:
    """Options, the shutdown, the counts, and the outputs for the user."""

    options: AgentOptions
    shutdown: Shutdown
    statistics: Statistics
    report: Callable[[str], None]
    failed: Callable[[Sequence[Outcome]], None]
    """Called with failures after they are stored."""
    observers: Observers = field(default_factory=Observers)

    def stored(self, stored: Stored) -> None:
        """Count these results and report them. They are counted at once, so that the counts are exact."""
        if failed := self.statistics.stored(stored):
            self.failed(failed)
        if self.observers.is_watched:
            self.observers.tell(stored)

    def already_stored(self, stored: AlreadyStored) -> None:
        self.statistics.already_stored += len(stored.leases)
        if self.observers.is_watched:
            self.observers.tell(stored)

    def fail(self, error: BaseException) -> None:
        """Stop the agent because of this error; `Agent.run` raises it."""
        self.shutdown.fail(error, self.options.grace)

    def back_off(self, slack: float = 0.0) -> BackOff:
        """A new back-off for one thread; it continues for `slack` seconds after the grace time."""
        return BackOff(self.shutdown, self.options.unavailable_limit, self.report, slack, self.observers)

"""What all threads of one agent share, besides its leases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from htcgrid.agent.backoff import BackOff
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.shutdown import Shutdown
from htcgrid.agent.statistics import Statistics
from htcgrid.spi import Outcome


@dataclass(frozen=True, slots=True)
class Shared:
    """Options, the way to stop, the counts, and where messages for the user go."""

    options: AgentOptions
    shutdown: Shutdown
    statistics: Statistics
    report: Callable[[str], None]
    failed: Callable[[Sequence[Outcome]], None]
    """Told of failures once they are stored."""

    def fail(self, error: BaseException) -> None:
        """Stop the agent because of this; `Agent.run` raises it."""
        self.shutdown.fail(error, self.options.grace)

    def back_off(self, slack: float = 0.0) -> BackOff:
        """A new one, for one thread; `slack` is how many seconds past the grace time it goes on."""
        return BackOff(self.shutdown, self.options.unavailable_limit, self.report, slack)

"""What the broken sources and sinks share: a place that tests take away and bring back."""

from typing import Any

from htcgrid.spi import Unavailable


class Reachable:
    """A plugin whose calls reach its place first, by `_reach`."""

    away = False
    refused = 0
    """How many of the next calls are throttled."""

    def _reach(self) -> None:
        if self.refused:
            self.refused -= 1
            raise Unavailable("The place refuses this call: there are too many.")
        if self.away:
            raise self.unavailable()

    def unavailable(self) -> Exception:
        return Unavailable("The place is away.")


class StaysAway(Reachable):
    """Keeps a broken connection for good."""

    was_away = False

    def _reach(self) -> None:
        self.was_away = self.was_away or self.away
        if self.was_away:
            raise self.unavailable()
        super()._reach()


class Outages:
    """The outages of a contract whose plugin is `Reachable`."""

    def take_away(self, plugin: Any) -> None:
        plugin.away = True

    def bring_back(self, plugin: Any) -> None:
        plugin.away = False

    def throttle(self, plugin: Any) -> None:
        plugin.refused = 1

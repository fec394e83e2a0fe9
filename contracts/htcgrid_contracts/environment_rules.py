"""What a plane tells its observers: when an execution environment starts, and when it ends."""

import time
from collections import Counter

from htcgrid.spi import (
    Capability,
    EnvironmentEnded,
    EnvironmentStarted,
    FailureKind,
    Invoker,
    Observation,
    Observers,
)

from htcgrid_contracts.common import not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers


class ToldObservers(Observers):
    """Keeps what it is told."""

    is_watched = True

    def __init__(self) -> None:
        self._told: list[Observation] = []

    def tell(self, observation: Observation) -> None:
        self._told.append(observation)

    def of(self, kind: type[EnvironmentStarted] | type[EnvironmentEnded]) -> dict[str, float]:
        """The environments of which this was told, with the time; checks that it was told once of each."""
        told = [each for each in self._told if isinstance(each, kind)]
        twice = [name for name, times in Counter(each.environment for each in told).items() if times > 1]
        assert not twice, f"observers were told {kind.__name__} more than once of the environment {twice[0]!r}"
        return {each.environment: each.time for each in told}


class EnvironmentRules(InvokerHelpers):
    """Asked of planes that know when an environment starts and ends."""

    def test_observers_are_told_of_each_environment(self, invoker: Invoker) -> None:
        """`observers` must be told once when an environment starts and once when it ends, also when it ends by itself, with the
        name that outcomes have. Otherwise users see environments that are not there. Read: spi.Invoker.observers."""
        plane = self.again(invoker)
        plane.observers = told = ToldObservers()
        began = time.time()
        with plane:
            outcomes = [self.call(plane, "echo", value=1)]
            if not told.of(EnvironmentStarted) and not told.of(EnvironmentEnded):
                not_asked("it tells `observers` of no environment: it cannot know")
            if Capability.EXIT in plane.capabilities:
                outcomes.append(self.call(plane, "end", status=3, at_once=True))
                self.failed(outcomes[-1], FailureKind.EXIT)
            if Capability.TIMEOUT in plane.capabilities:
                seconds = self.quick_timeout
                outcomes.append(self.call(plane, "sleep", seconds, seconds=seconds + 30 * self.wait_factor))
                self.failed(outcomes[-1], FailureKind.TIMEOUT)
            outcomes.append(self.call(plane, "echo", value=1))
        started, over = told.of(EnvironmentStarted), told.of(EnvironmentEnded)
        named = {each.environment for each in outcomes} - {""}
        assert named <= set(started), (
            f"outcomes name the environments {sorted(named)}, and observers were told of the start of {sorted(started)}"
        )
        assert set(over) == set(started), (
            f"after `close` observers were told of the start of {len(started)} environments, and of the end of "
            f"{len(over)}: {sorted(set(started) ^ set(over))}"
        )
        wrong = [each for each in (*started.values(), *over.values()) if not began - 60 < each < time.time() + 60]
        assert not wrong, f"observers were told of an environment at {wrong[0]:g}; times are in Unix seconds"

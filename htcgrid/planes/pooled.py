"""A plane whose author writes only a `Sandbox`: the place where a runtime runs."""

from abc import abstractmethod

from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.environment import ExecutionEnvironment
from htcgrid.runtime.pool import EnvironmentPool
from htcgrid.runtime.sandbox import Sandbox


class PooledInvoker(EnvironmentPool):
    """A pool of sandboxes, each with a Lambda Runtime API of its own on this machine's loopback.

    A subclass writes `size` and `sandbox`. This class handles timeouts, ends, errors, late answers, cancels and
    replacement.
    """

    @abstractmethod
    def sandbox(self, place: int) -> Sandbox:
        """A new sandbox, not started, for this place (from 0). Raises `Unavailable` if none can be made now."""

    def environment(self, place: int) -> ExecutionEnvironment:
        return ApiEnvironment(self.function, self.sandbox(place))

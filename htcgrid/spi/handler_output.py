"""Where a plane hands what handlers print; set by whoever opens the plane."""

from __future__ import annotations

from htcgrid.spi.values import Lease

NOT_TOLD_APART = "stdout+stderr"
"""The stream of a text that was printed on standard output or standard error, where both come through one pipe."""


class HandlerOutput:
    """What handlers print, handed over whole. This one, the default, wants none of it."""

    is_wanted = False
    """Whether anything is to be handed over. Read once an environment is made: it does not change."""

    def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = NOT_TOLD_APART) -> None:
        """Take whole lines that were printed under `lease`, in the order in which they were printed.

        What has no newline at its end is a line as well: the last one of an invocation, or a part of a very long one.
        `lease` is None for what was printed while no task ran, as the handler's module was loaded. `stream` is "stdout",
        "stderr" or `NOT_TOLD_APART`. Called from any thread. It may wait while whoever reads is slow: read no more
        meanwhile, so that the handler waits too. Nothing is raised.
        """

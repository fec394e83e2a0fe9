"""Where a plane writes what handlers print; set by the program that opens the plane."""

from __future__ import annotations

from htcgrid.spi.values import Lease

STDOUT_OR_STDERR = "stdout+stderr"
"""The stream of a text that was printed on standard output or standard error, where both come through one pipe."""


class HandlerOutput:
    """Receives everything that handlers print. This class is the default and receives nothing."""

    is_wanted = False
    """Whether output is wanted. It is read when an environment is made and does not change."""

    def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
        """Write complete lines that were printed while `lease` ran, in the order in which they were printed.

        Text without a newline at its end is a line as well: the last line of an invocation, or a part of a very long line.
        `lease` is None for what was printed while no task ran, as the handler's module was loaded. `stream` is "stdout",
        "stderr" or `STDOUT_OR_STDERR`. Any thread may call it. It may block while the reader is slow: the plane must not read
        more output meanwhile, so that the handler waits too. It raises nothing.
        """

"""The target that `[agent] handler_logs` names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from htcgrid.agent.options import AgentOptions
from htcgrid.logs.handler_logs import HandlerLogs
from htcgrid.logs.targets import FolderTarget
from htcgrid.spi import HandlerOutput

Streams = Callable[[str], HandlerLogs]
"""Makes what writes to "stdout" or "stderr"."""


@contextmanager
def handler_logs(options: AgentOptions, beside: Path, streams: Streams) -> Iterator[HandlerOutput]:
    """Open while the plane is: what handlers print after it is closed is lost. A folder's name is relative to `beside`."""
    match options.handler_logs:
        case "none":
            yield HandlerOutput()
            return
        case "stdout" | "stderr" as name:
            logs = streams(name)
        case folder:
            target = FolderTarget(beside / folder, options.handler_logs_bytes, options.handler_logs_files)
            logs = HandlerLogs(target)
    try:
        yield logs
    finally:
        logs.close()


def settle(output: HandlerOutput) -> None:
    """Have what was printed so far written before what is said next, unless its reader stalls."""
    if isinstance(output, HandlerLogs):
        output.settle()


def end_with(output: HandlerOutput, deadline: Callable[[], float]) -> None:
    """From this time of the monotonic clock on, nothing waits for whoever reads the lines."""
    if isinstance(output, HandlerLogs):
        output.deadline = deadline

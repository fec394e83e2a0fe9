"""`[agent] handler_logs` for commands: what handlers print, on their standard output or error, or in a folder."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from htcgrid.agent.log_tails import missing_output
from htcgrid.cli import streams
from htcgrid.config import GridConfig
from htcgrid.logs.handler_logs import HandlerLogs
from htcgrid.logs.line_format import as_text
from htcgrid.logs.opening import handler_logs
from htcgrid.logs.targets import DescriptorTarget
from htcgrid.spi import HandlerOutput, Invoker

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


def logs_option(command: F) -> F:
    """`--logs`, for `with_logs`."""
    return click.option(
        "--logs",
        metavar="[WHERE]",
        is_flag=False,
        flag_value="stderr",
        help="Show everything that handlers print: on standard error, or at WHERE: stdout, stderr or a folder; agent.handler_logs.",
    )(command)


def with_logs(pairs: tuple[str, ...], logs: str | None) -> tuple[str, ...]:
    """The pairs of `--set`, with what `--logs` says."""
    if logs is None:
        return pairs
    where = logs if logs in {"none", "stdout", "stderr"} else str(Path(logs).absolute())
    return (*pairs, f"agent.handler_logs={where}")


@contextmanager
def handler_lines(grid: GridConfig) -> Iterator[HandlerOutput]:
    """The writer of the lines; it is open as long as the plane is."""
    beside = grid.file.resolve().parent if grid.file else Path.cwd()
    with handler_logs(grid.settings.agent, beside, _streams) as output:
        yield output


def tell_what_is_left_out(plane: Invoker) -> None:
    """Warn if lines are wanted and this open plane does not give all of them."""
    if plane.output.is_wanted and (missing := missing_output(plane)):
        log.warning("[agent] handler_logs: %s.", missing)


class _StandardError:
    """Standard error, shared with the command's own messages so that no line is cut by another."""

    name = "standard error"

    def put(self, lines: bytes) -> None:
        text = lines.decode()
        if sys.stderr.isatty():
            from tqdm import tqdm  # noqa: PLC0415 - a part of the cold start that few commands need

            tqdm.write(text.removesuffix("\n"), file=sys.stderr)  # above a progress bar, if there is one
        else:
            sys.stderr.write(text)
        streams.await_told()

    def close(self) -> None:
        """Standard error is shared and stays open."""


def _streams(name: str) -> HandlerLogs:
    if name == "stdout":
        sys.stdout.flush()
        return HandlerLogs(DescriptorTarget(1, "standard output"))
    return HandlerLogs(_StandardError(), as_text) if sys.stderr.isatty() else HandlerLogs(_StandardError())

import os
import sys
import uuid
from pathlib import Path
from typing import IO

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.runtime.reports import log_lines
from htcgrid.spi import Invoker, Lease, Outcome, Task


@click.command()
@click.argument("event", required=False)
@grid_options
@click.option(
    "--event-file", type=click.File("rb"), metavar="FILE", help='Read the event from a file; "-" is standard input.'
)
@click.option(
    "--attribute", "attributes", multiple=True, metavar="NAME=TEXT", help="Shown in context.client_context.custom."
)
@click.option(
    "--log", is_flag=True, help="Print the end of the log, as AWS's LogType=Tail gives it, on standard error."
)
def command(
    event: str | None,
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    event_file: IO[bytes] | None,
    attributes: tuple[str, ...],
    log: bool,
) -> int:
    """Run one event on the plane and print the answer, or the error document with exit code 1.

    \b
    htcgrid invoke '{"x": 1}'
    htcgrid invoke --event-file event.json --log
    echo '{"x": 1}' | htcgrid invoke --event-file -
    """
    if (event is None) == (event_file is None):
        raise click.UsageError("Give the event as an argument or with --event-file, one of both.")
    payload = os.fsencode(event) if event is not None else event_file.read()  # type: ignore[union-attr]
    grid = read_grid(file, plane, pairs)
    task = Task(str(uuid.uuid4()), payload, dict(_attribute(pair) for pair in attributes))
    with grid.invoker() as invoker:
        timeout = grid.settings.function.timeout
        outcome = _outcome(invoker, Lease(task), timeout)
    if log:
        sys.stderr.write(log_lines(outcome, grid.settings.function.memory))
    if sys.stdout.isatty():
        print(outcome.payload.decode("utf-8", "backslashreplace"))  # for people, and no orders to their terminal
    else:
        sys.stdout.buffer.write(outcome.payload + b"\n")
        sys.stdout.flush()
    return DONE if outcome.failure is None else SOME_FAILED


def _outcome(invoker: Invoker, lease: Lease, timeout: float) -> Outcome:
    """Of an environment that began it: one that had just ended says it did not, and is replaced."""
    while True:
        for item in invoker.invoke([lease], timeout):
            if isinstance(item, Outcome):
                return item


def _attribute(pair: str) -> tuple[str, str]:
    name, equals, text = pair.partition("=")
    if not equals:
        raise click.UsageError(f"--attribute {pair}: write it as NAME=TEXT.")
    return name, text

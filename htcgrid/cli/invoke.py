import os
import sys
import traceback
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.store import event_of, failures_of, reading
from htcgrid.config import ConfigError, GridConfig, become
from htcgrid.failures.choice import Choice
from htcgrid.failures.groups import signature
from htcgrid.failures.hints import hint
from htcgrid.runtime import here, layers
from htcgrid.runtime.reports import log_lines
from htcgrid.runtime.variables import this_python, variables
from htcgrid.spi import Invoker, Lease, Outcome, Rejected, Task
from htcgrid.spi.limits import REQUEST_BYTES


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
    "--task", "task_id", metavar="ID", help="Use the event of this task, from the source or from a failure in the sink."
)
@click.option(
    "--log/--no-log",
    default=None,
    help="Print the end of the log, as AWS's LogType=Tail does, on standard error; by default if that is a terminal.",
)
@click.option("--debug", is_flag=True, help="Call a Python handler in this process, for breakpoint() and debuggers.")
def command(
    event: str | None,
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    event_file: IO[bytes] | None,
    attributes: tuple[str, ...],
    task_id: str | None,
    log: bool | None,
    debug: bool,
) -> int:
    """Run one event on the plane and print the answer, or the error document with exit code 1.

    \b
    htcgrid invoke '{"x": 1}'
    htcgrid invoke --event-file event.json --log
    htcgrid invoke --task 4711 --debug
    echo '{"x": 1}' | htcgrid invoke --event-file -
    """
    if sum(given is not None for given in (event, event_file, task_id)) != 1:
        raise click.UsageError("Give the event in one way: as an argument, with --event-file, or with --task.")
    grid = read_grid(file, plane, pairs)
    custom = dict(_attribute(pair) for pair in attributes)
    if task_id is not None:
        task = _replayed(grid, task_id, custom)
    else:
        payload = os.fsencode(event) if event is not None else _read(event_file)  # type: ignore[arg-type]
        task = Task(str(uuid.uuid4()), payload, custom)
    if debug:
        return _debug(grid, Lease(task))
    with grid.invoker() as invoker:
        timeout = grid.settings.function.timeout
        outcome = _outcome(invoker, Lease(task), timeout)
    if sys.stdout.isatty():
        print(outcome.payload.decode("utf-8", "backslashreplace"))
    else:
        sys.stdout.buffer.write(outcome.payload + b"\n")
        sys.stdout.flush()
    if log or (log is None and sys.stderr.isatty()):
        sys.stderr.write(log_lines(outcome, grid.settings.function.memory))
    if outcome.failure is None:
        return DONE
    key, message = signature(outcome)
    if advice := hint(key.error_type, message):
        print(f"htcgrid: {advice}.", file=sys.stderr)
    return SOME_FAILED


def _read(event_file: IO[bytes]) -> bytes:
    """The event. Only as much is read as an event may have: a device or a pipe may have no end."""
    try:
        payload = event_file.read(REQUEST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--event-file {event_file.name} cannot be read: {error.strerror}.") from None
    if len(payload) > REQUEST_BYTES:
        raise ConfigError(
            f"--event-file {event_file.name}: this is longer than {REQUEST_BYTES:,} bytes, which is the most an event may have."
        )
    return payload


def _replayed(grid: GridConfig, task_id: str, attributes: dict[str, str]) -> Task:
    """The task from the source, or from a failure that was kept with its event."""
    task = event_of(grid, task_id)
    if task is None and grid.settings.sink is not None and grid.sink().lists_failures:
        with suppress(Rejected), reading(failures_of(grid)) as sink:  # there may be no results yet
            chosen = Choice(task_ids=frozenset([task_id]))
            task = next((result.task for result in chosen.of(sink) if result.task.payload), None)
    if task is None:
        raise ConfigError(
            f"--task {task_id}: there is no such task in the source, or the source is a queue, which cannot be searched; and the "
            "sink has no failure of it that is kept with its event. Give the event itself, or another id."
        )
    return replace(task, attributes={**task.attributes, **attributes})


def _debug(grid: GridConfig, lease: Lease) -> int:
    """Call the handler in this process, so that a debugger has the terminal; show what it raises in full."""
    plane = grid.invoker()
    function = plane.function
    if function.command or not (function.runtime or this_python()).startswith("python"):
        raise ConfigError("--debug calls the handler in this process, so it must be a Python handler.")
    own = {**variables(function, this_python()), **plane.credentials.current(function.timeout).variables}
    become(own, layers.search_paths(function))
    try:
        answer = here.call(function, lease)
    except Exception:  # noqa: BLE001 - the handler's own, shown as Python shows it
        traceback.print_exc()
        return SOME_FAILED
    print(answer)
    return DONE


def _outcome(invoker: Invoker, lease: Lease, timeout: float) -> Outcome:
    """The outcome. It invokes again while the plane reports the task as not begun: an ended environment is replaced."""
    while True:
        for item in invoker.invoke([lease], timeout):
            if isinstance(item, Outcome):
                return item


def _attribute(pair: str) -> tuple[str, str]:
    name, equals, text = pair.partition("=")
    if not equals:
        raise click.UsageError(f"--attribute {pair}: write it as NAME=TEXT.")
    return name, text

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO

import click
from tqdm import tqdm

from htcgrid import plugins
from htcgrid.cli.grid_options import grid_options, read_grid, session_option
from htcgrid.cli.kept_files import require_another
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.queue_and_store import QueueSource, back_off, queue_of, say
from htcgrid.cli.unfinished import Unfinished
from htcgrid.config import ConfigError, GridConfig
from htcgrid.spi import Function, Lease, Sent, Task, TaskSource, Unavailable
from htcgrid.spi.tracing import TRACEPARENT

_BATCH = 1000


@click.command()
@click.argument("events", metavar="FILE")
@grid_options
@session_option("The session they belong to; a new UUID by default.")
@click.option("--priority", type=int, help="Tasks of a higher priority run first; 0 by default.")
@click.option(
    "--id-field",
    default="",
    metavar="KEY",
    help="The key of each event that holds the id of its task; if empty, the id is SESSION_LINE.",
)
@click.option(
    "--ids", type=click.File("w"), metavar="FILE", help="Write the ids of the tasks to this file, one on each line."
)
def command(
    events: str,
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    session: str | None,
    priority: int | None,
    id_field: str,
    ids: IO[str] | None,
) -> int:
    """Put the events of FILE, one JSON document on each line, into the queue; "-" is standard input.

    Prints the session on standard output. A line that is not an event is named and left out, with exit code 1.
    An interrupted submit is completed by repeating the same command.

    \b
    session=$(htcgrid submit events.jsonl)
    htcgrid results --session "$session" --wait
    """
    events = events if events == "-" else str(Path(events).absolute())
    require_another("--ids", Path(ids.name) if ids else None, [Path(events)])
    grid = read_grid(file, plane, pairs)
    into = queue_of(grid)
    _open(ids)
    unfinished = Unfinished(events, priority, id_field, _identity(grid, into)) if session is None else None
    session = unfinished.session if unfinished else str(session)
    attributes = {"session_id": session, **({} if priority is None else {"priority": str(priority)})}
    retrier = back_off(grid)
    accepted = refused = 0
    with ExitStack() as stack:
        observers = stack.enter_context(grid.span_makers())
        stack.callback(lambda: observers.tell(Sent(time.time(), session, (), 0.0, is_last=True)))
        if trace := observers.session_trace(session):
            attributes[TRACEPARENT] = trace.traceparent
        stack.callback(lambda: say(_last_message(accepted, refused, session)))
        source = stack.enter_context(_reader(events, id_field))
        queue = stack.enter_context(into)
        bar = stack.enter_context(tqdm(unit=" tasks", disable=None))
        for leases in _batches(source):
            for lease in leases:
                if lease.invalid:
                    refused += 1
                    with bar.external_write_mode():
                        say(lease.invalid)
            tasks = [_task(lease.task, session, attributes, id_field) for lease in leases if not lease.invalid]
            if ids is not None:
                _require_lines(ids, tasks)
            if tasks:
                if unfinished:
                    unfinished.note()
                began = time.monotonic()
                retrier.call(lambda tasks=tasks: queue.put(tasks))  # type: ignore[misc]
                observers.tell(Sent(time.time(), session, tasks, time.monotonic() - began))
            accepted += len(tasks)
            if ids is not None:
                _write(ids, tasks)
            bar.update(len(tasks))
    print(session, flush=True)  # before the note is removed: an unprinted session must be continued, not lost
    if unfinished:
        unfinished.finish()
    return SOME_FAILED if refused else DONE


def _identity(grid: GridConfig, queue: QueueSource) -> str:
    """Differs for another queue. A digest, since the options of a queue may hold a password."""
    table, folder = grid.settings.source, grid.file.absolute().parent if grid.file else Path.cwd()
    parts = [table and table.plugin, table and table.options, str(folder), queue.function.region]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _open(ids: IO[str] | None) -> None:
    """Open the file, which click does when it is first used. Raises `ConfigError`."""
    if ids is None:
        return
    try:
        ids.flush()
    except click.FileError as error:
        raise ConfigError(f"--ids {ids.name} cannot be written: {error.message}. Name another file.") from None


def _require_lines(ids: IO[str], tasks: list[Task]) -> None:
    """Raises `ConfigError` before these are put, if `results --ids` would read an id of theirs as two."""
    for task in tasks:
        if "\n" in task.id or "\r" in task.id:
            raise ConfigError(
                f"--ids {ids.name} has one id on each line, and the id {task.id[:200]!r} has a line break. Correct the event, "
                "or give the command without --ids."
            )


def _write(ids: IO[str], tasks: list[Task]) -> None:
    try:
        ids.writelines(f"{task.id}\n" for task in tasks)
        ids.flush()
    except OSError as error:
        with suppress(OSError):
            ids.close()  # otherwise Python tries to write the rest again at exit
        message = (
            f"--ids {ids.name} cannot be written: {error.strerror}. Name another file, and give the command again."
        )
        raise Unavailable(message) from None


def _last_message(accepted: int, refused: int, session: str) -> str:
    """The last message, also after an error, so that the user knows what is in the queue."""
    left_out = f" {refused:,} lines were left out." if refused else ""
    return f"{accepted:,} tasks of session {session} are in the queue.{left_out}"


def _reader(path: str, id_field: str) -> TaskSource:
    """A file of events is read by the same plugin that `run` reads it with."""
    plugin = plugins.load(TaskSource, "jsonl")
    return plugin(plugin.Config.model_validate({"path": path, "id_field": id_field}), Function())


def _batches(source: TaskSource) -> Iterator[list[Lease]]:
    while not source.exhausted:
        leases = list(source.receive(min(_BATCH, source.max_batch), 1.0))
        if leases:
            yield leases


def _task(task: Task, session: str, attributes: dict[str, str], id_field: str) -> Task:
    return replace(task, id=task.id if id_field else f"{session}_{task.id}", attributes=attributes)

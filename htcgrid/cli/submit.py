import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
from tqdm import tqdm

from htcgrid import plugins
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.options import grid_options, read_grid
from htcgrid.cli.queue import queue_of
from htcgrid.spi import Function, Lease, Task, TaskSource


@click.command()
@click.argument("events", metavar="FILE")
@grid_options
@click.option("--session", metavar="NAME", help="The session they belong to; a new UUID by default.")
@click.option("--priority", type=int, help="Higher is served first; 0 by default.")
@click.option(
    "--id-field", default="", metavar="KEY", help="The key of each event that is its task's id; else SESSION_LINE."
)
def command(
    events: str,
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    session: str | None,
    priority: int | None,
    id_field: str,
) -> int:
    """Put the events of FILE, one JSON document a line, into the queue; "-" is standard input.

    Prints the session on standard output. A line that is no event is named and left out, with exit code 1.

    \b
    session=$(htcgrid submit events.jsonl)
    htcgrid results --session "$session" --wait
    """
    session = session or str(uuid.uuid4())
    attributes = {"session_id": session, **({} if priority is None else {"priority": str(priority)})}
    events = events if events == "-" else str(Path(events).resolve())
    grid = read_grid(file, plane, pairs)
    refused = 0
    with _reader(events, id_field) as source, queue_of(grid) as queue, tqdm(unit=" tasks", disable=None) as bar:
        for leases in _batches(source, queue.max_batch):
            tasks = [_task(lease.task, session, attributes, id_field) for lease in leases if not lease.invalid]
            for lease in leases:
                if lease.invalid:
                    refused += 1
                    bar.write(f"htcgrid: {lease.invalid}", file=sys.stderr)
            if tasks:
                queue.put(tasks)
            bar.update(len(tasks))
    print(session)
    return SOME_FAILED if refused else DONE


def _reader(path: str, id_field: str) -> TaskSource:
    """A file of events is read by the same plugin that `run` reads it with."""
    plugin = plugins.load(TaskSource, "jsonl")
    return plugin(plugin.Config.model_validate({"path": path, "id_field": id_field}), Function())


def _batches(source: TaskSource, size: int) -> Iterator[list[Lease]]:
    while not source.exhausted:
        leases = list(source.receive(size, 1.0))
        if leases:
            yield leases


def _task(task: Task, session: str, attributes: dict[str, str], id_field: str) -> Task:
    return replace(task, id=task.id if id_field else f"{session}_{task.id}", attributes=attributes)

import time
from pathlib import Path

import click

from htcgrid.agent.delivery import chunks
from htcgrid.cli.options import grid_options, read_grid
from htcgrid.cli.queue import queue_of
from htcgrid.runtime import documents, identity
from htcgrid.spi import FailureKind, Outcome, Result, Task


@click.command()
@click.argument("task_ids", nargs=-1, metavar="[TASK_ID]...")
@grid_options
@click.option("--session", metavar="NAME", help="Cancel all tasks of this session.")
def command(
    task_ids: tuple[str, ...], file: Path | None, plane: str | None, pairs: tuple[str, ...], session: str | None
) -> None:
    """Cancel tasks by id, or a whole session: waiting ones never run, running ones are stopped.

    Each gets a result with the failure `cancelled`, unless it has a result already. A cancel that was
    cut off is completed by giving it again.
    """
    if not task_ids and session is None:
        raise click.UsageError("Name the tasks, or a session with --session.")
    grid = read_grid(file, plane, pairs)
    with queue_of(grid) as queue, grid.sink() as sink:
        tasks = queue.cancel(session, task_ids)
        for chunk in chunks(tasks, sink.max_batch):
            sink.put([_cancelled(task) for task in chunk])
    print(f"{len(tasks)} tasks cancelled.")


def _cancelled(task: Task) -> Result:
    document = documents.cancelled(identity.request_id(task.id))
    return Result(task, Outcome(task.id, document, FailureKind.CANCELLED, started=time.time()))

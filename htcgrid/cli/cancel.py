import time
from pathlib import Path

import click

from htcgrid.agent.storer import chunks
from htcgrid.cli.grid_options import grid_options, read_grid, session_option
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.queue_and_store import back_off, queue_of, say
from htcgrid.spi import FailureKind, Outcome, Result, Task, error_documents

_NAMED = 5


@click.command()
@click.argument("task_ids", nargs=-1, metavar="[TASK_ID]...")
@grid_options
@session_option("Cancel all tasks of this session.")
def command(
    task_ids: tuple[str, ...], file: Path | None, plane: str | None, pairs: tuple[str, ...], session: str | None
) -> int:
    """Cancel tasks by id, or a whole session: waiting ones never run, running ones are stopped.

    Each gets a result with the failure `cancelled`, unless it has a result already. An interrupted
    cancel is completed by repeating it. Exit code 1 if a named task is not in the queue.
    """
    if not task_ids and session is None:
        raise click.UsageError("Name the tasks, or a session with --session.")
    grid = read_grid(file, plane, pairs)
    retrier = back_off(grid)
    with queue_of(grid) as queue, grid.sink() as sink:
        tasks = retrier.call(lambda: queue.cancel(session, task_ids))
        for chunk in chunks(tasks, sink.max_batch):
            retrier.call(lambda chunk=chunk: sink.put([_cancelled(task) for task in chunk]))  # type: ignore[misc]
    print(f"{len(tasks)} tasks cancelled.")
    if session is not None and not tasks:
        say(
            f"no task of session {session} was found: none is in the queue, or the queue finds the tasks of a session "
            "only when they are received, as SQS does."
        )
    unknown = list(dict.fromkeys(task_ids).keys() - {task.id for task in tasks})
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        say(
            f"not in the queue, because they are done, are dead letters or were never put: {', '.join(sorted(unknown)[:_NAMED])}{more}."
        )
    return SOME_FAILED if unknown else DONE


def _cancelled(task: Task) -> Result:
    document = error_documents.cancelled()
    return Result(task, Outcome(task.id, document, FailureKind.CANCELLED, started=time.time()))

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import click

from htcgrid.cli.closing import closed_in_time
from htcgrid.cli.grid_options import grid_options, options_text, read_grid
from htcgrid.cli.handler_lines import handler_lines, with_logs
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.manifest import Manifest
from htcgrid.cli.queue_and_store import back_off, say
from htcgrid.cli.run import run_agent, tune
from htcgrid.cli.store import choice_of, choice_options, failures_of, reading
from htcgrid.config import ConfigError, GridConfig, is_standard_stream
from htcgrid.failures.again import Again, next_generation
from htcgrid.failures.choice import Choice
from htcgrid.spi import FailureKind, Rejected, Result, ResultSink, ResultStore, Task, TaskQueue, TaskSource

_BATCH = 500
_NAMED = 5


@click.command()
@click.argument("task_ids", nargs=-1, metavar="[TASK_ID]...")
@grid_options
@choice_options
@click.option(
    "--logs",
    is_flag=True,
    help="Show everything that handlers print on standard error; agent.handler_logs has more choices.",
)
@click.option("--quiet", is_flag=True, help="Show no progress, only the summary.")
def command(
    task_ids: tuple[str, ...],
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    kinds: tuple[str, ...],
    group: int | None,
    ids: tuple[str, ...],
    session: str | None,
    logs: bool,
    quiet: bool,
) -> int:
    """Run again what failed: all of it, or by kind, group, id or session.

    The new result replaces the failure; all other results stay unchanged. Cancelled tasks are run again only if they
    are named, by --kind cancelled or by id. If the source is a queue, the tasks are put into it again for its
    agents; otherwise they are run here. An interrupted redrive is completed by repeating it.

    \b
    htcgrid redrive
    htcgrid redrive --kind out_of_memory --set function.memory=2048
    htcgrid redrive --group 2
    """
    chosen = choice_of(kinds, group, (*task_ids, *ids), session)
    grid = read_grid(file, plane, with_logs(pairs, "stderr" if logs else None))
    sink = failures_of(grid)
    source = grid.source()
    if source.redrives or isinstance(source, TaskQueue):
        status = resubmit(grid, sink, source, chosen)
        if status == DONE and any(pair.startswith(("function.", "planes.")) for pair in pairs):
            say(
                "the agents have their own function and plane settings: start an agent with yours, `htcgrid run --set ...`."
            )
        return status
    must_end(grid, source)
    tune()
    return run_again(grid, sink, source, chosen, quiet=quiet, options=options_text(file, plane, pairs))


def run_again(
    grid: GridConfig,
    sink: ResultSink,
    source: TaskSource,
    chosen: Choice,
    *,
    quiet: bool,
    options: str,
    others: bool = False,
) -> int:
    """Run failed tasks in this process; with `others` also tasks without a result."""
    with closed_in_time(sink):
        again = Again(source, _meant(sink, chosen), others=others)
        if not others and not any_to_do(len(again), sink, chosen):
            return DONE
        manifest = Manifest.beside(sink, grid, "run --redrive" if others else "redrive")
        with (
            grid.observers() as observers,
            closed_in_time(source),
            handler_lines(grid) as lines,
            grid.invoker(observers, lines) as invoker,
        ):
            status = run_agent(grid, again, sink, invoker, manifest, quiet=quiet, options=options)
            if again.missing and again.exhausted:
                say(f"{_named(again.missing)}: the event is not in the source any more, so the failure stays.")
        return status


def resubmit(grid: GridConfig, sink: ResultSink, source: TaskSource, chosen: Choice) -> int:
    """Put the failed tasks into the queue again."""
    retrier = back_off(grid)
    put = source.redrive if source.redrives else source.put  # type: ignore[attr-defined]
    count, gone = 0, list[str]()
    with source, reading(sink):
        for batch in _batches(_tasks(sink, source, chosen)):
            events = [task for task in batch if task.payload]
            gone += [task.id for task in batch if not task.payload]
            if events:
                retrier.call(lambda events=events: put(events))  # type: ignore[misc]
            count += len(events)
        if not count and not gone and not any_to_do(0, sink, chosen):
            return DONE
    if count:
        print(f"{count:,} tasks are in the queue again. Its agents run them; `htcgrid run` starts one.")
    if gone:
        say(
            f"{_named(gone)}: the event was not kept with the failure, so the failure stays. Submit it again from the file "
            "that it came from."
        )
    return SOME_FAILED if gone else DONE


def must_end(grid: GridConfig, source: TaskSource) -> None:
    if source.lease_seconds is not None or is_standard_stream(source):
        name = grid.settings.source.plugin if grid.settings.source else ""
        message = (
            f"[source] plugin = {name!r} takes no tasks back and cannot be read again, so its failed tasks cannot be run "
            "from here. A file can, or a queue that has `redrives = True`. Nothing was changed."
        )
        raise ConfigError(message)


def _meant(sink: ResultSink, chosen: Choice) -> Iterator[Result]:
    for result in chosen.of(sink):
        if result.outcome.failure is FailureKind.CANCELLED:
            named = FailureKind.CANCELLED in chosen.kinds or result.task.id in chosen.task_ids
            if not named:
                continue
        yield result


def _tasks(sink: ResultSink, source: TaskSource, chosen: Choice) -> Iterator[Task]:
    """The failed tasks to put again, with dead letters that have no result."""
    for result in _meant(sink, chosen):
        yield next_generation(result.task)
    if isinstance(sink, ResultStore) and not (chosen.kinds or chosen.group):
        for dead in list(source.dead_letters()):  # some queues hide them from `redrive` while they are read
            task = dead.task
            if chosen.task_ids and task.id not in chosen.task_ids:
                continue
            if chosen.session is not None and task.attributes.get("session_id") != chosen.session:
                continue
            if not sink.get([task.id]):
                yield next_generation(replace(task))


def any_to_do(count: int, sink: ResultSink, chosen: Choice) -> bool:
    """Whether there is anything to do. Raises `Rejected` if something was named that does not exist."""
    if count:
        return True
    if chosen.is_all:
        cancelled = " but what was cancelled" if sink.has_failed() else ""
        say(f"nothing has failed{cancelled}, so there is nothing to run again.")
        return False
    asked = f"the ids {_named(sorted(chosen.task_ids))}" if chosen.task_ids else "these options"
    raise Rejected(f"No failure matches {asked}. `htcgrid failures` lists them; nothing was changed.")


def _named(ids: Iterable[str]) -> str:
    some = list(ids)
    more = f" and {len(some) - _NAMED:,} more" if len(some) > _NAMED else ""
    return ", ".join(some[:_NAMED]) + more


def _batches(tasks: Iterator[Task]) -> Iterator[list[Task]]:
    while batch := list(islice(tasks, _BATCH)):
        yield batch

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import click

from htcgrid.cli.grid_options import grid_options, options_text, read_grid
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.queue_and_store import say
from htcgrid.cli.store import choice_of, choice_options, event_of, failures_of, reading
from htcgrid.config import ConfigError, GridConfig
from htcgrid.failures.choice import Choice
from htcgrid.failures.groups import Groups
from htcgrid.failures.shown import groups_text
from htcgrid.runtime.parsing import parsed
from htcgrid.runtime.printable import printable
from htcgrid.spi import DeadTask, HtcgridError, Rejected, Result, ResultSink, TaskSource, generation_of

_DEAD_SHOWN = 20


@click.command()
@grid_options
@choice_options
@click.option(
    "--json", "as_json", is_flag=True, help="JSON, for scripts: one object, or one on each line with --group."
)
def command(
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    kinds: tuple[str, ...],
    group: int | None,
    ids: tuple[str, ...],
    session: str | None,
    as_json: bool,
) -> int:
    """Show which tasks failed and why: groups of similar failures, the most frequent first, and dead letters.

    With --group it prints the ids of the group's tasks, one on each line; with --id everything known about a task.
    Exit code 1 if there are failures. It may be used during a run.

    \b
    htcgrid failures
    htcgrid failures --group 1
    htcgrid failures --id 4711
    """
    grid = read_grid(file, plane, pairs)
    chosen = choice_of(kinds, group, ids, session)
    with reading(failures_of(grid)) as sink:
        if ids:
            return _show_tasks(grid, sink, chosen, as_json=as_json)
        if group is not None:
            return _show_ids(sink, chosen, as_json=as_json)
        groups = Groups()
        for result in chosen.of(sink):
            groups.add(result.outcome)
    dead = list(_dead(grid)) if chosen.is_all else []
    if as_json:
        print(json.dumps(_document(groups, dead)))
    else:
        print(_text(groups, dead, options_text(file, plane, pairs)))
    return SOME_FAILED if groups.total or dead else DONE


def _show_ids(sink: ResultSink, chosen: Choice, *, as_json: bool) -> int:
    found = 0
    for result in chosen.of(sink):
        found += 1
        print(json.dumps(_failure(result)) if as_json else printable(result.task.id))
    return SOME_FAILED if found else DONE


def _show_tasks(grid: GridConfig, sink: ResultSink, chosen: Choice, *, as_json: bool) -> int:
    left = set(chosen.task_ids)
    for result in chosen.of(sink):
        left.discard(result.task.id)
        document = _with_event(grid, result)
        print(json.dumps(document) if as_json else _task_text(document))
    if left:
        raise Rejected(
            f"{', '.join(sorted(left)[:5])}: no result of such a task is a failure. `htcgrid failures` lists them."
        )
    return SOME_FAILED


def _failure(result: Result) -> dict[str, Any]:
    outcome = result.outcome
    try:
        error = parsed(outcome.payload)
    except ValueError:
        error = outcome.payload.decode("utf-8", "replace")
    return {
        "id": result.task.id,
        "failure": str(outcome.failure),
        "error": error,
        "attempt": result.attempt,
        "generation": generation_of(result.task),
        "environment": outcome.environment,
        "session": result.task.attributes.get("session_id"),
        "started": outcome.started,
        "duration_ms": outcome.duration_ms,
        "billed_ms": outcome.billed_ms,
        "max_memory_mb": outcome.max_memory_mb,
        "log": outcome.log_tail.decode("utf-8", "replace"),
    }


def _with_event(grid: GridConfig, result: Result) -> dict[str, Any]:
    """Everything known about a failure, with the event if the sink or the source has it."""
    task = result.task if result.task.payload else event_of(grid, result.task.id)
    event: Any = None
    if task is not None:
        try:
            event = parsed(task.payload)
        except ValueError:
            event = task.payload.decode("utf-8", "replace")
    return {"id": result.task.id, "event": event, **_failure(result)}


def _task_text(document: dict[str, Any]) -> str:
    error, log = document.pop("error"), document.pop("log")
    rows = [f"{name:>14}  {json.dumps(value)}" for name, value in document.items()]
    return printable(
        "\n".join([*rows, f"{'error':>14}  {json.dumps(error, indent=2)}", f"{'log':>14}", *log.splitlines()])
    )


def _dead(grid: GridConfig) -> Iterator[DeadTask]:
    """The dead letters, if the queue can list them."""
    with suppress(ConfigError):  # a config without a source is enough to read results
        source = grid.source()
        if type(source).dead_letters is not TaskSource.dead_letters:
            try:
                with source:
                    for dead in source.dead_letters():
                        yield replace(dead, task=replace(dead.task, payload=b""))  # they are all in memory together
            except HtcgridError as error:
                say(f"the dead letters of the queue are not shown: {error}")


def _document(groups: Groups, dead: list[DeadTask]) -> dict[str, Any]:
    return {
        "failed": groups.total,
        "kinds": groups.kinds(),
        "groups": [group.document(number) for number, group in enumerate(groups.ordered(), 1)],
        "dead_letters": [{"id": each.task.id, "attempt": each.attempt, "reason": each.reason} for each in dead],
    }


def _text(groups: Groups, dead: list[DeadTask], options: str) -> str:
    lines = []
    if groups.total:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in groups.kinds().items())
        lines += [f"failed {groups.total:,}  ({kinds})", groups_text(groups.ordered(), None)]
    if dead:
        lines.append(f"dead letters {len(dead):,}")
        lines += [
            printable(f"  task {each.task.id}, handed out {each.attempt} times: {each.reason}")
            for each in islice(dead, _DEAD_SHOWN)
        ]
        if len(dead) > _DEAD_SHOWN:
            lines.append(f"  and {len(dead) - _DEAD_SHOWN:,} more; --json has them all")
    if not lines:
        return "No result is a failure."
    lines += [f"  the ids:    htcgrid failures --group N{options}", f"  run again:  htcgrid redrive{options}"]
    return "\n".join(lines)

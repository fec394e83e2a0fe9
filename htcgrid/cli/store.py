"""The failures of a sink, and the events of tasks, as several commands need them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from htcgrid.cli.grid_options import session_option
from htcgrid.config import ConfigError, GridConfig
from htcgrid.failures.choice import Choice
from htcgrid.spi import FailureKind, ResultSink, Task, TaskQueue

F = TypeVar("F", bound=Callable[..., Any])


def choice_options(command: F) -> F:
    """`--kind`, `--group`, `--id`, `--session` and ids, for `choice_of`."""
    for option in (
        session_option("Only tasks of this session."),
        click.option("--id", "ids", multiple=True, metavar="ID", help="Only this task; may be given several times."),
        click.option(
            "--group",
            type=click.IntRange(min=1),
            metavar="N",
            help="Only this group, as `htcgrid failures` numbers them.",
        ),
        click.option(
            "--kind",
            "kinds",
            multiple=True,
            type=click.Choice([kind.value for kind in FailureKind]),
            help="Only failures of this kind; may be given several times.",
        ),
    ):
        command = option(command)
    return command


def choice_of(kinds: tuple[str, ...], group: int | None, ids: tuple[str, ...], session: str | None) -> Choice:
    return Choice(frozenset(map(FailureKind, kinds)), group, frozenset(ids), session)


def failures_of(grid: GridConfig) -> ResultSink:
    """The sink of the config, which must be able to list its failures; not opened yet."""
    sink = grid.sink()
    if not sink.lists_failures:
        name = grid.settings.sink.plugin if grid.settings.sink else ""
        message = (
            f"[sink] plugin = {name!r} cannot list its failures. jsonl and sqlite can; another plugin "
            "must have `lists_failures = True`."
        )
        raise ConfigError(message)
    return sink


@contextmanager
def reading(sink: ResultSink) -> Iterator[ResultSink]:
    """The sink, opened for reading; a run may write into it meanwhile."""
    try:
        sink.open_to_read()
        yield sink
    finally:
        sink.close()


def event_of(grid: GridConfig, task_id: str) -> Task | None:
    """The task from the source; None if the source does not have it, or is endless and so cannot be searched."""
    if grid.settings.source is None or str(grid.settings.source.options.get("path")) == "-":
        return None
    source = grid.source()
    if isinstance(source, TaskQueue) or source.lease_seconds is not None:
        return None
    with source:
        while not source.exhausted:
            for lease in source.receive(source.max_batch, 1.0):
                if lease.task.id == task_id:
                    return lease.task
    return None

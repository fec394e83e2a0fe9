import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from htcgrid.cli.deploy import deployable
from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE
from htcgrid.cli.permissions import cluster_documents
from htcgrid.config import ConfigError, GridConfig
from htcgrid.spi import Deployable, HtcgridError, QueueStats, Rejected, ResultSink, StoreStats, TaskSource

SESSIONS_SHOWN = 20

Rows = Iterator[tuple[str, str]]
"""Names and values, shown one below the other."""


@click.command()
@grid_options
@click.option(
    "--permissions", is_flag=True, help="Print the rights that each use of the plane needs, and nothing else."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def command(file: Path | None, plane: str | None, pairs: tuple[str, ...], permissions: bool, as_json: bool) -> int:
    """Show the workers of a deployed plane, the tasks and agents of the queue, and the results.

    What a service cannot report is left out; with --json it is null. A queue or plane that is unavailable
    is reported after the rest, with the exit code of that error.

    \b
    htcgrid status
    htcgrid status --json | jq .queue.states.waiting
    htcgrid status --plane cluster --permissions > role.yaml
    """
    grid = read_grid(file, plane, pairs)
    if permissions:
        documents = cluster_documents([grid.invoker()])
        if not documents:
            raise Rejected(f"The plane {grid.settings.plane!r} does not say which rights it needs on a cluster.")
        click.echo(documents)
        return DONE
    parts: dict[str, Any] = {}
    errors: list[HtcgridError] = []
    for name, look in (("plane", _plane), ("queue", _queue), ("results", _results)):
        try:
            if (part := look(grid)) is not None:
                parts[name] = part
        except HtcgridError as error:
            errors.append(error)
    if not parts and not errors:
        message = (
            "This config has nothing to show: the plane has no deployed workers, the source does not report its "
            "depth, and the sink does not count its results. `htcgrid run` shows the progress of its own tasks."
        )
        raise ConfigError(message)
    click.echo(json.dumps(_document(parts)) if as_json else _text(grid, parts))
    if errors:
        raise errors[0]
    return DONE


def _plane(grid: GridConfig) -> Mapping[str, str] | None:
    return deployable(grid).status() if isinstance(grid.invoker(), Deployable) else None


def _queue(grid: GridConfig) -> QueueStats | None:
    if grid.settings.source is None or type(source := grid.source()).stats is TaskSource.stats:
        return None
    with source:
        return source.stats()


def _results(grid: GridConfig) -> StoreStats | None:
    if grid.settings.sink is None or type(sink := grid.sink()).stats is ResultSink.stats:
        return None
    with sink:
        return sink.stats()


def _document(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The plane's status, with the queue and the results."""
    shown = {name: asdict(part) for name, part in parts.items() if name != "plane"}
    return {**parts.get("plane", {}), **shown}


def _text(grid: GridConfig, parts: Mapping[str, Any]) -> str:
    settings = grid.settings
    titles: dict[str, tuple[str, Callable[[], Rows]]] = {
        "plane": (f"plane {settings.plane}", lambda: iter(parts["plane"].items())),
        "queue": (f"queue {settings.source and settings.source.plugin}", lambda: _queue_rows(parts["queue"])),
        "results": (
            f"results {settings.sink and settings.sink.plugin}",
            lambda: _result_rows(parts["results"], parts.get("queue")),
        ),
    }
    blocks = []
    for name, (title, rows) in titles.items():
        if name in parts:
            labelled = list(rows())
            width = max((len(label) for label, _ in labelled), default=0)
            blocks.append("\n".join([title, *(f"  {label:>{width}}  {value}" for label, value in labelled)]))
    return "\n".join(blocks)


def _queue_rows(stats: QueueStats) -> Rows:
    for state, count in asdict(stats.states).items():
        if count is not None:
            yield state, f"{count:,}"
    if stats.oldest_seconds is not None:
        yield "oldest waits", _duration(stats.oldest_seconds)
    if stats.agents is not None:
        yield "agents", f"{len(stats.agents):,}"
        for name, holder in stats.agents.items():
            yield name, f"{holder.leased:,} leased, last call {_duration(holder.silent_seconds)} ago"
    for name, states in list(stats.sessions.items())[:SESSIONS_SHOWN]:
        counts = ", ".join(f"{state} {count:,}" for state, count in asdict(states).items() if count)
        yield f"session {name}" if name else "no session", counts
    if (more := len(stats.sessions) - SESSIONS_SHOWN) > 0:
        yield "", f"and {more:,} sessions more; --json has them all"
    if stats.note:
        yield "note", stats.note


def _result_rows(stored: StoreStats, queue: QueueStats | None) -> Rows:
    if stored.stored is not None:
        yield "stored", f"{stored.stored:,}"
    if stored.failures is not None:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in stored.failures.items())
        yield "failed", f"{sum(stored.failures.values()):,}" + (f"  ({kinds})" if kinds else "")
    if stored.per_second is not None:
        yield "rate", f"{stored.per_second:,.1f} tasks/s{_left(stored.per_second, queue)}"
    if stored.note:
        yield "note", stored.note


def _left(per_second: float, queue: QueueStats | None) -> str:
    if queue is None or not per_second:
        return ""
    states = queue.states
    left = sum(count or 0 for count in (states.waiting, states.delayed, states.leased))
    return f", so what is in the queue takes {_duration(left / per_second)}" if left else ""


def _duration(seconds: float) -> str:
    """`3.2 s`, `4 min`, `2 h 5 min`, `3 days`."""
    minutes, hours, days = round(seconds / 60), int(seconds // 3600), int(seconds // 86_400)
    if seconds < 100:
        return f"{seconds:.1f} s"
    if minutes < 120:
        return f"{minutes} min"
    return f"{hours} h {minutes - 60 * hours} min" if days < 2 else f"{days} days"

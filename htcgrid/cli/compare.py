import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import click

from htcgrid import plugins
from htcgrid.agent.agent import Agent
from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.kept_files import files_of, require_another
from htcgrid.cli.main import DONE, INTERRUPTED, SOME_FAILED, TERMINATED
from htcgrid.cli.queue_and_store import StoreSink, say
from htcgrid.cli.run import Signals, tune
from htcgrid.compare import junit
from htcgrid.compare.answer_difference import difference
from htcgrid.compare.junit import Compared
from htcgrid.config import ConfigError, GridConfig, is_standard_stream
from htcgrid.runtime.printable import printable
from htcgrid.spi import Result, ResultSink, TaskSource, Unavailable

_BATCH = 500


@click.command()
@click.argument("events", required=False, metavar="[FILE]")
@click.option("--planes", "names", required=True, metavar="A,B", help="The two of [planes] to compare.")
@grid_options
@click.option("--id-field", default=None, metavar="KEY", help="With FILE: the key of each event that is its id.")
@click.option(
    "--rel-tol",
    type=click.FloatRange(min=0),
    default=0.0,
    help="The relative difference that numbers may have, such as 1e-12.",
)
@click.option("--junit", "report", type=click.Path(dir_okay=False, path_type=Path), help="Write a JUnit file for CI.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each event.")
@click.option("--quiet", is_flag=True, help="Show only the events that differ and the summary.")
def command(
    events: str | None,
    names: str,
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    id_field: str | None,
    rel_tol: float,
    report: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run the same events on two planes and show where outcome, kind of error or answer differ.

    The events are those of FILE, one JSON document on each line, or those of the source if it ends by itself. Nothing
    is put into the sink. Two planes of one kind with different images or Pythons can be compared as well. Exit code
    1 if an event differs.

    \b
    htcgrid compare --planes local,docker
    htcgrid compare --planes x86,arm events.jsonl --rel-tol 1e-12 --junit compare.xml
    """
    planes = [name.strip() for name in names.split(",")]
    if len(planes) != 2 or planes[0] == planes[1]:
        raise click.UsageError(f"--planes {names}: name two planes, as in --planes local,docker.")
    grid = read_grid(file, plane, pairs)
    grids = [grid.on_plane(name) for name in planes]
    require_another("--junit", report, files_of(_source(grid, events, id_field)))
    for each in grids:
        each.invoker()  # so that an unknown name is refused before anything runs
    tune()
    with tempfile.TemporaryDirectory(prefix="htcgrid-compare-") as folder, ExitStack() as stack:
        sinks: list[StoreSink] = []
        for name, each in zip(planes, grids, strict=True):
            sinks.append(stack.enter_context(_store(each, Path(folder) / f"{len(sinks)}.db")))
            stopped = _run(each, _source(each, events, id_field), sinks[-1], name)
            if stopped:
                return stopped
        compared = []
        for each_event in _compared(sinks[0], sinks[1], rel_tol):
            compared.append(each_event)
            if as_json or each_event.difference or not quiet:
                print(_line(each_event, planes, as_json=as_json))
    if not compared:
        say("there were no events, so nothing was compared.")
    elif not as_json:
        print(_summary(compared, planes))
    if report is not None:
        _write(report, f"htcgrid compare {names}", compared)
    return SOME_FAILED if any(each.difference for each in compared) else DONE


def _source(grid: GridConfig, events: str | None, id_field: str | None) -> TaskSource:
    if events is not None:
        if events == "-" or Path(events).is_fifo():
            raise click.UsageError("A pipe can be read only once, and two planes need the events. Name a file.")
        plugin = plugins.load(TaskSource, "jsonl")
        table = grid.settings.source
        field = id_field if id_field is not None else str(table.options.get("id_field", "")) if table else ""
        return plugin(
            plugin.Config.model_validate({"path": Path(events).absolute(), "id_field": field}), grid.settings.function
        )
    source = grid.source()
    if source.lease_seconds is not None or is_standard_stream(source):
        raise ConfigError(
            "[source] does not end by itself or cannot be read twice. Name a file: htcgrid compare ... FILE."
        )
    return source


def _store(grid: GridConfig, path: Path) -> StoreSink:
    plugin = plugins.load(ResultSink, "sqlite")
    return plugin(plugin.Config.model_validate({"path": path}), grid.settings.function)  # type: ignore[return-value]


def _run(grid: GridConfig, source: TaskSource, sink: ResultSink, name: str) -> int:
    """Run all events on a plane. Returns an exit code where the user stopped it, otherwise DONE."""
    say(f"running on plane {name}.")
    with source, grid.invoker() as invoker:
        agent = Agent(source, invoker, sink, grid.settings.agent, say)
        signals = Signals(agent)
        with signals:
            agent.run()
    if signals.interrupted:
        return INTERRUPTED
    return TERMINATED if signals.terminated else DONE


def _compared(one: StoreSink, other: StoreSink, rel_tol: float) -> Iterator[Compared]:
    results = (result for _, result in one.scan())
    while some := list(islice(results, _BATCH)):
        found = other.get([result.task.id for result in some])
        for result in some:
            yield _pair(result.task.id, result, found.get(result.task.id), rel_tol)
    results = (result for _, result in other.scan())
    while some := list(islice(results, _BATCH)):
        found = one.get([result.task.id for result in some])
        yield from (_pair(each.task.id, None, each, rel_tol) for each in some if each.task.id not in found)


def _pair(task_id: str, one: Result | None, other: Result | None, rel_tol: float) -> Compared:
    times = [(each.outcome.duration_ms, each.outcome.billed_ms) if each else (0.0, 0) for each in (one, other)]
    return Compared(task_id, difference(one, other, rel_tol), (times[0][0], times[1][0]), (times[0][1], times[1][1]))


def _line(each: Compared, planes: list[str], *, as_json: bool) -> str:
    if as_json:
        document: dict[str, Any] = {"id": each.task_id, "agrees": not each.difference, "difference": each.difference}
        document["duration_ms"] = dict(zip(planes, each.duration_ms, strict=True))
        document["billed_ms"] = dict(zip(planes, each.billed_ms, strict=True))
        return json.dumps(document)
    word = "differs" if each.difference else "same   "
    times = (
        f"{each.duration_ms[0]:.2f} | {each.duration_ms[1]:.2f} ms, billed {each.billed_ms[0]} | {each.billed_ms[1]} ms"
    )
    return printable(f"{word}  {each.task_id}  {times}" + (f"  {each.difference}" if each.difference else ""))


def _summary(compared: list[Compared], planes: list[str]) -> str:
    differing = sum(bool(each.difference) for each in compared)
    rows = [f"{len(compared):,} events, {differing:,} differ  ({' | '.join(planes)})"]
    for name, values in (
        ("duration", [each.duration_ms for each in compared]),
        ("billed", [each.billed_ms for each in compared]),
    ):
        rows.append(
            f"{name} in all  {sum(pair[0] for pair in values):,.0f} | {sum(pair[1] for pair in values):,.0f} ms"
        )
    return "\n".join(rows)


def _write(report: Path, name: str, compared: list[Compared]) -> None:
    try:
        junit.write(report, name, compared)
    except OSError as error:
        raise Unavailable(f"--junit {report} cannot be written: {error.strerror}. Name another file.") from None

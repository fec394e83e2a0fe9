import os
import tempfile
import time
from pathlib import Path

import click

from htcgrid import plugins
from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.kept_files import files_of, require_another
from htcgrid.cli.main import DONE
from htcgrid.cli.queue_and_store import say
from htcgrid.cli.store import reading
from htcgrid.report.advice import Limits
from htcgrid.report.figures import Figures
from htcgrid.report.manifest_lines import Runs
from htcgrid.report.page import Report, page_of
from htcgrid.report.readable import lists_all, read
from htcgrid.spi import Function, HtcgridError, Rejected, ResultSink, Unavailable

_SQLITE = b"SQLite format 3\0"


@click.command()
@click.argument("results", required=False, type=click.Path(path_type=Path), metavar="[RESULTS]")
@grid_options
@click.option(
    "-o",
    "--output",
    default=Path("report.html"),
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The page to write.",
)
def command(results: Path | None, file: Path | None, plane: str | None, pairs: tuple[str, ...], output: Path) -> int:
    """Write a page about results: figures, failures, charts over time, advice. It is one file without external content.

    RESULTS is a file of the jsonl or the sqlite sink; without it, the sink of the config is read. It may be used
    during a run. Limits of memory and time are those of the run's manifest, or else of the config.

    \b
    htcgrid report results.jsonl -o report.html
    htcgrid report --set sink.path=results.db
    """
    output = output.absolute()  # the config's folder may become the current folder
    if results is not None:
        if file is not None or plane is not None or pairs:
            raise click.UsageError("Give RESULTS, or --config, --plane and --set; not both.")
        sink, name, limits = _sink_of(results), str(results), Limits()
    else:
        grid = read_grid(file, plane, pairs)
        sink, function = grid.sink(), grid.settings.function
        name = str(getattr(sink.config, "path", grid.settings.sink.plugin if grid.settings.sink else ""))
        limits = Limits(function.memory, function.timeout)
    require_another("--output", output, files_of(sink))
    whole = lists_all(sink)
    with reading(sink):
        figures = Figures.of(read(sink))
        runs = _runs_beside(sink)
    known = Limits(runs.limit("memory") or limits.memory_mb, runs.limit("timeout") or limits.timeout)
    _write(output, page_of(Report(name, time.time(), figures, known, runs, failures_only=not whole)))
    of = "results" if whole else "failures"
    say(
        f"{output}: {figures.count:,} {of}, {figures.failed:,} of them failed."
        if whole
        else f"{output}: {figures.count:,} {of}."
    )
    return DONE


def _sink_of(path: Path) -> ResultSink:
    """The sink that has written this file."""
    try:
        with path.open("rb") as file:
            name = "sqlite" if file.read(len(_SQLITE)) == _SQLITE else "jsonl"
    except OSError as error:
        raise Rejected(
            f"{path} cannot be read: {error.strerror}. Name a file of results, or none to read the sink of the config."
        ) from None
    plugin = plugins.load(ResultSink, name)
    return plugin(plugin.Config.model_validate({"path": path.absolute()}), Function(handler="not.used"))


def _runs_beside(sink: ResultSink) -> Runs:
    try:
        return Runs.of(sink.runs())
    except HtcgridError as error:
        say(f"the manifest of these results cannot be read: {error}. The page is made without it.")
        return Runs()


def _write(output: Path, text: str) -> None:
    """Replace the file in one step, so that a browser never reads half a page. A device or a pipe is written to instead."""
    try:
        if output.exists() and not output.is_file():
            output.write_text(text, encoding="utf-8")
            return
        target = Path(os.path.realpath(output))
        fd, beside = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)
            Path(beside).chmod(0o644)
            Path(beside).replace(target)
        except BaseException:
            Path(beside).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise Unavailable(f"{output} cannot be written: {error.strerror}. Name another file with --output.") from None

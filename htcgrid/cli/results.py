import time
from collections.abc import Iterator
from pathlib import Path

import click

from htcgrid import plugins
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.cli.options import grid_options, read_grid
from htcgrid.cli.queue import StoreSink, queue_of, store_of
from htcgrid.config import ConfigError, GridConfig
from htcgrid.spi import Result, ResultLog, ResultSink

_LOOK_SECONDS = 0.2
_BATCH = 1000


@click.command()
@click.argument("task_ids", nargs=-1, metavar="[TASK_ID]...")
@grid_options
@click.option("--session", metavar="NAME", help="Only the results of this session.")
@click.option("--wait", is_flag=True, help="Go on until the queue is empty, or --count results are there.")
@click.option("--follow", is_flag=True, help="Go on until interrupted, or --count results are there.")
@click.option("--count", type=int, metavar="N", help="Stop after this many results.")
@click.option("-o", "--output", default="-", metavar="FILE", help='Where to; a name that ends in ".gz" is compressed.')
def command(
    task_ids: tuple[str, ...],
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    session: str | None,
    wait: bool,
    follow: bool,
    count: int | None,
    output: str,
) -> int:
    """Print results, one JSON object a line, as the `jsonl` sink writes them.

    \b
    htcgrid results --session SESSION --wait -o results.jsonl
    htcgrid results TASK_ID TASK_ID
    """
    output = output if output == "-" else str(Path(output).resolve())
    grid = read_grid(file, plane, pairs)
    failed = False
    with store_of(grid) as store, _writer(output, grid) as writer:
        found = _by_id(store, task_ids) if task_ids else _in_order(store, grid, session, wait=wait, follow=follow)
        for batch in _batches(_first(found, count)):
            writer.put(batch)
            failed = failed or any(result.outcome.failure for result in batch)
    return SOME_FAILED if failed else DONE


def _first(results: Iterator[Result | None], count: int | None) -> Iterator[Result | None]:
    """The first so many, counting none of the pauses."""
    left = count
    for result in results:
        yield result
        if left is not None and result is not None:
            left -= 1
            if left <= 0:
                return


def _writer(path: str, grid: GridConfig) -> ResultSink:
    plugin = plugins.load(ResultSink, "jsonl")
    return plugin(plugin.Config.model_validate({"path": path}), grid.settings.function)


def _by_id(store: StoreSink, task_ids: tuple[str, ...]) -> Iterator[Result | None]:
    for start in range(0, len(task_ids), _BATCH):
        yield from store.get(task_ids[start : start + _BATCH]).values()


def _in_order(
    store: StoreSink, grid: GridConfig, session: str | None, *, wait: bool, follow: bool
) -> Iterator[Result | None]:
    """Results as they were stored; None where there is none for now."""
    if not isinstance(store, ResultLog):
        message = "This sink keeps no order in which it could be listed; give the ids of the tasks."
        raise ConfigError(message)
    seen = 0
    while True:
        # Looked at first: what was stored before the queue was seen empty is then surely read.
        ended = not follow and not (wait and _is_busy(grid))
        for number, result in store.scan(session, seen):
            seen = number
            yield result
        if ended:
            return
        yield None
        time.sleep(_LOOK_SECONDS)


def _is_busy(grid: GridConfig) -> bool:
    with queue_of(grid) as queue:
        depth = queue.depth()
    return bool(depth.waiting or depth.leased)


def _batches(results: Iterator[Result | None]) -> Iterator[list[Result]]:
    """Together what comes together."""
    batch: list[Result] = []
    for result in results:
        if result is not None:
            batch.append(result)
        if batch and (result is None or len(batch) >= _BATCH):
            yield batch
            batch = []
    if batch:
        yield batch

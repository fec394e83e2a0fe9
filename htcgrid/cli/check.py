from collections.abc import Callable, Iterator
from pathlib import Path

import click

from htcgrid.cli.main import DONE, USAGE
from htcgrid.cli.options import grid_options, read_grid
from htcgrid.config import GridConfig
from htcgrid.spi import HtcgridError, Plugin, TaskSource


@click.command()
@grid_options
@click.option("--open", "really", is_flag=True, help="Also open the source, the sink and every plane, as `run` would.")
def command(file: Path | None, plane: str | None, pairs: tuple[str, ...], really: bool) -> int:
    """Read the config, load every plugin it names, and do the sums that bite in production.

    Exit code 2 if anything is wrong; advice alone leaves it at 0.
    """
    grid = read_grid(file, plane, pairs)
    problems = 0
    for name, problem in _problems(grid, really=really):
        problems += problem is not None
        print(f"{'wrong' if problem else 'ok   '}  {name}" + (f": {problem}" if problem else ""))
    for advice in _advice(grid):
        print(f"note   {advice}")
    return USAGE if problems else DONE


def _problems(grid: GridConfig, *, really: bool) -> Iterator[tuple[str, HtcgridError | None]]:
    """Every plugin of the config, and what is wrong with it."""
    makers: dict[str, Callable[[], Plugin]] = {"source": grid.source, "sink": grid.sink}
    for name in grid.settings.planes:
        makers[f"planes.{name}"] = grid.on_plane(name).invoker
    for name, make in makers.items():
        try:
            plugin = make()
            if really:
                with plugin:
                    pass
        except HtcgridError as error:
            yield name, error
        else:
            yield name, None


def _advice(grid: GridConfig) -> Iterator[str]:
    timeout, agent = grid.settings.function.timeout, grid.settings.agent
    if agent.grace < timeout:
        yield (
            f"agent.grace = {agent.grace:g} s is below function.timeout = {timeout:g} s: when the agent is stopped, "
            f"tasks that run longer than the grace are given back and run again from the start."
        )
    try:
        source: TaskSource | None = grid.source()
    except HtcgridError:
        source = None
    lease = source.lease_seconds if source else None
    if lease is not None and lease < 5:
        yield f"source: a lease of {lease:g} s is easily lost to one slow call. Use 30 s or more."

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click

from htcgrid.agent.log_tails import missing_output
from htcgrid.cli import lease_limit
from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE, USAGE
from htcgrid.config import GridConfig
from htcgrid.spi import FailureKind, HtcgridError, Invoker, Plugin, TaskSource


@click.command()
@grid_options
@click.option("--open", "really", is_flag=True, help="Also open the source, the sink, every plane and every observer.")
def command(file: Path | None, plane: str | None, pairs: tuple[str, ...], really: bool) -> int:
    """Read the config, load every plugin it names, and check the numbers that cause problems in production.

    Exit code 2 if anything is wrong; advice alone leaves it at 0.
    """
    grid = read_grid(file, plane, pairs)
    problems = 0
    notes = list(_grace(grid))
    for name, problem in _problems(grid, notes, really=really):
        problems += problem is not None
        print(f"{'wrong' if problem else 'ok   '}  {name}" + (f": {problem}" if problem else ""))
    for note in notes:
        print(f"note   {note}")
    region, why = grid.region()
    print(f"region handlers find the AWS region {region}: {why}")
    print(f"credentials handlers have these AWS credentials: {grid.settings.function.credentials}")
    return USAGE if problems else DONE


def _problems(grid: GridConfig, notes: list[str], *, really: bool) -> Iterator[tuple[str, HtcgridError | None]]:
    """Every plugin of the config, and what is wrong with it; its advice is added to `notes`."""
    agent, timeout = grid.settings.agent, grid.settings.function.timeout
    attempts, is_logging = max(map(agent.attempts_of, FailureKind)), agent.handler_logs != "none"
    makers: dict[str, Callable[[], Plugin]] = {"source": grid.source, "sink": grid.sink}
    source: TaskSource | None = None
    for name in grid.settings.planes:
        makers[f"planes.{name}"] = grid.on_plane(name).invoker
    for name in grid.settings.observers:
        makers[f"observers.{name}"] = partial(grid.observer, name)
    for name, make in makers.items():
        try:
            plugin = make()
            if really:
                with plugin:
                    found = _notes(plugin, name, attempts, timeout, is_logging=is_logging)
            else:
                found = _notes(plugin, name, attempts, timeout, is_logging=is_logging)
        except HtcgridError as error:
            yield name, error
        else:
            notes += found
            if isinstance(plugin, TaskSource):
                source = plugin
            elif isinstance(plugin, Invoker) and source is not None:
                notes += lease_limit.advice(source, plugin, name.removeprefix("planes."))
            yield name, None


def _notes(plugin: Plugin, name: str, attempts: int, timeout: float, *, is_logging: bool) -> list[str]:
    notes = list(_lease(plugin, timeout)) if isinstance(plugin, TaskSource) else []
    notes += plugin.advise(attempts)
    if is_logging and isinstance(plugin, Invoker) and (missing := missing_output(plugin)):
        notes.append(f"[agent] handler_logs: {missing}.")
    return [f"{name}: {note}" for note in notes]


def _lease(source: TaskSource, timeout: float) -> Iterator[str]:
    lease = source.lease_seconds
    if lease is None:
        return
    if lease < 5:
        yield f"a lease of {lease:g} s is easily lost to one slow call. Use 30 s or more."
    if lease <= timeout:
        yield (
            f"the lease of {lease:g} s is not above function.timeout = {timeout:g} s. The agent extends it while a task "
            f"runs; but an agent that cannot reach the queue for {lease:g} s loses its tasks, and they run twice."
        )


def _grace(grid: GridConfig) -> Iterator[str]:
    timeout, agent = grid.settings.function.timeout, grid.settings.agent
    if agent.grace < timeout:
        yield (
            f"agent.grace = {agent.grace:g} s is below function.timeout = {timeout:g} s: when the agent is stopped, "
            f"tasks that run longer than the grace time are returned and run again from the start."
        )

from pathlib import Path

import click

from htcgrid.cli.deploy import deployable
from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE


@click.command()
@grid_options
def command(file: Path | None, plane: str | None, pairs: tuple[str, ...]) -> int:
    """Remove everything that `deploy` created for this plane, and nothing else.

    Running tasks are finished or returned first. Queues and results stay.
    """
    for line in deployable(read_grid(file, plane, pairs)).undeploy():
        click.echo(line)
    return DONE

from pathlib import Path

import click

from htcgrid.cli.deploy import deployable
from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE


@click.command()
@click.argument("size", type=click.IntRange(min=0))
@grid_options
def command(size: int, file: Path | None, plane: str | None, pairs: tuple[str, ...]) -> int:
    """Change the number of workers to SIZE. Workers that are removed finish their tasks or return them.

    \b
    htcgrid scale 5 --plane cluster
    """
    for line in deployable(read_grid(file, plane, pairs)).scale(size):
        click.echo(line)
    return DONE

from pathlib import Path

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.spi import ImageBuilder, Rejected


@click.command()
@click.argument("tag")
@grid_options
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="FOLDER",
    help="Install requirements only from the wheels in this folder, without a package index.",
)
@click.option("--dry-run", is_flag=True, help="Show the Dockerfile and build nothing.")
def command(
    tag: str, file: Path | None, plane: str | None, pairs: tuple[str, ...], wheels: Path | None, dry_run: bool
) -> None:
    """Make a container image of the function's code folder, named TAG.

    It is based on the plane's `base_image`, with the packages of requirements.txt installed. A Dockerfile in the
    code folder is used unchanged.

    \b
    htcgrid build --plane docker pricing:1
    pip download -r src/requirements.txt -d wheels && htcgrid build --plane docker --wheels wheels pricing:1
    """
    wheels = wheels.resolve() if wheels is not None else None
    grid = read_grid(file, plane, pairs)
    builder = grid.invoker()
    if not isinstance(builder, ImageBuilder):
        message = f"The plane {grid.settings.plane!r} makes no images. Choose one that does: --plane NAME."
        raise Rejected(message)
    for line in builder.build(tag, wheels=wheels, dry_run=dry_run):
        click.echo(line)

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

import click

from htcgrid.cli.deploy import deployable
from htcgrid.cli.main import DONE
from htcgrid.cli.options import grid_options, read_grid
from htcgrid.spi import Rejected


@runtime_checkable
class Permitted(Protocol):
    """A plane that can say which rights its uses take."""

    def permissions(self) -> str:
        """The documents, such as a Role or an IAM policy, with a comment on what each is for."""
        ...


@click.command()
@grid_options
@click.option(
    "--permissions", is_flag=True, help="Print the rights that each use of the plane takes, and nothing else."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object, for scripts.")
def command(file: Path | None, plane: str | None, pairs: tuple[str, ...], permissions: bool, as_json: bool) -> int:
    """Show what stands on the plane.

    \b
    htcgrid status --plane cluster
    htcgrid status --plane cluster --permissions > role.yaml
    """
    grid = read_grid(file, plane, pairs)
    found = deployable(grid)
    if permissions:
        if not isinstance(found, Permitted):
            raise Rejected(f"The plane {grid.settings.plane!r} does not say which rights it takes; see its README.")
        click.echo(found.permissions().rstrip())
        return DONE
    _show(found.status(), as_json=as_json)
    return DONE


def _show(facts: Mapping[str, str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dict(facts)))
        return
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        click.echo(f"{name:>{width}}  {value}")

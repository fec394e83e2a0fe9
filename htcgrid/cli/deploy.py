from pathlib import Path

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE
from htcgrid.config import ENVIRONMENT_PREFIX, GridConfig
from htcgrid.spi import Deployable, Rejected


@click.command()
@grid_options
@click.option("--dry-run", is_flag=True, help="Show what would be made or changed, and change nothing.")
def command(file: Path | None, plane: str | None, pairs: tuple[str, ...], dry_run: bool) -> int:
    """Set the plane up so that it runs by itself, or update it; wait until it is ready.

    It may be run any number of times: what is unchanged stays as it is.

    \b
    htcgrid deploy --plane cluster
    htcgrid deploy --plane cluster --dry-run > grid.yaml
    """
    grid = read_grid(file, plane, pairs)
    found = deployable(grid)
    settings = grid.settings
    if found.carries_settings:
        grid.source()  # errors in these tables are shown here, not in the workers' logs
        grid.sink()
        _require_no_secrets(grid)
    for line in found.deploy(settings.model_dump(mode="json", exclude_unset=True), dry_run=dry_run):
        click.echo(line)
    return DONE


def _require_no_secrets(grid: GridConfig) -> None:
    """Refuse secrets in the config: others may read what is deployed. The plane has its own way to give workers secrets."""
    if secrets := grid.secrets():
        names = ", ".join(_variable(key) for key in secrets)
        raise Rejected(
            f"{', '.join(secrets)}: a secret is not deployed with the config, which others may read. Take it out of the "
            f"config file, set {names} where this command runs, and give the workers the same variable "
            "(on a cluster: a Secret that `variables` of the plane names)."
        )
    for key in grid.from_variables():
        click.echo(
            f"{key} is not deployed, since it comes from {_variable(key)}, a variable of this machine. The workers need "
            "the same variable (on a cluster: from a Secret that `variables` of the plane names).",
            err=True,
        )


def _variable(key: str) -> str:
    return ENVIRONMENT_PREFIX + key.upper().replace(".", "__")


def deployable(grid: GridConfig) -> Deployable:
    """The chosen plane, for the commands that deploy. Raises `Rejected` where it has nothing to deploy."""
    invoker = grid.invoker(grid.observers())
    settings = grid.settings
    if not isinstance(invoker, Deployable):
        plugin = settings.planes[settings.plane].plugin
        raise Rejected(
            f"The plane {settings.plane!r} ({plugin}) needs no deployment: `htcgrid run` is enough. "
            "Choose another with --plane."
        )
    return invoker

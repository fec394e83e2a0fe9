from pathlib import Path

import click

from htcgrid.config import ConfigError
from htcgrid.planes import architectures, requirements
from htcgrid.runtime.variables import this_python


@click.command()
@click.argument(
    "requirements_file", metavar="REQUIREMENTS", type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--python",
    "version",
    default="",
    metavar="VERSION",
    help="The Python version, such as 3.13; by default the one that runs htcgrid.",
)
@click.option(
    "--architecture",
    type=click.Choice(["x86_64", "arm64"]),
    help="The kind of processor; by default that of this machine.",
)
def command(requirements_file: Path, folder: Path, version: str, architecture: str | None) -> None:
    """Install a requirements.txt into a folder that `layers` of [function] can name.

    \b
    htcgrid layer requirements.txt layer
    htcgrid run --set 'function.layers=["layer"]'

    Wheels for Amazon Linux are used, so that the same folder can be published as a layer of AWS Lambda.
    """
    machine = architecture or architectures.here()
    if not machine:
        raise ConfigError(
            "AWS Lambda does not have this machine's architecture. Name one: --architecture x86_64 or arm64."
        )
    target = folder / "python"
    if target.exists() and any(target.iterdir()):
        raise ConfigError(
            f"{target} is there and is not empty; it is left as it is. Remove it, or name another folder."
        )
    target.mkdir(parents=True, exist_ok=True)
    requirements.install(requirements_file, target, version or this_python().removeprefix("python"), machine)
    print(f"{folder} holds {requirements_file} for {machine}. Write in [function]: layers = [{str(folder)!r}]")

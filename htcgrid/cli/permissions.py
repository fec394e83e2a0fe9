import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE
from htcgrid.config import ConfigError, GridConfig
from htcgrid.spi import Permitted, Plugin

USES = ("agent", "submitter", "reader")


@click.command()
@click.argument("use", type=click.Choice(USES), required=False)
@grid_options
@click.option(
    "--open", "really", is_flag=True, help="Ask AWS what the config leaves out, such as the dead-letter queue's name."
)
def command(use: str | None, file: Path | None, plane: str | None, pairs: tuple[str, ...], really: bool) -> int:
    """Print the least IAM policy that the agent, the submitter or the reader of this grid needs, as JSON.

    `htcgrid status --permissions` shows the rights on a cluster.

    \b
    htcgrid permissions agent > agent.json
    htcgrid permissions               # all three in one object
    """
    grid = read_grid(file, plane, pairs)
    with ExitStack() as stack:
        found = []
        for plugin in _plugins(grid):
            if isinstance(plugin, Permitted):
                if really:
                    stack.enter_context(plugin)
                found.append(plugin.policies())
    if not found:
        message = (
            "The source, the sink and the plane of this config need no rights on AWS, or do not say which. "
            "`htcgrid status --permissions` shows the rights on a cluster."
        )
        raise ConfigError(message)
    joined = {name: _joined([policies[name] for policies in found if name in policies]) for name in USES}
    print(json.dumps(joined[use] if use else joined, indent=2))
    return DONE


def _plugins(grid: GridConfig) -> Iterator[Plugin]:
    if grid.settings.source is not None:
        yield grid.source()
    if grid.settings.sink is not None:
        yield grid.sink()
    yield grid.invoker()


def _joined(policies: list[Mapping[str, Any]]) -> dict[str, Any]:
    """One policy of them all, each statement once."""
    statements: list[Any] = []
    for policy in policies:
        statements += [statement for statement in policy["Statement"] if statement not in statements]
    return {"Version": "2012-10-17", "Statement": _named_apart(statements)}


def _named_apart(statements: list[Any]) -> list[Any]:
    """IAM allows each `Sid` once in a policy."""
    seen: dict[str, int] = {}
    named = []
    for statement in statements:
        name = statement.get("Sid", "")
        seen[name] = seen.get(name, 0) + 1
        again = {"Sid": f"{name}{seen[name]}"} if name and seen[name] > 1 else {}
        named.append({**statement, **again})
    return named

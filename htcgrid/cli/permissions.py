import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE
from htcgrid.cli.queue_and_store import say
from htcgrid.config import ConfigError, GridConfig
from htcgrid.spi import Capability, Invoker, Plugin

USES = ("agent", "submitter", "reader", "deployer")
CLUSTER = "cluster"
_ALWAYS = ("agent", "submitter", "reader")
"""These uses are in the output even if they need no rights."""


@click.command()
@click.argument("use", type=click.Choice((*USES, CLUSTER)), required=False)
@grid_options
@click.option(
    "--open", "really", is_flag=True, help="Ask AWS what the config leaves out, such as the dead-letter queue's name."
)
def command(use: str | None, file: Path | None, plane: str | None, pairs: tuple[str, ...], really: bool) -> int:
    """Print the least rights that the uses of this grid need: IAM policies as JSON, those on a cluster as YAML.

    The uses on AWS are agent, submitter, reader and deployer. The rights on a cluster have comments that say what
    each is for.

    \b
    htcgrid permissions agent > agent.json
    htcgrid permissions                   # all AWS policies, in one object
    htcgrid permissions cluster --plane cluster > role.yaml
    """
    grid = read_grid(file, plane, pairs)
    with ExitStack() as stack:
        plugins = list(_plugins(grid))
        if really:
            for plugin in plugins:
                stack.enter_context(plugin)
        documents = cluster_documents(plugins) if use in {CLUSTER, None} else ""
        found = [plugin.permissions() for plugin in plugins] if use != CLUSTER else []
        if use != CLUSTER:
            planes = [plugin for plugin in plugins if isinstance(plugin, Invoker)]
            found += [plane.credentials.permissions() for plane in planes if Capability.IDENTITY in plane.capabilities]
    policies = {name: [each for some in found if isinstance(each := some.get(name), Mapping)] for name in USES}
    joined = {name: _joined(some) for name, some in policies.items() if some or name in _ALWAYS}
    if not any(policies.values()) and not documents:
        raise ConfigError(
            "The source, the sink and the plane of this config need no rights on AWS or on a cluster, or do not say which."
        )
    if use != CLUSTER and any(policies.values()):
        print(json.dumps(joined.get(use, _joined([])) if use else joined, indent=2))
    elif documents:
        print(documents)
    if documents and any(policies.values()):
        say("the rights on the cluster are printed by `htcgrid permissions cluster`.")
    return DONE


def cluster_documents(plugins: Iterable[Plugin]) -> str:
    """The Kubernetes documents of the plugins that have them."""
    texts = [text for plugin in plugins if isinstance(text := plugin.permissions().get(CLUSTER), str)]
    return "\n---\n".join(text.rstrip() for text in texts)


def _plugins(grid: GridConfig) -> Iterator[Plugin]:
    if grid.settings.source is not None:
        yield grid.source()
    if grid.settings.sink is not None:
        yield grid.sink()
    yield grid.invoker()
    yield from (grid.observer(name) for name in grid.settings.observers)


def _joined(policies: list[Mapping[str, Any]]) -> dict[str, Any]:
    """One policy made of all of these, each statement once."""
    statements: list[Any] = []
    for policy in policies:
        statements += [statement for statement in policy["Statement"] if statement not in statements]
    return {"Version": "2012-10-17", "Statement": _named_apart(statements)}


def _named_apart(statements: list[Any]) -> list[Any]:
    """The statements with unique `Sid`s, as IAM requires."""
    seen: dict[str, int] = {}
    named = []
    for statement in statements:
        name = statement.get("Sid", "")
        seen[name] = seen.get(name, 0) + 1
        again = {"Sid": f"{name}{seen[name]}"} if name and seen[name] > 1 else {}
        named.append({**statement, **again})
    return named

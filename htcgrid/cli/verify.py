import dataclasses
import json
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from htcgrid import config, plugins
from htcgrid.cli.main import DONE, SOME_FAILED
from htcgrid.spi import Function, Invoker, Plugin, Rejected, ResultSink, TaskSource

KINDS: dict[str, type[Plugin]] = {"invoker": Invoker, "task-source": TaskSource, "result-sink": ResultSink}
"""What `--kind` calls the three kinds of plugin."""

_MARKS = {"held": "held     ", "broken": "BROKEN   ", "not asked": "not asked"}


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Needed if plugins of several kinds have that name.")
@click.option(
    "--option",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the plugin's config. In it {tmp} is a new folder for each rule, {fresh} a new word.",
)
@click.option(
    "--patience",
    type=click.FloatRange(0, 1000, min_open=True),
    default=1.0,
    show_default=True,
    help="Every wait is multiplied by it.",
)
@click.option("--drain", is_flag=True, help="The kit may empty the source before each rule.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the verdicts as JSON."
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the verdicts as JUnit XML.")
@click.option("--strict", is_flag=True, help="A rule that could not be tested counts as broken.")
def command(
    name: str,
    kind: str | None,
    pairs: tuple[str, ...],
    patience: float,
    drain: bool,
    json_file: Path | None,
    junit: Path | None,
    strict: bool,
) -> int:
    """Run the conformance kit over an installed plugin, and say which rules of the interface it keeps.

    \b
    htcgrid verify process --option workers=2
    htcgrid verify sqlite --kind task-source --option path={tmp}/grid.db --option lease_seconds=2

    Exit codes: 0 all tested rules are kept, 1 one is broken, 2 wrong usage, 3 the plugin's service
    was unavailable.
    """
    kit = _kit()
    base = KINDS[kind] if kind else _kind_of(name)
    plugin = plugins.load(base, name)
    options = config.flags_of(pairs)
    with tempfile.TemporaryDirectory(prefix="htcgrid-verify-") as folder:

        def make(function: Function) -> Plugin:
            return plugin(_config(plugin, options, Path(folder)), function)

        with make(kit.contract_function()):
            pass  # what is wrong for good, or away, is told once and not once a rule
        subject = kit.Subject(base, make, patience, drain)
        verdicts = kit.verify(subject, junit=junit, on_verdict=_show)
        claimed = make(kit.contract_function())
    proven = kit.capabilities(claimed.capabilities, verdicts) if isinstance(claimed, Invoker) else {}
    _summarise(verdicts, proven)
    if json_file is not None:
        text = json.dumps(_document(name, base, verdicts, proven), indent=2) + "\n"
        try:
            json_file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise config.ConfigError(f"--json {json_file} cannot be written: {error.strerror}.") from None
    bad = {"broken", "not asked"} if strict else {"broken"}
    return SOME_FAILED if any(verdict.verdict in bad for verdict in verdicts) else DONE


def _kit() -> Any:
    """The kit, which is another distribution: found by its entry point, as plugins are."""
    found = list(entry_points(group="htcgrid.conformance", name="kit"))
    if not found:
        raise Rejected("`htcgrid verify` needs the conformance kit. Install it: pip install htcgrid-contracts")
    return found[0].load()


def _kind_of(name: str) -> type[Plugin]:
    kinds = [kind for kind, base in KINDS.items() if any(plugin.name == name for plugin in plugins.installed(base))]
    if len(kinds) > 1:
        raise click.UsageError(
            f"There are several plugins named {name!r}: say which with --kind {' or --kind '.join(kinds)}."
        )
    if not kinds:
        names = ", ".join(sorted({plugin.name for plugin in plugins.installed()}))
        raise Rejected(f"There is no plugin named {name!r}. Installed: {names}.")
    return KINDS[kinds[0]]


def _config(plugin: type[Plugin], options: dict[str, Any], folder: Path) -> Plugin.Config:
    filled = {key: _filled(value, folder) for key, value in options.items()}
    try:
        return plugin.Config.model_validate(filled)
    except ValidationError as error:
        raise config.ConfigError(config.explain(error, "--option", plugin.Config)) from None


def _filled(value: Any, folder: Path) -> Any:
    if not isinstance(value, str):
        return value
    fresh = uuid.uuid4().hex[:12]
    if "{tmp}" in value:
        (folder / fresh).mkdir()
    return value.replace("{tmp}", str(folder / fresh)).replace("{fresh}", fresh)


def _show(verdict: Any) -> None:
    print(f"{_MARKS[verdict.verdict]}  {verdict.rule}")
    if verdict.verdict == "broken":
        print(*(f"           | {line}" for line in verdict.why.splitlines()), sep="\n")
        print(f"           | read: {verdict.read}")
    sys.stdout.flush()


def _summarise(verdicts: Sequence[Any], proven: Mapping[str, str]) -> None:
    print()
    reasons = Counter(verdict.why for verdict in verdicts if verdict.verdict == "not asked")
    for reason, times in reasons.items():
        print(f"not asked ({times}): {reason}")
    if proven:
        print("capabilities:", ", ".join(f"{name} {found}" for name, found in proven.items()))
    counts = Counter(verdict.verdict for verdict in verdicts)
    print(f"{counts['held']} rules held, {counts['broken']} broken, {counts['not asked']} not asked")


def _document(name: str, base: type[Plugin], verdicts: Sequence[Any], proven: Mapping[str, str]) -> dict[str, Any]:
    """What `--json` writes."""
    kind = next(kind for kind, each in KINDS.items() if each is base)
    rules = [dataclasses.asdict(verdict) for verdict in verdicts]
    return {"plugin": name, "kind": kind, "rules": rules, "capabilities": dict(proven)}

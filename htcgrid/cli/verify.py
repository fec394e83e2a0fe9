import dataclasses
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr

from htcgrid import config, plugins
from htcgrid.cli.main import DONE, SOME_FAILED, Terminated
from htcgrid.cli.verify_places import Places, resizing, seen_by_handlers
from htcgrid.planes import SidecarInvoker
from htcgrid.runtime.pool import EnvironmentPool
from htcgrid.spi import HtcgridError, Invoker, Observer, Plugin, Rejected, ResultSink, TaskSource

KINDS: dict[str, type[Plugin]] = {
    "invoker": Invoker,
    "task-source": TaskSource,
    "result-sink": ResultSink,
    "observer": Observer,
}
"""The kinds of plugin, by their names for `--kind`."""

_JOBS = 3
_MARKS = {"held": "held     ", "broken": "BROKEN   ", "not asked": "not asked"}


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(list(KINDS)), help="Needed if plugins of several kinds have that name.")
@click.option(
    "--option",
    "pairs",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the plugin's config. In it {tmp} is a new folder for each rule, {fresh} a new word; in commands, too.",
)
@click.option(
    "--wait-factor",
    type=click.FloatRange(0, 1000, min_open=True),
    default=1.0,
    show_default=True,
    help="Multiply every wait by this: 2 on a slow machine.",
)
@click.option("--drain", is_flag=True, help="The kit may empty the source before each rule.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write the verdicts as JSON."
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the verdicts as JUnit XML.")
@click.option(
    "--strict",
    is_flag=True,
    help="A rule that was not asked because one of the options below is missing counts as broken.",
)
@click.option(
    "-k",
    "keyword",
    default="",
    metavar="EXPRESSION",
    help="Only these rules: the words of one, or an expression as in pytest.",
)
@click.option("-x", "first", is_flag=True, help="Stop at the first rule that is broken.")
@click.option("--list", "listed", is_flag=True, help="Show the rules without testing them.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    help="Rules tested at the same time, each in a process of its own.  [default: 3 for a plane that starts environments of its "
    "own, and where each rule has a place of its own by {tmp} or {fresh}; otherwise 1, and with a command that acts on the "
    "service, --deployed, -k or -x]",
)
@click.option(
    "--deadline",
    type=click.FloatRange(1, 86_400),
    help="Seconds that one rule may take.  [default: 60, times --wait-factor]",
)
@click.option(
    "--missing", multiple=True, metavar="KEY=VALUE", help="An option with which the plugin names what does not exist."
)
@click.option("--take-away", metavar="CMD", help="A command that stops what the plugin talks to.")
@click.option("--bring-back", metavar="CMD", help="A command that starts it again.")
@click.option(
    "--away-seconds",
    type=click.FloatRange(0.1, 600),
    default=5.0,
    show_default=True,
    help="How long one attempt may take to find out that the service is away, such as the time limit of its calls.",
)
@click.option("--throttle", metavar="CMD", help="A command that makes the service refuse its next call.")
@click.option("--end-throttle", metavar="CMD", help="A command that ends what --throttle began, if it lasts.")
@click.option("--resize", metavar="CMD", help="A command that gives the plane {size} environments.")
@click.option(
    "--publish-invalid",
    metavar="CMD",
    help="A command that puts something that is not a task into the source: text that is not JSON.",
)
@click.option(
    "--marks", metavar="PATH", help="The path at which handlers see {folder}, a folder of the kit on this machine."
)
@click.option(
    "--deployed",
    type=click.FloatRange(1, 900),
    metavar="SECONDS",
    help="The plane serves only the kit's handler, which was deployed with this timeout.",
)
@click.option(
    "--emulator", is_flag=True, help="AWS's Runtime Interface Emulator runs the handlers: three rules do not apply."
)
@click.option(
    "--too-large", type=click.IntRange(1), metavar="BYTES", help="The size of an answer that can never be stored."
)
@click.option(
    "--largest-event",
    type=click.IntRange(0),
    metavar="BYTES",
    help="The largest event of a plane; 0 if there is no limit.",
)
@click.option(
    "--largest-answer",
    type=click.IntRange(0),
    metavar="BYTES",
    help="The largest answer of a plane; 0 if there is no limit.",
)
@click.option(
    "--remove", metavar="CMD", help="A command that removes a place; in it {fresh} is the word of that place."
)
def command(
    name: str,
    kind: str | None,
    pairs: tuple[str, ...],
    wait_factor: float,
    drain: bool,
    emulator: bool,
    json_file: Path | None,
    junit: Path | None,
    strict: bool,
    keyword: str = "",
    first: bool = False,
    listed: bool = False,
    jobs: int | None = None,
    deadline: float | None = None,
    missing: tuple[str, ...] = (),
    take_away: str | None = None,
    bring_back: str | None = None,
    away_seconds: float = 5.0,
    throttle: str | None = None,
    end_throttle: str | None = None,
    resize: str | None = None,
    publish_invalid: str | None = None,
    marks: str | None = None,
    deployed: float | None = None,
    too_large: int | None = None,
    largest_event: int | None = None,
    largest_answer: int | None = None,
    remove: str | None = None,
) -> int:
    """Run the conformance kit over an installed plugin, and say which rules of the interface it keeps.

    \b
    htcgrid verify process --option workers=2
    htcgrid verify sqlite --kind task-source --option path={tmp}/grid.db --option lease_seconds=2
    htcgrid verify redis --kind result-sink --option prefix={fresh}: --missing url=no-address \\
        --take-away 'systemctl stop redis' --bring-back 'systemctl start redis'

    Exit codes: 0 all tested rules are kept, 1 one is broken, 2 wrong usage, 3 the plugin's service
    was unavailable.
    """
    kit = _kit()
    base = KINDS[kind] if kind else _kind_of(name)
    keyword, rules = _chosen(kit, base, keyword)
    if listed:
        return _list(rules)
    if take_away is not None and bring_back is None:
        raise click.UsageError("--take-away needs --bring-back: a command that starts again what was stopped.")
    plugin = plugins.load(base, name)
    options = config.flags_of(pairs, "--option", "workers=2")
    elsewhere = config.flags_of(missing, "--missing", "path=/no/such")
    _require_writable("--json", json_file)
    _require_writable("--junit", junit)
    function = kit.contract_function() if deployed is None else kit.contract_function(timeout=deployed)
    with tempfile.TemporaryDirectory(prefix="htcgrid-verify-") as folder:
        places = Places(plugin, options, Path(folder))
        try:
            _open_once(places.make(function))
            if elsewhere:
                places.make(function, elsewhere, "--missing")
            subject = kit.Subject(
                base,
                places.make,
                wait_factor,
                drain,
                missing=partial(places.make, changed=elsewhere) if elsewhere else None,
                take_away=places.running("--take-away", take_away),
                bring_back=places.running("--bring-back", bring_back),
                throttle=places.running("--throttle", throttle),
                end_throttle=places.running("--end-throttle", end_throttle),
                resize=resizing(resize),
                publish_invalid=places.running("--publish-invalid", publish_invalid),
                marks=seen_by_handlers(marks),
                deployed=deployed,
                emulator=emulator,
                too_large=too_large,
                largest_event=largest_event,
                largest_answer=largest_answer,
                away_seconds=away_seconds,
                deadline=deadline or 60.0 * wait_factor,
            )
            acts_on_all = any((take_away, throttle, resize, deployed, first, keyword))
            default = _JOBS if (places.are_new or starts_its_own(plugin)) and not acts_on_all else 1
            with _ending_on_sigterm():
                verdicts = kit.verify(
                    subject, jobs=jobs or default, junit=junit, on_verdict=_show, keyword=keyword, first=first
                )
            claimed = places.make(function)
        finally:
            places.remove(remove or "")
    is_whole = not keyword and not first
    proven = kit.capabilities(claimed.capabilities, verdicts) if isinstance(claimed, Invoker) and is_whole else {}
    left_out = [verdict for verdict in verdicts if verdict.could_be_asked] if strict else []
    _summarise(verdicts, proven, left_out)
    if json_file is not None:
        text = json.dumps(_document(name, base, verdicts, proven), indent=2) + "\n"
        try:
            json_file.write_text(text, encoding="utf-8")
        except OSError as error:
            raise config.ConfigError(f"--json {json_file} cannot be written: {error.strerror}.") from None
    return SOME_FAILED if left_out or any(each.verdict == "broken" for each in verdicts) else DONE


def _open_once(plugin: Plugin) -> None:
    """A config error or an outage is reported once, not once for each rule. Any other error, and one that shows a secret of the
    config, is shown by the rules, without the secret."""
    secrets = [value.get_secret_value() for _, value in plugin.config if isinstance(value, SecretStr)]
    try:
        with plugin:
            pass
    except Exception as error:
        if isinstance(error, HtcgridError) and not any(secret and secret in str(error) for secret in secrets):
            raise
        print(f"`open` or `close` raised {type(error).__name__}: the rules show it.\n")


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """On SIGTERM end as on Ctrl-C: pytest ends the rule and its processes on KeyboardInterrupt, and takes others for a fault."""
    is_terminated = False

    def end(_number: int, _frame: object) -> None:
        nonlocal is_terminated
        is_terminated = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt:
        if is_terminated:
            raise Terminated from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _require_writable(option: str, file: Path | None) -> None:
    """Make its folder, as pytest does for JUnit XML. Raises `ConfigError` before the rules are tested, which takes minutes."""
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.open("a").close()
    except OSError as error:
        raise config.ConfigError(f"{option} {file} cannot be written: {error.strerror}. Name another file.") from None


def _kit() -> Any:
    """The kit. It is another distribution and is found by its entry point, as plugins are."""
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


def _chosen(kit: Any, base: type[Plugin], keyword: str) -> tuple[str, Sequence[tuple[str, str, str]]]:
    """What `-k` gives, as pytest takes it, and the rules that it chooses. The words of a rule are taken as they are shown."""
    try:
        rules = kit.rules(base, keyword)
    except ValueError as error:
        words = [rule for rule, _, _ in kit.rules(base) if keyword.strip() in rule]
        if not words:
            raise click.UsageError(
                f"-k {keyword!r} cannot be read: {error}. Give the words of one rule, or single words of rules with `and`, "
                "`or`, `not` and brackets between them."
            ) from None
        keyword = keyword.strip().replace(" ", "_")
        rules = kit.rules(base, keyword)
    if not rules:
        raise click.UsageError(f"-k {keyword!r} matches no rule; with --list and without -k, all are shown.")
    return keyword, rules


def starts_its_own(plugin: type[Plugin]) -> bool:
    """Whether it is a plane with environments of its own. Others may share a service, which refuses what is too much."""
    return issubclass(plugin, EnvironmentPool) and not issubclass(plugin, SidecarInvoker)


def _list(rules: Sequence[tuple[str, str, str]]) -> int:
    for rule, why, read in rules:
        print(f"{rule}\n           | {why}\n           | read: {read}")
    print(
        f"{len(rules)} rule{'s' * (len(rules) != 1)}. Those that are tested with several values have a verdict for each."
    )
    return DONE


def _show(verdict: Any) -> None:
    print(f"{_MARKS[verdict.verdict]}  {verdict.rule}")
    if verdict.verdict == "broken":
        lines = [f"by the same fault as: {verdict.same_as}"] if verdict.same_as else verdict.why.splitlines()
        print(*(f"           | {line}" for line in lines), sep="\n")
        print(f"           | read: {verdict.read}")
    sys.stdout.flush()


def _summarise(verdicts: Sequence[Any], proven: Mapping[str, str], left_out: Sequence[Any]) -> None:
    print()
    reasons = Counter(verdict.why for verdict in verdicts if verdict.verdict == "not asked")
    for reason, times in reasons.items():
        print(f"not asked ({times}): {reason}")
    if proven:
        print("capabilities:", ", ".join(f"{name} {found}" for name, found in proven.items()))
    counts = Counter(verdict.verdict for verdict in verdicts)
    print(f"{counts['held']} rules held, {counts['broken']} broken, {counts['not asked']} not asked")
    if left_out:
        print("--strict: these count as broken, since you can have them asked. Leave out with -k what does not apply:")
        print(*(f"           | {verdict.rule}: {verdict.why}" for verdict in left_out), sep="\n")


def _document(name: str, base: type[Plugin], verdicts: Sequence[Any], proven: Mapping[str, str]) -> dict[str, Any]:
    """The document that `--json` writes."""
    kind = next(kind for kind, each in KINDS.items() if each is base)
    rules = [dataclasses.asdict(verdict) for verdict in verdicts]
    return {"plugin": name, "kind": kind, "rules": rules, "capabilities": dict(proven)}

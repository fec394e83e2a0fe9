"""The options that commands share, and the grid that they choose."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from htcgrid import config
from htcgrid.cli.log_output import log_options

F = TypeVar("F", bound=Callable[..., Any])


def grid_options(command: F) -> F:
    """`--config`, `--plane` and `--set` for `read_grid`, and the log options."""
    command = log_options(command)
    for option in (
        click.option(
            "--set",
            "pairs",
            multiple=True,
            metavar="KEY=VALUE",
            help="Set any key of the config, such as source.path=t.jsonl.",
        ),
        click.option("--plane", metavar="NAME", help="Which of [planes] to run on."),
        click.option(
            "-c",
            "--config",
            "file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="The config file; htcgrid.toml here by default. Paths in the config are relative to its folder.",
        ),
    ):
        command = option(command)
    return command


def session_option(text: str) -> Callable[[F], F]:
    """`--session`, with this help text."""
    return click.option("--session", metavar="NAME", callback=_session_name, help=text)


def _session_name(_context: click.Context, _option: click.Parameter, name: str | None) -> str | None:
    if name == "":  # as of a variable that a failed `submit` left empty
        raise click.BadParameter("the name is empty. Give the session that `htcgrid submit` has printed.")
    return name


def options_text(file: Path | None, plane: str | None, pairs: tuple[str, ...]) -> str:
    """These options as a user types them, with a space before each."""
    config_option = ["--config", str(file)] if file is not None else []
    plane_option = ["--plane", plane] if plane else []
    shown = [pair for pair in pairs if pair.startswith(("source.", "sink."))]
    set_options = [each for pair in shown for each in ("--set", config.shown_pair(pair))]
    return "".join(f" {shlex.quote(each)}" for each in [*config_option, *plane_option, *set_options])


def read_grid(
    file: Path | None,
    plane: str | None,
    pairs: tuple[str, ...],
    tables: Mapping[str, dict[str, Any]] | None = None,
    *,
    optional: bool = False,
) -> config.GridConfig:
    """The grid that these options choose. Raises `ConfigError` where nothing describes one, unless it is `optional`."""
    flags = config.flags_of(pairs)
    for name, table in (tables or {}).items():
        there = flags.get(name, {})
        if not isinstance(there, dict):
            raise config.ConfigError(f"--set {name}={there}: {name} is a table. Write --set {name}.KEY=VALUE.")
        flags[name] = there | table
    if plane:
        flags["plane"] = plane
    grid = config.read(file, flags)
    if grid.file is None and not optional and _is_empty(grid.settings):
        raise config.ConfigError(
            f"There is no {config.DEFAULT_FILE} in this folder. Go to the folder that has it, name it with --config FILE, or write "
            "a new project with `htcgrid init FOLDER`."
        )
    return grid


def _is_empty(settings: config.Settings) -> bool:
    """Whether neither a file nor options nor variables say what to run, on what."""
    function = settings.function
    given = function.handler, function.command, settings.functions, settings.source, settings.sink
    return not any(given) and "planes" not in settings.model_fields_set

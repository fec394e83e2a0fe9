"""Config file, environment and command line, joined into validated settings.

The one module that reads the environment. Stronger first: `--set` and the other flags, `HTCGRID_...`
variables (`HTCGRID_PLANE`, `HTCGRID_FUNCTION__TIMEOUT`), then the file.
"""

import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from htcgrid import plugins, secret_values
from htcgrid.agent.observing import Observing
from htcgrid.config_errors import ConfigError, explain, short
from htcgrid.config_file import parsed_file
from htcgrid.config_flags import flags_of, shown_pair
from htcgrid.config_tables import PluginTable, Settings
from htcgrid.spi import (
    CREDENTIAL_VARIABLES,
    Function,
    HandlerOutput,
    Invoker,
    Observer,
    Observers,
    Plugin,
    ResultSink,
    TaskSource,
)

__all__ = [
    "DEFAULT_FILE",
    "ENVIRONMENT_PREFIX",
    "ConfigError",
    "GridConfig",
    "PluginTable",
    "Settings",
    "become",
    "explain",
    "flags_of",
    "is_standard_stream",
    "read",
    "shown_pair",
]

DEFAULT_FILE = "htcgrid.toml"
ENVIRONMENT_PREFIX = "HTCGRID_"

P = TypeVar("P", bound=Plugin)
M = TypeVar("M", bound=BaseModel)


def is_standard_stream(plugin: Plugin) -> bool:
    """Whether it reads standard input or writes standard output, which can be used once."""
    return str(getattr(plugin.config, "path", "")) == "-"


@dataclass(frozen=True, slots=True)
class GridConfig:
    """Settings with where they came from, ready to make plugins of."""

    settings: Settings
    file: Path | None

    def invoker(self, observers: Observers | None = None, output: HandlerOutput | None = None) -> Invoker:
        """The chosen plane, not yet open; it tells these observers of its environments, and `output` what handlers print."""
        settings = self.settings
        table = settings.planes.get(settings.plane)
        if table is None:
            names = ", ".join(settings.planes)
            raise ConfigError(
                f"{self._where()}: plane = {settings.plane!r}, but [planes] has only: {names}. "
                f"Choose one of these, or write a table [planes.{settings.plane}]."
            )
        plane = self._plugin(Invoker, table, f"planes.{settings.plane}")
        plane.credentials = plugins.load_credentials(plane.function.credentials)(plane.function)
        if observers is not None:
            plane.observers = observers
        if output is not None:
            plane.output = output
        return plane

    def on_plane(self, name: str) -> "GridConfig":
        """The same grid on another of its planes."""
        return replace(self, settings=self.settings.model_copy(update={"plane": name}))

    def source(self) -> TaskSource:
        """The task source, not yet open."""
        return self._plugin(TaskSource, self._table(self.settings.source, "source", "tasks.jsonl"), "source")

    def sink(self) -> ResultSink:
        """The result sink, not yet open."""
        sink = self._plugin(ResultSink, self._table(self.settings.sink, "sink", "results.jsonl"), "sink")
        if self.settings.agent.handler_logs == "stdout" and is_standard_stream(sink):
            raise ConfigError(
                f'{self._where()}: [agent] handler_logs = "stdout", but [sink] path = "-" writes the results to standard '
                'output. Write handler_logs = "stderr", or name a folder.'
            )
        return sink

    def observer(self, name: str) -> Observer:
        """One of the observers, not yet open."""
        return self._plugin(Observer, self.settings.observers[name], f"observers.{name}")

    def observers(self, others: Mapping[str, Observer] | None = None) -> Observing:
        """All observers, to be opened before the agent's plugins and closed after them; `others` are not in the config."""
        return Observing({**{name: self.observer(name) for name in self.settings.observers}, **(others or {})})

    def span_makers(self) -> Observing:
        """Those observers alone that make spans, for whoever puts tasks into a queue."""
        made = {name: self.observer(name) for name in self.settings.observers}
        return Observing({name: observer for name, observer in made.items() if observer.makes_spans})

    def functions(self) -> list[Function]:
        """[function], where it is one, and every one of [functions]."""
        settings = self.settings
        named = [function.model_copy(update={"name": name}) for name, function in settings.functions.items()]
        alone = [settings.function] if settings.function.handler or settings.function.command or not named else []
        return alone + named

    def serving(self, function: Function) -> "GridConfig":
        """The same grid for another function."""
        return replace(self, settings=self.settings.model_copy(update={"function": function}))

    def secrets(self) -> list[str]:
        """The keys of the source, the sink and the observers that are written in the config and whose values are secret."""
        found: dict[str, Plugin] = {f"observers.{name}": self.observer(name) for name in self.settings.observers}
        found |= {"source": self.source()} if self.settings.source is not None else {}
        found |= {"sink": self.sink()} if self.settings.sink is not None else {}
        return [
            f"{table}.{key}"
            for table, plugin in found.items()
            for key in secret_values.secrets_of(plugin.config)
            if f"{table}.{key}" not in self.from_variables()
        ]

    def from_variables(self) -> list[str]:
        """The keys of the source, the sink and the observers that came from HTCGRID_ variables, which no dump contains."""
        tables = {"source": self.settings.source, "sink": self.settings.sink}
        found = {name: table.model_extra or {} for name, table in tables.items() if table is not None}
        observers = {name: table.model_extra or {} for name, table in self.settings.observers.items()}
        return list(secret_values.concealed_keys({**found, "observers": observers}))

    def _table(self, table: PluginTable | None, name: str, example: str) -> PluginTable:
        if table is None:
            table_text = f'[{name}]\nplugin = "jsonl"\npath = "{example}"'
            message = f"{self._where()}: [{name}] is missing. Write, for example:\n\n{table_text}"
            raise ConfigError(message)
        return table

    def _plugin(self, kind: type[P], table: PluginTable, where: str) -> P:
        plugin = plugins.load(kind, table.plugin)
        try:
            config = plugin.Config.model_validate(table.options)
        except ValidationError as error:
            raise ConfigError(explain(error, self._where(), plugin.Config, where)) from None
        made = plugin(self.beside_the_file(config), self._in_its_region(self.settings.function))
        if self.settings.agent.name:
            made.agent = f"{self.settings.agent.name}-{made.agent}"
        return made

    def region(self) -> tuple[str, str]:
        """The AWS region that handlers find, and what says so."""
        function = self.settings.function
        if function.region:
            return function.region, "[function] region"
        plane = self.settings.planes.get(self.settings.plane)
        if plane is not None and (own := str(plane.options.get("region", ""))) and _REGION.match(own):
            return own, f"[planes.{self.settings.plane}] region"
        for name in _REGIONS:
            if value := os.environ.get(name, ""):
                return value, name
        return function.aws_region, "neither [function] region nor AWS_REGION nor AWS_DEFAULT_REGION is set"

    def _in_its_region(self, function: Function) -> Function:
        region, where = self.region()
        if not _REGION.match(region):
            raise ConfigError(f"environment: {where} = {short(region)}: this is not an AWS region, such as eu-west-1.")
        return function.model_copy(update={"region": region})

    def beside_the_file(self, model: M) -> M:
        """The model with relative paths made relative to the folder of the config file. "-" is not a path."""
        try:
            folder = self.file.resolve().parent if self.file else Path.cwd()
        except OSError as error:
            raise ConfigError(f"The current folder is not there any more ({error.strerror}). Go to another.") from None
        paths: dict[str, Any] = {
            name: folder / value for name, value in model if isinstance(value, Path) and str(value) != "-"
        }
        for name, value in model:
            if isinstance(value, tuple) and value and all(isinstance(path, Path) for path in value):
                paths[name] = tuple(folder / path for path in value)
        return model.model_copy(update=paths)

    def _where(self) -> str:
        return str(self.file) if self.file else "settings"


def read(file: Path | None = None, flags: Mapping[str, Any] | None = None) -> GridConfig:
    """The settings of `file`, or of `htcgrid.toml` here if there is one, overridden by the environment and `flags`.

    `flags` is nested as the file is. Raises `ConfigError`.
    """
    if file is None and os.path.lexists(DEFAULT_FILE):
        file = Path(DEFAULT_FILE)
    document = parsed_file(file) if file is not None else {}
    above = _over(flags or {}, _variables())
    _drop_options_of_other_plugins(document, above)
    try:
        settings = Settings.model_validate(_over(above, document))
    except ValidationError as error:
        raise ConfigError(explain(error, str(file or "settings"), Settings)) from None
    grid = GridConfig(settings, file)
    here: dict[str, Any] = {
        "function": grid.beside_the_file(settings.function),
        "functions": {name: grid.beside_the_file(function) for name, function in settings.functions.items()},
    }
    return replace(grid, settings=settings.model_copy(update=here))


def _drop_options_of_other_plugins(document: dict[str, Any], above: Mapping[str, Any]) -> None:
    """Where a flag or variable names another plugin, drop the table of the file's plugin: its keys are not the other's."""
    for name in ("source", "sink"):
        table, stronger = document.get(name), above.get(name)
        chosen = stronger.get("plugin") if isinstance(stronger, dict) else None
        if isinstance(table, dict) and chosen and chosen != table.get("plugin"):
            document[name] = {}


def _variables() -> dict[str, Any]:
    """What `HTCGRID_...` variables say, nested as the file is."""
    ours = [name for name in os.environ if name.upper().startswith(ENVIRONMENT_PREFIX)]
    for variable in ours:
        key, *below = variable[len(ENVIRONMENT_PREFIX) :].lower().split("__")
        if key not in Settings.model_fields or (below and key == "plane"):
            known = ", ".join(f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields)
            raise ConfigError(f"environment: {variable} is not a setting. There are: {known}.")
    if not ours:
        return {}
    # Imported here, since it takes a tenth of a command's start and few runs have such variables.
    from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError  # noqa: PLC0415

    class FromEnvironment(Settings, BaseSettings):
        """Settings as the library wants them."""

        model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__")

    try:
        found = _with_names_as_given(EnvSettingsSource(FromEnvironment)(), ours)
    except (SettingsError, RecursionError):
        raise ConfigError(_no_json(ours)) from None
    return {
        name: secret_values.concealed(value) if name in {"source", "sink", "planes", "observers"} else value
        for name, value in found.items()
    }


def _with_names_as_given(document: dict[str, Any], variables: Iterable[str]) -> dict[str, Any]:
    """The names of a handler's variables are the user's own; all other names are in small letters."""
    given: list[tuple[dict[str, Any], str, str]] = []
    for variable in variables:
        if (found := _HANDLERS_VARIABLE.match(variable)) is None:
            continue
        table: Any = document
        for name in found["table"].lower().split("__"):
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(found["name"].partition("__")[0].lower(), None)
            given.append((table, found["name"], os.environ[variable]))
    for table, name, value in given:
        table[name] = value
    return document


def _no_json(variables: Sequence[str]) -> str:
    """Which of these cannot be read, and why. Their values may be secrets."""
    for variable in variables:
        try:
            json.loads(os.environ[variable])
        except RecursionError:
            reason = "it is nested too deep"
        except ValueError as error:
            if not _BEGINS_AS_JSON.match(os.environ[variable]) and "__" in variable:
                continue  # a word or a path, as most are
            reason = str(error)
        else:
            continue
        return (
            f"environment: {variable} is not JSON, as a table or list must be: {reason}. Write, for example, "
            f"""{variable}='{{"key": "value"}}', or one variable a key: {variable}__KEY=value."""
        )
    names = " or ".join(variables)
    return f"environment: {names} is not JSON, as a table or list must be."


_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_REGION = re.compile(r"[a-z0-9-]{1,32}\Z")
_HANDLERS_VARIABLE = re.compile(
    rf"{ENVIRONMENT_PREFIX}(?P<table>(?:function|functions__.+?)__environment)__(?P<name>.+)", re.IGNORECASE | re.DOTALL
)
_BEGINS_AS_JSON = re.compile(r"\s*[\[{]")


def _over(stronger: Mapping[str, Any], weaker: Mapping[str, Any]) -> dict[str, Any]:
    """Both, table by table; where both have a key, the stronger's."""
    both = dict(weaker)
    for key, value in stronger.items():
        below = both.get(key)
        both[key] = _over(value, below) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return both


def become(variables: Mapping[str, str], paths: Mapping[str, Sequence[str]]) -> None:
    """Set these variables in this process, and remove its own credentials, for a handler that is called in it.

    `paths` has the folders to be added to a search path, by the variable that names it.
    """
    for name in CREDENTIAL_VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(variables)
    for name, folders in paths.items():
        os.environ[name] = os.pathsep.join(filter(None, [os.environ.get(name), *folders]))
    time.tzset()

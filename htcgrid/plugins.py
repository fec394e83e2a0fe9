"""From a plugin's name to its class. The only module that knows stevedore.

Names are entry points of the groups `htcgrid.invoker`, `htcgrid.task_source`, `htcgrid.result_sink` and `htcgrid.observer`.
Nothing falls back: where a name is missing, is there twice, cannot be imported or has another version of the interface, the
program stops with what is wrong and what to do.
"""

import errno
import importlib.metadata
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import isabstract
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from stevedore import DriverManager
from stevedore.exception import MultipleMatches, NoMatches

from htcgrid.spi import (
    SPI_VERSION,
    CredentialSource,
    Function,
    Invoker,
    Observer,
    Plugin,
    Rejected,
    ResultSink,
    TaskSource,
)

P = TypeVar("P", bound=Plugin)

GROUPS: dict[type[Plugin], str] = {
    Invoker: "htcgrid.invoker",
    TaskSource: "htcgrid.task_source",
    ResultSink: "htcgrid.result_sink",
    Observer: "htcgrid.observer",
}
_KIND_NAMES = {Invoker: "compute plane", TaskSource: "task source", ResultSink: "result sink", Observer: "observer"}
_AVAILABLE = "htcgrid.available"
"""Entry points of htcgrid itself, by the name of a plugin: the package of a distribution that brings it, installed or not."""


@dataclass(frozen=True, slots=True)
class Installed:
    """An entry point and the distribution that brings it."""

    kind: str
    name: str
    value: str
    distribution: str
    version: str


def installed(kind: type[Plugin] | None = None) -> list[Installed]:
    """Every plugin that is installed, of one kind or of all, in order of kind and name."""
    found = [
        Installed(_KIND_NAMES[base], point.name, point.value, point.dist.name, point.dist.version)
        for base, group in GROUPS.items()
        if kind in {None, base}
        for point in importlib.metadata.entry_points(group=group)
        if point.dist is not None
    ]
    return sorted(found, key=lambda plugin: (plugin.kind, plugin.name, plugin.distribution))


def load(kind: type[P], name: str) -> type[P]:
    """The class that the entry point `name` names. Raises `Rejected` with what is wrong where it cannot be loaded."""
    word = _KIND_NAMES[kind]

    def explain(_manager: Any, point: Any, error: BaseException) -> None:
        if _is_the_machine(error):
            raise error
        cause = "".join(traceback.format_exception(error)).rstrip()
        message = f"The {word} {name!r} ({point.value}) cannot be imported:\n{cause}"
        raise Rejected(message) from error

    try:
        plugin = DriverManager[Any](
            GROUPS[kind],
            name,
            # The class, not an instance: stevedore hands out the class where an instance is falsy.
            invoke_on_load=False,
            on_load_failure_callback=explain,
            on_missing_entrypoints_callback=lambda _names: None,  # reported below; None would log a warning before 5.10
        ).driver
    except NoMatches:
        raise Rejected(_unknown(kind, name)) from None
    except MultipleMatches:
        sources = ", ".join(f"{p.distribution} ({p.value})" for p in installed(kind) if p.name == name)
        message = f"The name {name!r} of a {word} is taken twice: {sources}. Uninstall one of them."
        raise Rejected(message) from None
    return _checked(kind, name, plugin)


def load_importer(name: str) -> Callable[[Sequence[Path]], tuple[str, list[str]]]:
    """A function that makes a config of another grid's files: it returns the text, and a line for each thing left out."""
    for point in importlib.metadata.entry_points(group="htcgrid.importer", name=name):
        return cast("Callable[[Sequence[Path]], tuple[str, list[str]]]", point.load())
    raise Rejected(f"Nothing is installed that reads the files of {name}.{_advice(f'from {name}')}")


def load_credentials(credentials: str) -> Callable[[Function], CredentialSource]:
    """A function that makes the `CredentialSource` for this value of `[function] credentials`."""
    if credentials == "none":
        return lambda _function: CredentialSource()
    points = list(importlib.metadata.entry_points(group="htcgrid.credentials"))
    if len(points) > 1:
        values = ", ".join(point.value for point in points)
        raise Rejected(f"[function] credentials = {credentials!r}: several get them: {values}. Uninstall all but one.")
    try:
        for point in points:
            return cast("Callable[[Function], CredentialSource]", point.load())
    except ImportError as error:
        if _is_the_machine(error):
            raise
        raise Rejected(
            f"[function] credentials = {credentials!r}: {points[0].value}, which gets them, cannot be imported: {error}. "
            f"Something that it needs is not installed, or is broken.{_advice('credentials')}"
        ) from error
    raise Rejected(
        f"[function] credentials = {credentials!r}: nothing is installed that gets them.{_advice('credentials')}"
    )


def _is_the_machine(error: BaseException) -> bool:
    """Whether the plugin was not loaded because this process has no file descriptors or memory left."""
    if isinstance(error, OSError):
        return error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
    return isinstance(error, MemoryError) or (isinstance(error, ImportError) and "failed to map segment" in str(error))


def _unknown(kind: type[Plugin], name: str) -> str:
    names = ", ".join(sorted({plugin.name for plugin in installed(kind)})) or "none"
    return f"There is no {_KIND_NAMES[kind]} named {name!r}. Installed: {names}.{_advice(name)}"


def _advice(name: str) -> str:
    packages = {point.value.partition(".")[0] for point in importlib.metadata.entry_points(group=_AVAILABLE, name=name)}
    return f" To install it: pip install {' or '.join(sorted(packages)).replace('_', '-')}" if packages else ""


def _checked(kind: type[P], name: str, plugin: Any) -> type[P]:
    """The class, if it can work as a plugin of this kind. Raises `Rejected` before anything is started with it."""
    where = f"The {_KIND_NAMES[kind]} {name!r}"
    if not (isinstance(plugin, type) and issubclass(plugin, kind)):
        raise Rejected(f"{where} is {plugin!r}; its entry point must name a subclass of htcgrid.spi.{kind.__name__}.")
    if plugin.spi != SPI_VERSION:
        message = (
            f"{where} is for version {plugin.spi} of the plugin interface, and this htcgrid has version {SPI_VERSION}. "
            f"Install versions of both that have the same one."
        )
        raise Rejected(message)
    if isabstract(plugin):
        missing = ", ".join(sorted(plugin.__abstractmethods__))
        page = f"{kind.__module__.replace('.', '/')}.py"
        raise Rejected(f"{where} lacks {missing}; see {page} for what each must do.")
    model: Any = plugin.Config
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        raise Rejected(f"{where} has a Config that is not a pydantic model.")
    return plugin

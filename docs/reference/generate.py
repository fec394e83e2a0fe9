"""Write docs/reference/config.md from the models that check the config; `make reference` runs it.

python docs/reference/generate.py            # write the page
python docs/reference/generate.py --check    # exit code 1 if the page differs from the models
"""

import importlib
import sys
import tomllib
import types
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from htcgrid.agent.options import AgentOptions
from htcgrid.config import Settings
from htcgrid.spi import Function

ROOT = Path(__file__).parents[2]
PAGE = Path(__file__).with_name("config.md")

HEAD = """\
# Config reference

<!-- Written by `make reference` from the models that check the config. Do not edit it: edit the models. -->

The config is a TOML file, `htcgrid.toml` unless `--config` names another. The strongest setting wins:

1. a command's own options, such as `--plane`, and `--set KEY=VALUE`, such as `--set source.path=more.jsonl`
2. environment variables: `HTCGRID_PLANE`, `HTCGRID_FUNCTION__TIMEOUT`, `HTCGRID_SOURCE__PATH` (two underscores go into a
   table)
3. the file

Relative paths are relative to the folder of the file. An unknown key is an error. `htcgrid check` reads the config and
says what is wrong with it.
"""

KINDS = {
    "htcgrid.invoker": ("Planes", "[planes.NAME]", "You choose NAME; `plane` at the top of the file selects one."),
    "htcgrid.task_source": ("Sources", "[source]", "One table says where tasks come from."),
    "htcgrid.result_sink": ("Sinks", "[sink]", "One table says where results go."),
    "htcgrid.observer": (
        "Observers",
        "[observers.NAME]",
        "Each is told what happens: [observability](../observability.md). NAME is the plugin's name, or any where `plugin` is given.",
    ),
}


def distributions() -> list[Path]:
    """The pyproject.toml of the core and of each first-party plugin."""
    return [ROOT / "pyproject.toml", *sorted(ROOT.glob("plugins/*/pyproject.toml"))]


def page(files: list[Path]) -> str:
    return "\n".join([HEAD, *core(), *plugins(files)])


def core() -> Iterator[str]:
    yield from table("## Top of the file", Settings)
    yield from table("## `[function]` and `[functions.NAME]`", Function)
    yield from table("## `[agent]`", AgentOptions)


def plugins(files: list[Path]) -> Iterator[str]:
    for group, (title, where, note) in KINDS.items():
        yield f"## {title}: `{where}`\n\n{note} `plugin` names the plugin; the other keys are the plugin's own.\n"
        for file in files:
            project = tomllib.loads(file.read_text())["project"]
            for name, target in project.get("entry-points", {}).get(group, {}).items():
                yield from section(name, project["name"], target, where)


def section(name: str, distribution: str, target: str, where: str) -> Iterator[str]:
    module, _, qualified = target.partition(":")
    plugin = getattr(importlib.import_module(module), qualified)
    origin = "part of htcgrid" if distribution == "htcgrid" else f"`pip install {distribution}`"
    yield from table(f'### `plugin = "{name}"` ({origin})', plugin.Config, where)


def table(heading: str, model: type[BaseModel], where: str = "") -> Iterator[str]:
    """A heading and a row for each key; then the same for the tables inside it that have keys of their own."""
    yield f"{heading}\n"
    if not model.model_fields:
        yield "It has no keys.\n"
        return
    yield "| Key | Type | Default | Description |\n| --- | --- | --- | --- |"
    inner = {}
    for key, field in model.model_fields.items():
        if where and (found := inner_model(field.annotation)):
            inner[key] = found
        if not field.description:
            raise SystemExit(f"{model.__qualname__}.{key} has no description. Give its Field one.")
        yield f"| `{key}` | {cell(kind_of(field.annotation, field.metadata))} | {cell(default(field))} | {cell(sentence(field.description))} |"
    yield ""
    for key, found in inner.items():
        yield from table(f"#### `{where[:-1]}.{key}]`", found, f"{where[:-1]}.{key}]")


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def sentence(text: str) -> str:
    """As the errors of the config quote it, but a sentence by itself."""
    word = text.split(maxsplit=1)[0].strip(";,")
    is_a_name = "." in word or (word[:1].islower() and word != word.lower())  # module.function, nodeSelector
    begin = text[:1] if is_a_name else text[:1].upper()
    return begin + text[1:] + ("" if text.endswith(".") else ".")


def default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its keys' defaults"
    if value is None or (isinstance(value, str | tuple | Mapping) and not value):
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f'`{key}`: `plugin = "{inner.plugin}"`' for key, inner in value.items())
    shown = str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str | Path) else value
    return f"`{shown:g}`" if isinstance(shown, float) else f"`{shown}`"


NAMES = {bool: "true or false", int: "integer", float: "number", str: "text", Path: "path", SecretStr: "secret text"}


def kind_of(kind: Any, metadata: Any = ()) -> str:
    """A type as a reader of TOML calls it."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return kind_of(inner[0], inner[1:])
    if origin is Literal:
        return "one of " + ", ".join(f'`"{value}"`' for value in inner)
    if origin in {Union, types.UnionType}:
        return kind_of(next(part for part in inner if part is not type(None)), metadata)
    if origin is tuple:
        return f"list of {plural(kind_of(inner[0]))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        keys = ", by kind of failure" if isinstance(inner[0], type) and issubclass(inner[0], StrEnum) else ""
        return f"table of {plural(kind_of(inner[1]))}{keys}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "table"
    return NAMES.get(kind, "any value") + bounds(metadata)


def plural(name: str) -> str:
    first, _, rest = name.partition(" of ")
    first, comma, bound = first.partition(",")
    many = {"any value": "values"}.get(first, f"{first}s")
    return many + comma + bound + (f" of {rest}" if rest else "")


def bounds(metadata: Any) -> str:
    """The least and the greatest value."""
    words = {Ge: "at least", Gt: "more than", Le: "at most", Lt: "less than"}
    found = {type(each): next(iter(vars_of(each))) for each in metadata if type(each) in words}
    numbers = {kind: f"{value:,}".removesuffix(".0") for kind, value in found.items()}
    if Ge in numbers and Le in numbers:
        return f", {numbers[Ge]} to {numbers[Le]}"
    return "".join(f", {words[kind]} {number}" for kind, number in numbers.items())


def vars_of(bound: Any) -> Iterator[float]:
    yield from (getattr(bound, name) for name in ("ge", "gt", "le", "lt") if hasattr(bound, name))


def inner_model(kind: Any) -> type[BaseModel] | None:
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def main() -> None:
    text = page(distributions())
    if "--check" not in sys.argv:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} is stale. Run `make reference` and commit the page.")


if __name__ == "__main__":
    main()

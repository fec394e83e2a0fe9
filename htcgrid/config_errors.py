"""What is wrong with a config, in messages that say where, what was found, what was expected and what to write."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from htcgrid import secret_values
from htcgrid.spi import HtcgridError

_SHOWN = 300


class ConfigError(HtcgridError):
    """The config cannot be used. The text names the file, the key, what was expected and what to write."""


def explain(error: ValidationError, where: str, model: type[BaseModel], inside: str = "") -> str:
    """A validation error as lines that say where, what was found, what was expected, what to write."""
    return "\n".join(_explain(problem, where, model, inside) for problem in error.errors())


def _meaning(description: str) -> str:
    """The description of a key as a sentence."""
    says = description.startswith(("whether ", "how ", "what ", "when ", "where ", "which "))
    return f"It {'says' if says else 'is'} {description}."


def _explain(problem: Any, where: str, model: type[BaseModel], inside: str) -> str:
    *tables, key = [str(part) for part in problem["loc"]] or [""]
    table = ".".join([*([inside] if inside else []), *tables])
    place = f"{where}: [{table}] {key}" if table else f"{where}: {key}"
    fields = _fields(model, tables)
    if problem["type"] == "extra_forbidden":
        from difflib import get_close_matches  # noqa: PLC0415 - a part of the cold start that few starts need

        near = get_close_matches(key, fields, 1)
        known = f"There are: {', '.join(fields)}." if fields else "It takes none."
        advice = f"Did you mean {near[0]}?" if near else known
        return f"{place}: there is no such key. {advice}"
    if problem["type"] == "missing":
        return f"{place}: this key is missing. {_meaning(fields.get(key) or 'needed')}"
    expected = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in {"model_type", "dict_type"}:
        inner = ".".join([*([table] if table else []), key])
        expected = f"this must be a table. Write [{inner}] and its keys below it"
    meaning = f" {_meaning(fields[key])}" if fields.get(key) else ""
    found = _shown(problem["input"], tables, key, model)
    return f"{place} = {found}: {expected}.{meaning}"


def _shown(value: Any, tables: Sequence[str], key: str, model: type[BaseModel]) -> str:
    """The value where it is certainly not a secret; of a table, its keys."""
    inner = _model_at(model, tables)
    field = inner.model_fields.get(key) if inner else None
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{str(name).partition('=')[0]}: ..." for name in value) + "}"
    if field is None or not secret_values.may_show(key, value, field.annotation):
        return "..."
    return short(value)


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"


def _fields(model: type[BaseModel], tables: Sequence[str]) -> dict[str, str]:
    """The keys of a table and what they mean."""
    found = _model_at(model, tables)
    return {name: field.description or "" for name, field in found.model_fields.items()} if found else {}


def _model_at(model: type[BaseModel], tables: Sequence[str]) -> type[BaseModel] | None:
    """The model of a table, following the models down to it; None where it has none."""
    names = iter(tables)
    for name in names:
        field = model.model_fields.get(name)
        kind = field.annotation if field else None
        inner = [part for part in (kind, *get_args(kind)) if isinstance(part, type) and issubclass(part, BaseModel)]
        if not inner:
            return None
        if get_origin(kind) is dict:
            next(names, "")  # a name that the user gave
        model = inner[0]
    return model

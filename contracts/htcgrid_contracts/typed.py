"""Whether a value has the types of the interface: those of a database or an SDK may be equal to them, and cannot be written
as JSON."""

import types
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_args, get_origin, get_type_hints


def misfits(value: object) -> str:
    """The fields of a dataclass of the interface that have another type than they should, as a text; empty for none."""
    return "; ".join(_misfits(type(value).__name__, value, type(value)))


def _misfits(name: str, value: object, hint: Any) -> Iterator[str]:
    origin = get_origin(hint)
    if origin is types.UnionType:
        kinds = get_args(hint)
        if not any(not [*_misfits(name, value, kind)] for kind in kinds):
            yield _text(name, value, hint)
    elif origin is not None and issubclass(origin, Mapping):
        yield from _misfits_of_mapping(name, value, hint)
    elif not isinstance(value, (int, float) if hint is float else hint):
        yield _text(name, value, hint)
    elif is_dataclass(hint):
        for field, kind in get_type_hints(hint).items():
            yield from _misfits(f"{name}.{field}", getattr(value, field), kind)


def _misfits_of_mapping(name: str, value: object, hint: Any) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield _text(name, value, hint)
        return
    of_key, of_value = get_args(hint)
    for key, each in value.items():
        yield from _misfits(f"a key of {name}", key, of_key)
        yield from _misfits(f"{name}[{key!r}]", each, of_value)


def _text(name: str, value: object, hint: Any) -> str:
    wanted = getattr(hint, "__name__", hint)
    return f"{name} is a {type(value).__module__}.{type(value).__name__}, and should be {wanted}"

"""Checks a part of a pod's spec: the names and types of its fields, as Kubernetes' own client has them.

Only the API server knows which values a field may have (`effect = "NoSchedule"`); `deploy` asks it before it makes anything.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from kubernetes import client
from pydantic import ValidationError

_LIST = re.compile(r"[Ll]ist\[(.+)\]")
_DICT = re.compile(r"[Dd]ict[\[(]str, (.+)[\])]")
_PLAIN: dict[str, tuple[type, str]] = {
    "str": (str, "a text"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
}
_REQUIRED = re.compile(r"`(\w+)`, must not be `None`")
_DEEPEST = 20


def checked(document: Any, model: str = "V1PodSpec") -> Any:
    """The document, with numbers changed to texts where Kubernetes expects texts (`"nvidia.com/gpu" = 1`).

    Raises `ValueError` with the path of what is wrong.
    """
    return _value(document, model, "", 0)


def _value(value: Any, kind: str, path: str, depth: int) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"{path} is nested too deep")
    if found := _LIST.fullmatch(kind):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{path} is a list of {_words(found[1])}")
        return [_value(each, found[1], f"{path}[{index}]", depth + 1) for index, each in enumerate(value)]
    if found := _DICT.fullmatch(kind):
        if not isinstance(value, Mapping):
            raise ValueError(f"{path} is a table of {_words(found[1])}")
        return {name: _entry(each, found[1], f"{path}.{name}", depth + 1) for name, each in value.items()}
    if kind in _PLAIN:
        type_, words = _PLAIN[kind]
        if not isinstance(value, type_) or (type_ is int and isinstance(value, bool)):
            raise ValueError(f"{path} is {words}, not {value!r:.50}")
        return value
    model = getattr(client, kind, None)
    return _any(value, path, depth) if model is None else _object(value, model, path, depth)


def _entry(value: Any, kind: str, path: str, depth: int) -> Any:
    """A text; a number becomes one, since users of TOML write quantities and labels as numbers."""
    if kind == "str" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _value(value, kind, path, depth)


def _object(value: Any, model: Any, path: str, depth: int) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(  # noqa: TRY004 - what pydantic takes
            f"{path or 'it'} is a table with keys such as {', '.join(sorted(model.attribute_map.values())[:3])}"
        )
    attributes = {name: attribute for attribute, name in model.attribute_map.items()}
    found = {}
    for name, each in value.items():
        below = f"{path}.{name}" if path else str(name)
        if name not in attributes:
            raise ValueError(f"{below:.200}: Kubernetes has no such field{_instead(name, attributes)}")
        found[name] = _value(each, model.openapi_types[attributes[name]], below, depth + 1)
    for name in _missing(model, {attributes[name]: each for name, each in found.items()}):
        raise ValueError(f"{path}.{name} is missing")
    return found


def _missing(model: Any, given: Mapping[str, Any]) -> Iterator[str]:
    """The first required field that is missing: the client reports it when an object is made."""
    try:
        model(**given)
    except ValidationError as error:  # as of client 36
        yield from (
            str(each["loc"][-1]) for each in error.errors() if each["type"] == "missing" and len(each["loc"]) == 1
        )
    except ValueError as error:
        if absent := _REQUIRED.search(str(error)):
            yield str(model.attribute_map[absent[1]])


def _any(value: Any, path: str, depth: int) -> Any:
    """A value where Kubernetes takes a number, a text or other types."""
    if isinstance(value, Mapping):
        return {str(name): _value(each, "object", f"{path}.{name}", depth + 1) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_value(each, "object", f"{path}[{index}]", depth + 1) for index, each in enumerate(value)]
    if not isinstance(value, str | int):
        raise ValueError(f"{path} is a text or a whole number, not {value!r:.50}")  # noqa: TRY004
    return value


def _words(kind: str) -> str:
    return {"str": "texts", "int": "numbers"}.get(kind, "tables")


def _instead(name: object, attributes: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(str(name), attributes, n=1)
    return f"; do you mean {close[0]!r}?" if close else ""

"""A faster `__init__` for frozen dataclasses, because four instances are made for each task."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

_Value = TypeVar("_Value")


def quick_init(cls: type[_Value]) -> type[_Value]:
    """Give a frozen dataclass an `__init__` of the same signature at half the cost.

    The `__init__` that `dataclass` writes looks up each slot by its name in every call; this one looks them up once.
    """
    parameters, body, scope = ["self"], [], dict[str, Any](_missing=MISSING)
    for each in fields(cls):  # type: ignore[arg-type]
        name = value = each.name
        scope[f"_set_{name}"] = getattr(cls, name).__set__
        if each.default_factory is not MISSING:
            scope[f"_make_{name}"] = each.default_factory
            parameters.append(f"{name}=_missing")
            value = f"_make_{name}() if {name} is _missing else {name}"
        elif each.default is not MISSING:
            scope[f"_default_{name}"] = each.default
            parameters.append(f"{name}=_default_{name}")
        else:
            parameters.append(name)
        body.append(f"    _set_{name}(self, {value})\n")
    exec(f"def __init__({', '.join(parameters)}):\n{''.join(body)}", scope)  # noqa: S102 - as `dataclass` does
    init = scope["__init__"]
    init.__annotations__, init.__module__ = cls.__init__.__annotations__, cls.__module__
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    cls.__init__ = init  # type: ignore[method-assign]
    return cls

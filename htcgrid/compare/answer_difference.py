"""Whether two results agree, and where they do not."""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from htcgrid.runtime.parsing import parsed
from htcgrid.spi import Result

_SHOWN = 80


def difference(one: Result | None, other: Result | None, rel_tol: float = 0.0) -> str:
    """The difference as text, `one | other`; empty where outcome, kind of error and answer agree."""
    if one is None or other is None:
        return f"{_there(one)} | {_there(other)}"
    if one.outcome.failure is not other.outcome.failure:
        return f"{one.outcome.failure or 'succeeded'} | {other.outcome.failure or 'succeeded'}"
    first, second = _value(one.outcome.payload), _value(other.outcome.payload)
    if one.outcome.failure is not None:
        types = [each.get("errorType") if isinstance(each, dict) else None for each in (first, second)]
        return "" if types[0] == types[1] else f"{one.outcome.failure}: {types[0]} | {types[1]}"
    return next(_differences(first, second, rel_tol, "answer"), "")


def _there(result: Result | None) -> str:
    return "no result" if result is None else str(result.outcome.failure or "succeeded")


def _value(payload: bytes) -> Any:
    """The document, or the bytes where it is none."""
    try:
        return parsed(payload)
    except ValueError:
        return payload


def _differences(one: Any, other: Any, rel_tol: float, place: str) -> Iterator[str]:
    if _is_number(one) and _is_number(other):
        if not _is_close(one, other, rel_tol):
            yield _side_by_side(place, one, other)
    elif type(one) is not type(other):
        yield _side_by_side(place, one, other)
    elif isinstance(one, dict):
        yield from _differences_of_objects(one, other, rel_tol, place)
    elif isinstance(one, list):
        if len(one) != len(other):
            yield f"{place}: {len(one)} | {len(other)} elements"
        for number, (first, second) in enumerate(zip(one, other, strict=False)):
            yield from _differences(first, second, rel_tol, f"{place}[{number}]")
    elif one != other:
        yield _side_by_side(place, one, other)


def _differences_of_objects(one: dict[str, Any], other: dict[str, Any], rel_tol: float, place: str) -> Iterator[str]:
    for name in sorted(one.keys() | other.keys()):
        if name in one and name in other:
            yield from _differences(one[name], other[name], rel_tol, f"{place}.{name}")
        else:
            yield f"{place}.{name}: {'there | missing' if name in one else 'missing | there'}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_close(one: float, other: float, rel_tol: float) -> bool:
    if one == other or (one != one and other != other):  # noqa: PLR0124 - NaN
        return True
    try:
        return rel_tol > 0 and math.isclose(one, other, rel_tol=rel_tol)
    except OverflowError:  # an integer that is larger than any float
        if not (isinstance(one, int) and isinstance(other, int)):
            return False
        return Fraction(abs(one - other), max(abs(one), abs(other))) <= rel_tol


def _side_by_side(place: str, one: Any, other: Any) -> str:
    return f"{place}: {_short(one)} | {_short(other)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."

"""Parses JSON from other programs: every error in it is a `ValueError`."""

import json
from typing import Any, NoReturn


def parsed(document: bytes | str, *, strict: bool = False) -> Any:
    """The value of a document. Raises `ValueError` where it is not JSON, or is nested too deeply to be read.

    With `strict`, NaN and Infinity are refused, which Python writes and reads and JSON does not have.
    """
    try:
        return json.loads(document, parse_constant=_refuse if strict else None)
    except RecursionError:
        raise ValueError("it is nested too deeply to be read") from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")

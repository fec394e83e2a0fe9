"""Between values and columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import islice

from htcgrid.runtime.parsing import parsed

SHARED = 256
"""The tasks of a session mostly have the same attributes: so many are kept, as JSON costs ten times a look-up."""


def text_of(attributes: Mapping[str, str]) -> str | None:
    return _encoded(tuple(attributes.items())) if attributes else None


def attributes_of(text: str | None) -> Mapping[str, str]:
    return dict(_decoded(text)) if text else {}


def named(ids: Collection[str]) -> str:
    """`'a', 'b' and 3 more`: at most five ids."""
    shown = ", ".join(ascii(task_id) for task_id in islice(ids, 5))
    return f"{shown} and {len(ids) - 5} more" if len(ids) > 5 else shown


@lru_cache(SHARED)
def _encoded(items: tuple[tuple[str, str], ...]) -> str:
    return json.dumps(dict(items))


@lru_cache(SHARED)
def _decoded(text: str) -> dict[str, str]:
    return dict(parsed(text))

"""Between values and columns."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from itertools import islice


def text_of(attributes: Mapping[str, str]) -> str | None:
    return json.dumps(dict(attributes)) if attributes else None


def attributes_of(text: str | None) -> Mapping[str, str]:
    return dict(json.loads(text)) if text else {}


def named(ids: Collection[str]) -> str:
    """`'a', 'b' and 3 more`: at most five ids."""
    shown = ", ".join(ascii(task_id) for task_id in islice(ids, 5))
    return f"{shown} and {len(ids) - 5} more" if len(ids) > 5 else shown

"""What a user may write for any key of any table: each is refused with a sentence, or it works.

pytest.mark.parametrize(("model", "key", "value"), odd_values(SomePlugin.Config))
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

NUMBERS = [0, 1, -1, 0.5, -0.0, 1e-300, 1e300, 10**30, -(10**30), 2**31, 2**63, math.inf, -math.inf, math.nan]
TEXTS = ["", " ", "0", "-1", "5", "nan", "inf", "1e999", "x" * 300, "y" * 100_000, "a\0b", "\n", "\x1b[31m", "é", "💥"]
PATHS = [".", "..", "/", "-", "/dev/null", "missing/below", "/missing/above", "d/" * 3000, "~", "a" * 256, "a=b"]
OTHERS = [True, False, [], [[]], [""], ["a\0"], [1], {}, {"": ""}, {"a": "b"}, {"a\0": "b"}, {"a": 1}, {"a=": "b"}]


def odd_values(*models: type[BaseModel]) -> Iterator[tuple[type[BaseModel], str, Any]]:
    """Every key of these models with every odd value."""
    for model in models:
        for key, field in model.model_fields.items():
            for value in (*NUMBERS, *TEXTS, *PATHS, *OTHERS):
                yield model, field.alias or key, value


def needed(model: type[BaseModel]) -> dict[str, Any]:
    """A plain value for every key that must be given."""
    return {
        field.alias or key: 1 if field.annotation in {int, float} else "x"
        for key, field in model.model_fields.items()
        if field.is_required()
    }

"""Tables of the config file: what every `Config` of a plugin, and `[function]`, refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator


class Keys(BaseModel):
    """A table of the config file. Unknown keys and unusable values are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _may_be_looked_at(cls, value: Any, info: ValidationInfo) -> Any:
        kinds = list(_kinds(cls.model_fields[info.field_name or ""].annotation))
        if isinstance(value, bool) and (int in kinds or float in kinds) and bool not in kinds:
            raise ValueError("this must be a number")
        if Path in kinds and isinstance(value, str | Path):
            longest = max(map(len, map(os.fsencode, Path(value).parts)), default=0)
            if longest > 255 or len(os.fsencode(value)) > 4000:
                raise ValueError("it is longer than a path may be: 255 bytes a name, 4000 in all")
        return value

    @field_validator("*")
    @classmethod
    def _is_usable(cls, value: Any) -> Any:
        for text in texts_of(value):
            if "\0" in text:
                raise ValueError("it holds a NUL character, which no file, variable or program can take")
            if len(text) > MAX_TEXT:
                raise ValueError(f"it is {len(text)} characters long; {MAX_TEXT} are the most")
        return value


def _kinds(annotation: Any) -> Iterator[Any]:
    """A type and all types that it contains, such as `Path` in `FilePath | None`."""
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


MAX_TEXT = 32_768
"""Characters that one text in the config may have."""


def texts_of(value: Any) -> Iterator[str]:
    """Every text in a value of the config."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from texts_of(key)
            yield from texts_of(inner)
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from texts_of(inner)

"""Which values of a config are secret: they are never printed, and never sent to where others may read them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, Secret, SecretBytes, SecretStr

_TYPES = (Secret, SecretStr, SecretBytes)
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_NAMES = re.compile(r"passw|secret|token|credential|private|api_?key|access_?key|environ", re.IGNORECASE)


def may_show(key: str, value: Any, annotation: Any) -> bool:
    """Whether an error may quote the value of this key: a number, or a text that is not and does not hold a secret."""
    if not isinstance(value, str | int | float) or has_password(value) or _NAMES.search(key):
        return False
    return not is_secret_type(annotation)


def is_secret_type(annotation: Any) -> bool:
    """Whether a field holds a secret: `SecretStr`, `SecretStr | None`, `tuple[SecretStr, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, _TYPES):
        return True
    return any(is_secret_type(part) for part in get_args(annotation))


def has_password(value: Any) -> bool:
    """Whether this is an address with a user or a password in it, as `redis://user:password@host`."""
    if not isinstance(value, str) or not _ADDRESS.match(value):
        return False
    return "@" in value if not _is_address(value) else "@" in urlsplit(value).netloc


def secrets_of(config: BaseModel) -> Iterator[str]:
    """The keys of a plugin's config, as `url` or `autoscale.queue_url`, whose values are secret."""
    for name, value in config:
        yield from _within(name, value)


def _within(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, _TYPES):
        content = value.get_secret_value()
        # An address is a secret for the password in it; without one it may be seen.
        if content and (has_password(content) or not _ADDRESS.match(str(content))):
            yield name
    elif isinstance(value, BaseModel):
        for inner, each in value:
            yield from _within(f"{name}.{inner}", each)
    elif isinstance(value, Mapping):
        for inner, each in value.items():
            yield from _within(f"{name}.{inner}", each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _within(name, each)
    elif has_password(value):
        yield name


def _is_address(value: str) -> bool:
    try:
        urlsplit(value)
    except ValueError:
        return False
    return True


def concealed(value: Any) -> Any:
    """A value or table that came from a variable, wrapped so that dumps and `repr` do not show it."""
    if isinstance(value, Mapping):
        return {name: each if name == "plugin" else concealed(each) for name, each in value.items()}
    return Secret[Any](value)


def revealed(value: Any) -> Any:
    """The opposite of `concealed`."""
    if isinstance(value, Mapping):
        return {name: revealed(each) for name, each in value.items()}
    return value.get_secret_value() if isinstance(value, Secret) else value


def without_concealed(value: Any) -> Any:
    """A table without what was concealed in it."""
    if isinstance(value, Mapping):
        return {name: without_concealed(each) for name, each in value.items() if not isinstance(each, Secret)}
    return value


def concealed_keys(value: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys of what was concealed in a table, as `source.password`."""
    for name, each in value.items():
        if isinstance(each, Secret):
            yield f"{above}{name}"
        elif isinstance(each, Mapping):
            yield from concealed_keys(each, f"{above}{name}.")

"""`--set KEY=VALUE` on the command line, as settings nested as the config file is."""

import tomllib
from collections.abc import Iterable
from typing import Any

from htcgrid.config_errors import ConfigError


def flags_of(pairs: Iterable[str], option: str = "--set", example: str = "function.timeout=5") -> dict[str, Any]:
    """`["source.path=t.jsonl", "function.timeout=5"]` as a nested dict; values are TOML, else text. `option` is what they were
    given with. Raises `ConfigError`."""
    flags: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(
                f"{option} {_pair(key, equals, text)}: write it as KEY=VALUE, for example {option} {example}."
            )
        *tables, last = key.strip().split(".")
        table = flags
        for name in tables:
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                raise ConfigError(
                    f"{option} {_pair(key, equals, text)}: another {option} gives {name!r} itself a value."
                )
        table[last] = _value(text)
    return flags


def shown_pair(pair: str) -> str:
    """A `KEY=VALUE` as it may be shown to the user again: a value that may be a secret is left out."""
    key, equals, text = pair.partition("=")
    return pair if key.rpartition(".")[2] in _SHOWN_AGAIN else _pair(key, equals, text)


_SHOWN_AGAIN = frozenset({"plugin", "path", "id_field", "queue", "table", "bucket", "prefix", "drain"})


def _pair(key: str, equals: str, text: str) -> str:
    """The pair as it was written, without a text, which may be a secret."""
    return f"{key}{equals}{'...' if isinstance(_value(text), str) and text else text}"


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text

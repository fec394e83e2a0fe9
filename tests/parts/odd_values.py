"""What a user may write for any key of any table: it is refused with a sentence, or it works.

A test of a distribution's plugins:

    @pytest.mark.parametrize(("table", "beside", "key"), list(odd_values.keys_of("htcgrid-mine")))
    def test_every_key(table, beside, key): odd_values.check(table, beside, key)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from htcgrid import config, plugins
from htcgrid.cli.check import _problems
from htcgrid.spi import Invoker, Plugin, ResultSink, TaskSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

NUMBERS = [0, 1, -1, 0.5, -0.0, 1e-300, 1e300, 10**30, -(10**30), 2**31, 2**63, math.inf, -math.inf, math.nan]
TEXTS = ["", " ", "0", "-1", "5", "nan", "inf", "1e999", "x" * 300, "y" * 100_000, "a\0b", "\n", "\x1b[31m", "é", "💥"]
PATHS = [".", "..", "/", "-", "/dev/null", "missing/below", "/missing/above", "d/" * 3000, "~", "a" * 256, "a=b"]
OTHERS = [True, False, [], [[]], [""], ["a\0"], [1], {}, {"": ""}, {"a": "b"}, {"a\0": "b"}, {"a": 1}, {"a=": "b"}]

TABLES: dict[type[Plugin], str] = {Invoker: "planes.local", TaskSource: "source", ResultSink: "sink"}
WHOLE = {
    "function": {"handler": "job.handler"},
    "source": {"plugin": "memory"},
    "sink": {"plugin": "memory"},
    "planes": {"local": {"plugin": "process"}},
}


def keys_of(distribution: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Every key of every plugin that this distribution brings: its table, what must stand beside it, its name."""
    for kind, table in TABLES.items():
        for found in plugins.installed(kind):
            if found.distribution == distribution:
                model = plugins.load(kind, found.name).Config
                for key, field in model.model_fields.items():
                    yield table, {"plugin": found.name, **_needed(model)}, field.alias or key
                yield table, {"plugin": found.name}, "plugin"


def check(table: str, beside: dict[str, Any], key: str) -> None:
    """All odd values of one key, in a folder of its own: a file that must be there is."""
    Path("x").write_text("{}")
    for value in (*NUMBERS, *TEXTS, *PATHS, *OTHERS):
        said = _problem(_written(table, beside, key, value))
        assert "Traceback" not in said
        assert len(said) < 5000, f"{key} = {str(value)[:20]}: that is no sentence but {len(said)} characters"
        if said and not (key == "plugin" and "named" in said):
            assert key in said, f"{value!r} is refused, but the key is not named: {said}"
        unusable = (isinstance(value, float) and not math.isfinite(value)) or (isinstance(value, str) and "\0" in value)
        assert said or not unusable, f"{key} = {value!r} is accepted"


def _needed(model: type[BaseModel]) -> dict[str, Any]:
    """A plain value for every key that must be given."""
    return {
        field.alias or key: 1 if field.annotation in {int, float} else "x"
        for key, field in model.model_fields.items()
        if field.is_required()
    }


def _written(table: str, beside: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The whole config with this one value in its place."""
    nested: Any = {**beside, key: value}
    for name in reversed(table.split(".") if table else []):
        nested = {name: nested}
    return {**WHOLE, **nested}


def _problem(document: dict[str, Any]) -> str:
    """What `check` says of it; nothing where it is accepted. Any exception but its own ends the test."""
    try:
        grid = config.read(None, document)
        wrong = [str(error) for _, error in _problems(grid, [], really=False) if error]
    except config.ConfigError as error:
        wrong = [str(error)]
    return "\n".join(wrong)

"""Every key with everything that a user may write: refused with a sentence, or it works."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_spec = importlib.util.spec_from_file_location("odd_values", Path(__file__).parents[3] / "tests/parts/odd_values.py")
assert _spec is not None
assert _spec.loader is not None
odd_values = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(odd_values)


@pytest.mark.parametrize(
    ("table", "beside", "key"), list(odd_values.keys_of("htcgrid-aws")), ids=lambda part: str(part)[:40]
)
def test_every_key_takes_or_refuses_with_a_sentence(
    table: str, beside: dict[str, Any], key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    odd_values.check(table, beside, key)

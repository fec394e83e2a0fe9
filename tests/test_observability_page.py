"""docs/observability.md has every observation and every metric, as the code has them, and its example works."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

from htcgrid import spi
from htcgrid.logs.line_format import FIELDS, JsonLines
from htcgrid.spi import Function, Observation, Observer, Outcome, Result, Stored, Task

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "observability.md"
HINT = "The page is stale. Run `make reference` and commit it."


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate_page", DOCS / "reference" / "generate_observability.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_observation_as_the_code_has_it(generate: Any) -> None:
    text = PAGE.read_text()
    assert generate.page(text, {"observations": generate.observations}) == text, HINT
    for kind in generate.kinds():
        assert f"| `{kind.__name__}` |" in text


def test_the_page_has_every_field_of_a_handlers_line(generate: Any) -> None:
    text = PAGE.read_text()
    assert generate.page(text, {"log fields": generate.log_fields}) == text, HINT
    line, _ = JsonLines()(None, "e-1", b"printed\n", "stdout")
    assert list(json.loads(line)) == list(FIELDS)
    assert all(f"| `{name}` |" in text for name in FIELDS)


@pytest.mark.slow  # it needs the plugin
def test_the_page_has_every_metric_as_the_code_has_it(generate: Any) -> None:
    text = PAGE.read_text()
    assert generate.page(text, generate.TABLES) == text, HINT


def test_every_observation_is_exported(generate: Any) -> None:
    from htcgrid.spi import observations  # noqa: PLC0415

    known = {each for each in vars(observations).values() if isinstance(each, type) and issubclass(each, Observation)}
    exported = {each for each in vars(spi).values() if isinstance(each, type) and issubclass(each, Observation)}
    assert known - exported == {observations.OfLeases}


def test_the_kit_has_every_observation(generate: Any) -> None:
    kit = pytest.importorskip("htcgrid_contracts.observer_rules")
    assert {type(each) for each in kit.run_of_an_agent()} == set(generate.kinds())


def test_the_observer_of_the_page_works(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = [code for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "(Observer)" in code]
    scope: dict[str, Any] = {}
    exec(code, scope)
    tally: Observer = scope["Tally"](Observer.Config(), Function())
    with tally:
        tally.observe([Observation(0.0), Stored(0.0, [Result(Task("1", b"1"), Outcome("1", b"1"))], 0.1)])
    assert capsys.readouterr().out == "{'succeeded': 1}\n"

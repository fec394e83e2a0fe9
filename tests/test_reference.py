"""docs/reference/config.md has every key, as the models that check the config have it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from htcgrid.agent.options import AgentOptions
from htcgrid.config import Settings

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
HINT = "The page is stale. Run `make reference` and commit it."


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate_reference", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_has_every_key_of_the_core_and_of_its_plugins(generate: Any) -> None:
    page = (FOLDER / "config.md").read_text()
    core = generate.distributions()[:1]
    missing = [line for part in (*generate.core(), *generate.plugins(core)) if (line := part.rstrip()) not in page]
    assert not missing, HINT


@pytest.mark.slow  # it needs every first-party plugin
def test_the_page_is_what_the_models_of_all_first_party_plugins_say(generate: Any) -> None:
    assert (FOLDER / "config.md").read_text() == generate.page(generate.distributions()), HINT


def test_a_key_without_a_description_is_refused(generate: Any) -> None:
    class Config(generate.BaseModel):  # type: ignore[misc]
        color: str = "red"

    with pytest.raises(SystemExit, match="color has no description"):
        list(generate.table("## Paint", Config))


def test_bounds_and_types_are_written_as_a_reader_of_toml_calls_them(generate: Any) -> None:
    assert "| `linger` | number, 0 to 60 | `0.05` |" in "\n".join(generate.table("## A", AgentOptions))
    assert "| `functions` | table of tables |" in "\n".join(generate.table("## A", Settings))

"""Every public method of the interface has a rule of the kit, and that rule a plugin that breaks it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from htcgrid import spi

HERE = Path(__file__).parent
KIT = HERE.parents[1] / "contracts" / "htcgrid_contracts"

BY_COMMANDS = {
    "Deployable": "needs a service to deploy to: the tests of each plane and of the commands",
    "ImageBuilder": "needs an engine: the tests of `htcgrid build`",
}


def methods() -> list[str]:
    kinds = (spi.Plugin, spi.TaskSource, spi.Invoker, spi.ResultSink, spi.Observer, spi.TaskQueue, spi.ResultStore)
    return [
        f"{kind.__name__}.{name}"
        for kind in kinds
        for name, value in vars(kind).items()
        if not name.startswith("_") and name != "Config" and (callable(value) or isinstance(value, property))
    ]


@pytest.fixture(scope="module")
def rules() -> dict[str, str]:
    """Each rule of the kit with its docstring, which says what to read."""
    text = "".join(file.read_text() for file in KIT.glob("*.py"))
    return dict(re.findall(r'def (test_\w+)\([^"]*?"""(.*?)"""', text, re.DOTALL))


@pytest.fixture(scope="module")
def broken() -> set[str]:
    return set(re.findall(r'breaks = "(test_\w+)"', "".join(file.read_text() for file in HERE.glob("broken_*.py"))))


@pytest.mark.parametrize("method", methods())
def test_a_method_has_a_rule_and_a_plugin_that_breaks_it(method: str, rules: dict[str, str], broken: set[str]) -> None:
    about = [name for name, text in rules.items() if re.search(rf"spi\.{method}\b", text)]
    assert set(about) & broken


def test_there_are_four_protocols_and_no_other() -> None:
    protocols = {name for name, value in vars(spi).items() if getattr(value, "_is_protocol", False)}
    assert protocols == {"TaskQueue", "ResultStore", *BY_COMMANDS}


def test_every_kind_of_failure_is_in_the_table_and_has_a_rule(rules: dict[str, str]) -> None:
    assert set(spi.FAILURES) == set(spi.FailureKind)
    text = "".join(file.read_text() for file in KIT.glob("*.py"))
    assert [kind.name for kind in spi.FailureKind if f"FailureKind.{kind.name}" not in text] == []


def test_the_specification_is_one_page() -> None:
    page = Path(spi.interfaces.__file__)
    assert len(page.read_text().splitlines()) < 200

"""The kit bites: each broken plugin is caught by the rule that it breaks, in the words that it should be."""

import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
from htcgrid_contracts import AgentContract, InvokerContract, ObserverContract, ResultSinkContract, TaskSourceContract
from htcgrid_contracts.connection_rules import ConnectionRules
from htcgrid_contracts.network_rules import NetworkRules

# The first test waits for all rooms: some 450 broken plugins, and 7 good ones that are asked everything. That takes 5 minutes
# where nothing else runs.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

HERE = Path(__file__).parent
ROOMS = {
    "broken_sources": TaskSourceContract,
    "broken_sinks": ResultSinkContract,
    "broken_invokers": InvokerContract,
    "broken_network": ConnectionRules,
    "broken_connections": NetworkRules,
    "broken_agent": AgentContract,
    "broken_observers": ObserverContract,
}
PIECES = {"broken_invokers": 3, "broken_sources": 2}
"""Rooms that take long, and how many processes share one."""


def _load(name: str) -> ModuleType:
    spec = spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PLUGINS = {room: {name: case for name, case in vars(_load(room)).items() if name.startswith("Test")} for room in ROOMS}
CASES = [
    (room, name, case.breaks, case.says)
    for room, cases in PLUGINS.items()
    for name, case in cases.items()
    if case.breaks
]


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str, str], str]:
    """What the kit says of each broken plugin: class and rule to its words, "" where it held."""
    folder = tmp_path_factory.mktemp("verdicts")

    def ask(piece: tuple[str, int]) -> tuple[str, Path]:
        room, number = piece
        report = folder / f"{room}{number}.xml"
        names = list(PLUGINS[room])[number :: PIECES.get(room, 1)]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={report}"]
        with report.with_suffix(".log").open("w") as log:
            subprocess.run(
                [*command, *(f"{HERE / room}.py::{name}" for name in names)], stdout=log, stderr=log, check=False
            )
        return room, report

    pieces = [(room, number) for room in ROOMS for number in range(PIECES.get(room, 1))]
    pieces.sort(key=lambda piece: piece[0] not in PIECES)  # what takes long begins first
    found: dict[tuple[str, str, str], str] = {}
    with ThreadPoolExecutor(6) as threads:
        reports = list(threads.map(ask, pieces))
    for room, report in reports:
        for case in ET.parse(report).iter("testcase"):
            rule = case.attrib["name"].partition("[")[0]
            key = room, case.attrib["classname"].rpartition(".")[2], rule
            words = [
                each.attrib.get("message", "") + (each.text or "") for each in case if each.tag in {"failure", "error"}
            ]
            found[key] = found.get(key, "") + "".join(words)
    return found


@pytest.mark.parametrize(("room", "case", "rule", "says"), CASES, ids=str)
def test_a_broken_plugin_is_caught_by_its_rule(
    verdicts: Mapping[tuple[str, str, str], str], room: str, case: str, rule: str, says: str
) -> None:
    words = verdicts[room, case, rule]
    assert words, f"{case} breaks {rule}, and the kit did not see it"
    assert says in words


@pytest.mark.parametrize("room", ROOMS)
def test_the_reference_that_the_broken_plugins_start_from_holds_every_rule(
    verdicts: Mapping[tuple[str, str, str], str], room: str
) -> None:
    reference = {
        rule: words for (where, case, rule), words in verdicts.items() if where == room and "Reference" in case
    }
    broken = {rule: words for rule, words in reference.items() if words}
    assert reference
    assert broken == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_rule_has_a_plugin_that_breaks_it(room: str) -> None:
    rules = {name for name in dir(ROOMS[room]) if name.startswith("test_")}
    everywhere = {rule for _, _, rule, _ in CASES}
    assert rules - everywhere == set()

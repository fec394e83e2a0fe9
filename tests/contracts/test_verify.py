"""`htcgrid verify`, as a plugin's author runs it."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from venv_for_plugins import Venv

from htcgrid.cli import verify
from htcgrid.spi import Rejected


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return Venv(tmp_path_factory.mktemp("venv"))


def test_every_rule_is_told_and_written_as_json_and_junit(venv: Venv, tmp_path: Path) -> None:
    arguments = ["verify", "sqlite", "--kind", "result-sink", "--option", "path={tmp}/grid.db"]
    verified = venv.htcgrid(*arguments, "--json", "v.json", "--junit", "v.xml", cwd=tmp_path)
    assert verified.returncode == 0
    document = json.loads((tmp_path / "v.json").read_text())
    assert (document["plugin"], document["kind"]) == ("sqlite", "result-sink")
    rules = {rule["test"]: rule for rule in document["rules"]}
    stored = rules["test_a_result_is_stored"]
    assert (stored["verdict"], stored["read"]) == ("held", "spi.ResultSink.put")
    too_large = rules["test_a_result_too_large_is_rejected_by_name_and_the_others_are_stored"]
    assert (too_large["verdict"], too_large["why"]) == (
        "not asked",
        "set `too_large`: the bytes of a payload that the sink can never store",
    )
    cases = list(ET.parse(tmp_path / "v.xml").iter("testcase"))
    assert {case.attrib["name"] for case in cases} == set(rules)
    lines = verified.stdout.splitlines()
    assert "held       a result is stored" in lines
    held = sum(rule["verdict"] == "held" for rule in rules.values())
    assert lines[-1] == f"{held} rules held, 0 broken, {len(rules) - held} not asked"


def test_a_rule_that_cannot_be_asked_is_broken_when_strict(venv: Venv, tmp_path: Path) -> None:
    arguments = ["verify", "sqlite", "--kind", "result-sink", "--option", "path={tmp}/grid.db"]
    assert venv.htcgrid(*arguments, "--strict", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["no_such_plugin"], "There is no plugin named 'no_such_plugin'. Installed: "),
        (["sqlite"], "say which with --kind task-source or --kind result-sink"),
        (["process", "--option", "worker=2"], "worker: there is no such key. Did you mean workers?"),
        (["jsonl", "--kind", "task-source", "--option", "path=no-such.jsonl"], "there is no such file"),
    ],
)
def test_wrong_usage_is_told_before_any_rule_is_asked(
    venv: Venv, tmp_path: Path, arguments: list[str], says: str
) -> None:
    refused = venv.htcgrid("verify", *arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert says in refused.stderr
    assert refused.stdout == ""


def test_a_place_that_holds_tasks_is_not_emptied_unasked(venv: Venv, tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text('{"mine": 1}\n')
    arguments = ["verify", "jsonl", "--kind", "task-source", "--option", "path=tasks.jsonl"]
    refused = venv.htcgrid(*arguments, cwd=tmp_path)
    assert refused.returncode == 1
    assert "or let it empty this one with --drain" in refused.stdout


def test_without_the_kit_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "entry_points", lambda **_: [])
    assert verify.command.callback is not None
    with pytest.raises(Rejected, match="pip install htcgrid-contracts"):
        verify.command.callback("process", None, (), 1.0, False, None, None, False)

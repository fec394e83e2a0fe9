"""`htcgrid compare`: the same events on two planes."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from htcgrid.compare.answer_difference import difference
from htcgrid.spi import FailureKind, Outcome, Result, Task

if TYPE_CHECKING:
    from conftest import Project


def result(payload: bytes, failure: FailureKind | None = None) -> Result:
    return Result(Task("t", b""), Outcome("t", payload, failure))


@pytest.mark.parametrize(
    ("one", "other", "rel_tol", "said"),
    [
        (b'{"a": 1, "b": [2]}', b'{"b": [2.0], "a": 1}', 0, ""),
        (b"0.6", b"0.6000000000000001", 0, "answer: 0.6 | 0.6000000000000001"),
        (b"0.6", b"0.6000000000000001", 1e-12, ""),
        (b"1" + b"0" * 400, b"1" + b"0" * 399 + b"1", 1e-12, ""),
        (b"1" + b"0" * 400, b"1.5", 1e-12, f"answer: 1{'0' * 79}... | 1.5"),
        (b"true", b"1", 0, "answer: True | 1"),
        (b"NaN", b"NaN", 0, ""),
        (b'{"a": 1}', b"{}", 0, "answer.a: there | missing"),
        (b"[1]", b"[1, 2]", 0, "answer: 1 | 2 elements"),
        (b"not json", b"not json", 0, ""),
    ],
)
def test_answers_agree_where_their_values_do(one: bytes, other: bytes, rel_tol: float, said: str) -> None:
    assert difference(result(one), result(other), rel_tol) == said


def test_failures_agree_where_kind_and_type_do() -> None:
    error = result(b'{"errorType": "E", "errorMessage": "at 0x1"}', FailureKind.HANDLER_ERROR)
    same = result(b'{"errorType": "E", "errorMessage": "at 0x2"}', FailureKind.HANDLER_ERROR)
    other = result(b'{"errorType": "F"}', FailureKind.HANDLER_ERROR)
    assert difference(error, same) == ""
    assert difference(error, other) == "handler_error: E | F"
    assert difference(error, result(b"1")) == "handler_error | succeeded"
    assert difference(error, None) == "handler_error | no result"


def test_two_planes_that_agree_are_exit_code_0_and_put_nothing_into_the_sink(project: Project) -> None:
    project.write("job.py", "def handler(event, context):\n    return 1 / (event - 3)\n")
    project.tasks(*range(1, 7))
    done = project.htcgrid("compare", "--planes", "local,single", "--junit", "report.xml")
    assert done.status == 0, done.err
    assert done.out.count("same   ") == 6
    assert "6 events, 0 differ  (local | single)" in done.out
    assert project.results() == []
    suite = ET.parse(project.folder / "report.xml").getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("6", "0")


def test_events_are_not_replaced_by_the_report_of_a_comparison(project: Project) -> None:
    before = (project.folder / "tasks.jsonl").read_bytes()
    done = project.htcgrid("compare", "--planes", "local,single", "--junit", "tasks.jsonl")
    assert done.status == 2
    assert "tasks.jsonl: this file is read, and would be replaced. Name another file." in done.err
    assert (project.folder / "tasks.jsonl").read_bytes() == before


def test_events_that_differ_are_named_with_exit_code_1(project: Project) -> None:
    project.write("other.jsonl", "1\n2\n3\n4\n")
    # The one worker of a plane sees all four events, each of the other's four sees one: a difference between planes.
    project.write(
        "job.py",
        "import time\nseen = []\ndef handler(event, context):\n    seen.append(1)\n    time.sleep(0.2)\n"
        "    return len(seen) > 3\n",
    )
    many = "planes.many={plugin='process',workers=4}"
    arguments = ("compare", "--planes", "many,single", "other.jsonl", "--set", many)
    done = project.htcgrid(*arguments, "--json", "--junit", "report.xml")
    events = [json.loads(line) for line in done.out.splitlines()]
    assert done.status == 1
    assert len(events) == 4
    differing = [event for event in events if not event["agrees"]]
    assert [event["difference"] for event in differing] == ["answer: False | True"]
    assert set(differing[0]["duration_ms"]) == {"many", "single"}
    assert len(ET.parse(project.folder / "report.xml").getroot().findall("testcase/failure")) == 1


def test_planes_that_are_not_two_or_not_there_are_refused(project: Project) -> None:
    for planes, said in (("local", "name two planes"), ("local,nowhere", "[planes] has only")):
        done = project.htcgrid("compare", "--planes", planes)
        assert (done.status, said in done.err) == (2, True)


def test_a_pipe_is_refused_as_two_planes_read_the_events(project: Project) -> None:
    os.mkfifo(project.folder / "events")
    done = project.htcgrid("compare", "--planes", "local,single", "events")
    assert done.status == 2
    assert "A pipe can be read only once" in done.err

"""`_X_AMZN_TRACE_ID`: the caller's trace, or one of the invocation's own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Outcome, Task

VALID = re.compile(r"Root=1-[0-9a-f]{8}-[0-9a-f]{24};Parent=[0-9a-f]{16};Sampled=[01]")
GIVEN = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
HANDLER = "import os\n\ndef handler(event, context):\n    return os.environ.get('_X_AMZN_TRACE_ID')\n"


@pytest.fixture(scope="module", params=["socket", "http"])
def plane(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessInvoker]:
    folder = tmp_path_factory.mktemp("code")
    (folder / "work.py").write_text(HANDLER)
    config = ProcessInvoker.Config(workers=1, transport=request.param)
    with ProcessInvoker(config, Function(handler="work.handler", code=folder)) as opened:
        yield opened


def traces(plane: ProcessInvoker, *attributes: dict[str, str]) -> list[str]:
    found = []
    for number, each in enumerate(attributes):
        [outcome] = plane.invoke([Lease(Task(f"t{number}", b"1", each))], 20.0)
        assert isinstance(outcome, Outcome)
        found.append(json.loads(outcome.payload))
    return found


def test_each_invocation_has_a_valid_trace_of_its_own(plane: ProcessInvoker) -> None:
    found = traces(plane, {}, {}, {"session_id": "s"})
    assert [text for text in found if not VALID.fullmatch(text)] == []
    assert len(set(found)) == 3


def test_the_trace_of_the_caller_is_passed_on_and_holds_for_that_invocation_alone(plane: ProcessInvoker) -> None:
    first, second, third = traces(
        plane,
        {"AWSTraceHeader": GIVEN},
        {"traceparent": "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"},
        {},
    )
    assert first == second == GIVEN
    assert third != GIVEN


@pytest.mark.parametrize("text", ["", "Root=2", "Root=1-5759e988-bd862e3fe1be46a994272793\r\nX: y", "00-00-00-00"])
def test_what_is_not_a_trace_is_not_passed_on(plane: ProcessInvoker, text: str) -> None:
    [found] = traces(plane, {"AWSTraceHeader": text, "traceparent": text})
    assert VALID.fullmatch(found)

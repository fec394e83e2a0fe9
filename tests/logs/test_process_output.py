"""The process plane hands over all that handlers print, whichever transport it has: each line once, with its task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from htcgrid_contracts.output_rules import KeptOutput

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime.output_lines import LINE_BYTES
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

HERE = Path(__file__).parent
Opened = Callable[..., "Plane"]


class Plane:
    """A process plane and what it has handed over."""

    def __init__(self, invoker: ProcessInvoker, kept: KeptOutput) -> None:
        self._invoker = invoker
        self.kept = kept
        self._made = 0

    def run(self, *events: dict[str, Any], timeout: float = 20.0) -> list[tuple[Lease, Outcome]]:
        batch = []
        for event in events:
            self._made += 1
            name = f"task-{self._made}"
            batch.append(Lease(Task(name, json.dumps({"name": name, **event}).encode())))
        outcomes: dict[str, Outcome] = {}
        while left := [lease for lease in batch if lease.task.id not in outcomes]:
            for report in self._invoker.invoke(left, timeout):
                if isinstance(report, Outcome):
                    outcomes[report.task_id] = report
        return [(lease, outcomes[lease.task.id]) for lease in batch]

    def printed(self, *events: dict[str, Any]) -> list[list[str]]:
        return [self.kept.lines(lease) for lease, _ in self.run(*events)]


@pytest.fixture(params=["socket", "http"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    with ExitStack() as stack:

        def make(**options: Any) -> Plane:
            function = Function(handler="printing.handler", code=HERE, timeout=20, memory=256, **options)
            invoker = ProcessInvoker(ProcessInvoker.Config(workers=1, transport=request.param), function)
            invoker.output = kept = KeptOutput()
            stack.enter_context(invoker)
            return Plane(invoker, kept)

        yield make


def numbered(name: str, count: int) -> list[str]:
    return [f"{name} line {number:07} {'.' * 20}" for number in range(count)]


def test_each_line_of_a_batch_is_of_the_task_that_printed_it(opened: Opened) -> None:
    printed = opened().printed(
        {"do": "lines", "count": 2},
        {"do": "silent"},
        {"do": "unended", "text": "has no end"},
        {"do": "child", "text": "of a child"},
        {"do": "error", "text": "on standard error"},
        {"do": "silent"},
        {"do": "lines", "count": 1},
    )
    expected: list[list[str]] = [numbered("task-1", 2), [], ["has no end"], ["of a child"], ["on standard error"], []]
    assert printed == [*expected, numbered("task-7", 1)]


def test_what_is_printed_while_the_module_is_loaded_is_of_no_task(opened: Opened) -> None:
    plane = opened()
    assert plane.printed({"do": "silent"}, {"do": "silent"}) == [[], []]
    assert b"".join(plane.kept.texts[None]) == b"loading\n"


def test_no_line_is_lost_where_tasks_print_more_than_a_pipe_holds(opened: Opened) -> None:
    plane = opened()
    events: list[dict[str, Any]] = [{"do": "lines", "count": 60_000}, {"do": "silent"}, {"do": "lines", "count": 3}]
    printed = plane.printed(*events * 2)
    assert [len(lines) for lines in printed] == [60_000, 0, 3] * 2
    assert printed[0] == numbered("task-1", 60_000)
    assert printed[3] == numbered("task-4", 60_000)


def test_many_small_tasks_keep_their_own_lines(opened: Opened) -> None:
    plane = opened()
    printed = plane.printed(*[{"do": "lines", "count": number % 3} for number in range(600)])
    assert printed == [numbered(f"task-{number + 1}", number % 3) for number in range(600)]


def test_what_a_killed_handler_printed_is_there_to_the_last_byte(opened: Opened) -> None:
    plane = opened()
    [(killed, outcome), (after, _)] = plane.run(
        {"do": "lines", "count": 9, "dies_behind": 4}, {"do": "lines", "count": 1}
    )
    assert outcome.failure is FailureKind.EXIT
    assert plane.kept.lines(killed) == [*numbered("task-1", 5), "task-1 is cut"]
    assert plane.kept.lines(after) == numbered("task-2", 1)
    assert outcome.log_tail.endswith(b"task-1 is cut")


def test_what_a_task_printed_before_its_timeout_is_handed_over(opened: Opened) -> None:
    plane = opened()
    [(hanging, outcome)] = plane.run({"do": "hang", "text": "about to hang"}, timeout=2.0)
    assert outcome.failure is FailureKind.TIMEOUT
    assert plane.kept.lines(hanging) == ["about to hang"]


def test_the_log_tail_is_the_same_as_without(opened: Opened) -> None:
    plane = opened()
    events: list[dict[str, Any]] = [{"do": "lines", "count": 300}, {"do": "silent"}, {"do": "unended", "text": "end"}]
    tails = [outcome.log_tail for _, outcome in plane.run({"do": "silent"}, *events)]
    assert tails[0] == b"loading\n"
    assert tails[1] == "".join(f"{line}\n" for line in numbered("task-2", 300)).encode()[-4096:]
    assert tails[2:] == [b"", b"end"]


def test_a_line_without_an_end_comes_in_parts_and_takes_no_more_memory(opened: Opened) -> None:
    plane = opened()
    [(lease, _)] = plane.run({"do": "long", "bytes": 8 * LINE_BYTES})
    parts = plane.kept.lines(lease)
    assert "".join(parts) == "y" * 8 * LINE_BYTES
    assert len(parts) > 1


def test_a_handler_whose_output_does_not_wait_keeps_its_lines(opened: Opened) -> None:
    printed = opened().printed({"do": "without_waiting", "text": "first"}, {"do": "lines", "count": 2})
    assert printed == [["first"], numbered("task-2", 2)]

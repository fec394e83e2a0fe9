"""Of a plane that does not hand over whole what handlers print, the ends are written, and it is said so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from htcgrid_contracts.output_rules import KeptOutput

from htcgrid.agent.log_tails import invoke_of, missing_output
from htcgrid.spi import Capability, Function, Invoker, Lease, Outcome, Plugin, Task, Unstarted


class Plane(Invoker):
    def __init__(self, *capabilities: Capability) -> None:
        super().__init__(Plugin.Config(), Function())
        self.capabilities = frozenset(capabilities)

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        for number, lease in enumerate(batch):
            yield Outcome(lease.task.id, b"1", log_tail=b"line %d\n" % number if number else b"", environment="e-1")
        yield Unstarted("another")


def test_the_ends_are_written_with_their_tasks_and_every_report_comes_through() -> None:
    plane = Plane(Capability.LOGS)
    plane.output = kept = KeptOutput()
    batch = [Lease(Task(f"t-{number}", b"{}"), 3) for number in range(3)]
    assert list(invoke_of(plane)(batch, 1.0)) == list(plane.invoke(batch, 1.0))
    assert [kept.lines(lease) for lease in batch] == [[], ["line 1"], ["line 2"]]
    assert kept.environments["t-1"] == {"e-1"}


@pytest.mark.parametrize("capabilities", [[Capability.LOGS], [Capability.LOGS, Capability.OUTPUT]])
def test_nothing_stands_between_where_nothing_is_wanted_or_all_is_handed_over(capabilities: list[Capability]) -> None:
    plane = Plane(*capabilities)
    if Capability.OUTPUT in capabilities:
        plane.output = KeptOutput()
    assert invoke_of(plane) == plane.invoke


def test_what_a_plane_leaves_out_is_said() -> None:
    assert missing_output(Plane(Capability.LOGS, Capability.OUTPUT)) == ""
    assert "only the last 4 KB" in missing_output(Plane(Capability.LOGS))
    assert "gives nothing of what handlers print" in missing_output(Plane())

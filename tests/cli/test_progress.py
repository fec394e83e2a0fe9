"""Progress is shown beside the work, and nothing that is wrong with it is wrong with the work."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

import pytest

from htcgrid.agent.agent import Agent
from htcgrid.builtin.memory import MemorySink, MemorySource
from htcgrid.cli.progress import Progress
from htcgrid.spi import Function, Invoker, Lease, Outcome, QueueStats, Unavailable, Unstarted


class Blind(MemorySource):
    def stats(self, *, brief: bool = False) -> QueueStats:
        raise Unavailable("The queue is away.")


class Idle(Invoker):
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        return ()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_source_that_cannot_tell_its_depth_now_is_shown_without_a_total(capfd: pytest.CaptureFixture[str]) -> None:
    function = Function(handler="a.b")
    source = Blind(Blind.Config(), function)
    agent = Agent(source, Idle(Idle.Config(), function), MemorySink(MemorySink.Config(), function))
    before = threading.active_count()
    with Progress(source).showing(agent):
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert "Traceback" not in capfd.readouterr().err

"""Events whose callers do not wait (`X-Amz-Invocation-Type: Event`), run by an agent of their own."""

from collections.abc import Callable, Sequence

from htcgrid.builtin.memory import MemorySource
from htcgrid.spi import Function, Plugin, Result, ResultSink


class EventQueue(MemorySource):
    """A queue that never ends."""

    def __init__(self, function: Function) -> None:
        super().__init__(MemorySource.Config(lease_seconds=3600), function)

    @property
    def exhausted(self) -> bool:
        return False


class EventSink(ResultSink):
    """Nobody reads the answer to an event; what failed for good is reported."""

    max_batch = 1000

    def __init__(self, function: Function, report: Callable[[str], None]) -> None:
        super().__init__(Plugin.Config(), function)
        self._report = report

    def put(self, results: Sequence[Result]) -> None:
        for result in results:
            if result.outcome.failure is not None:
                document = result.outcome.payload.decode(errors="replace")
                self._report(f"Event {result.task.id} failed after {result.attempt} tries: {document}")

"""Events whose callers do not wait (`X-Amz-Invocation-Type: Event`), run by an agent of their own."""

from collections.abc import Callable, Sequence

from htcgrid import plugins
from htcgrid.spi import Function, Plugin, Result, ResultSink, TaskSource


def event_queue(function: Function) -> TaskSource:
    """A queue in memory that never ends."""
    plugin = plugins.load(TaskSource, "memory")
    return plugin(plugin.Config.model_validate({"endless": True, "lease_seconds": 3600}), function)


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

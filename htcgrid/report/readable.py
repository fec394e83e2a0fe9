"""How the results of a sink are read for their figures."""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from htcgrid.spi import Rejected, Result, ResultSink


@runtime_checkable
class EveryResult(Protocol):
    """A sink that has no order to `scan`, or that reads figures faster without answers."""

    def every_result(self) -> Iterator[Result]:
        """Every result as it stands now, in any order, a few at a time in memory; answers and events may be left out."""


def lists_all(sink: ResultSink) -> bool:
    """Whether it gives every result; False where it gives its failures alone. `Rejected` where it gives neither."""
    if isinstance(sink, EveryResult) or sink.keeps_order:
        return True
    if not sink.lists_failures:
        raise Rejected(
            f"[sink] {type(sink).__name__} cannot list what it holds, so there is nothing to report on. jsonl and sqlite "
            "can; another plugin must have `scan` or `failed`."
        )
    return False


def read(sink: ResultSink) -> Iterator[Result]:
    """Its results, or its failures where it lists those alone."""
    if isinstance(sink, EveryResult):
        return sink.every_result()
    return (result for _, result in sink.scan()) if lists_all(sink) else sink.failed()

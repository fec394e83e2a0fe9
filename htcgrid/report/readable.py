"""How the results of a sink are read for their figures."""

from collections.abc import Iterator

from htcgrid.spi import Rejected, Result, ResultSink


def lists_all(sink: ResultSink) -> bool:
    """Whether it gives every result; False where it gives its failures alone. `Rejected` where it gives neither."""
    if sink.keeps_order or type(sink).every_result is not ResultSink.every_result:
        return True
    if not sink.lists_failures:
        raise Rejected(
            f"[sink] {type(sink).__name__} cannot list what it holds, so there is nothing to report on. jsonl and sqlite "
            "can; another plugin must have `scan`, `every_result` or `failed`."
        )
    return False


def read(sink: ResultSink) -> Iterator[Result]:
    """Its results, or its failures where it lists those alone."""
    return sink.every_result() if lists_all(sink) else sink.failed()

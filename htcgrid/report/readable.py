"""How the results of a sink are read for their figures."""

from collections.abc import Iterator

from htcgrid.spi import Rejected, Result, ResultSink


def lists_all(sink: ResultSink) -> bool:
    """Whether the sink lists all results; False where it lists only failures. Raises `Rejected` where it lists neither."""
    if sink.keeps_order or type(sink).every_result is not ResultSink.every_result:
        return True
    if not sink.lists_failures:
        raise Rejected(
            f"[sink] {type(sink).__name__} cannot list what it holds, so there is nothing to report on. jsonl and sqlite "
            "can; another plugin must have `scan`, `every_result` or `failed`."
        )
    return False


def read(sink: ResultSink) -> Iterator[Result]:
    """The results of the sink; only the failures where it lists no others."""
    return sink.every_result() if lists_all(sink) else sink.failed()

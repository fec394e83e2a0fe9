"""The page of a standing grid, without a server."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

from made_results import result

from htcgrid.report.advice import Limits
from htcgrid.report.grid_looks import Standing
from htcgrid.report.standing_page import StandingPage
from htcgrid.spi import FailureKind, Function, Plugin, Result, ResultSink, Unavailable


class Store(ResultSink):
    def __init__(self) -> None:
        super().__init__(Plugin.Config(), Function())

    def put(self, results: Sequence[Result]) -> None:
        raise NotImplementedError


def page_when(page: StandingPage, text: str) -> str:
    """The page once it holds this text."""
    end = time.monotonic() + 20
    while text not in (shown := page.page()):
        assert time.monotonic() < end, f"the page never said {text!r}: {shown}"
        time.sleep(0.01)
    return shown


def test_the_page_is_shown_while_the_failures_are_read_and_says_that_they_are_not_read_yet() -> None:
    """To list the failures of a large table takes minutes."""
    reads = threading.Event()

    class Large(Store):
        lists_failures = True

        def failed(self) -> Iterator[Result]:
            assert reads.wait(20)
            yield result(1, failure=FailureKind.TIMEOUT)

    page, shown = StandingPage(Standing(None, Large()), "here", Limits(), 60), list[str]()
    reader = threading.Thread(target=lambda: shown.append(page.page()))
    reader.start()
    reader.join(10)
    reads.set()
    reader.join()
    assert "The results have not been read yet" in shown[0]
    assert "The results have not been read yet" not in page_when(page, "timeout")


def test_results_that_were_read_before_an_error_are_in_the_figures() -> None:
    class Away(Store):
        keeps_order = True

        def scan(self, session_id: str | None = None, after: int = 0) -> Iterator[tuple[int, Result]]:
            if after:
                yield 2, result(2)
                return
            yield 1, result(1)
            raise Unavailable("the file is locked")

    standing = Standing(None, Away())
    assert "the file is locked" in standing.read(60)
    assert standing.read(60) == ""
    assert standing.figures.count == 2

"""The page of a current run: `htcgrid run --dashboard`."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from htcgrid.cli.queue_and_store import say
from htcgrid.config import GridConfig
from htcgrid.spi import Observer, Unavailable


@contextmanager
def live_page(grid: GridConfig, *, is_wanted: bool) -> Iterator[Mapping[str, Observer]]:
    """Serve the page, if it is wanted, until the block ends. The value is the observer that fills it, by its name."""
    if not is_wanted:
        yield {}
        return
    from htcgrid.report.live import Live  # noqa: PLC0415 - the other runs start faster without it
    from htcgrid.service.page_api import served_page  # noqa: PLC0415

    sink = grid.settings.sink
    name = str(sink.options.get("path", sink.plugin)) if sink is not None else "a run"
    live = Live(grid.settings.function, name)
    with ExitStack() as stack:
        try:
            address = stack.enter_context(served_page(live.page, say))
        except OSError as error:
            raise Unavailable(f"--dashboard: the page cannot be served: {error.strerror or error}.") from None
        say(f"the run is shown at {address} until it ends. Anyone with this address can read it.")
        yield {"--dashboard": live}

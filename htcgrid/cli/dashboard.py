from contextlib import ExitStack
from pathlib import Path

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE
from htcgrid.cli.queue_and_store import say
from htcgrid.cli.standing_grid import standing_grid
from htcgrid.report.advice import Limits
from htcgrid.report.standing_page import StandingPage
from htcgrid.spi import Unavailable
from htcgrid.stop_request import StopRequest, stop_signals


@click.command()
@grid_options
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="HOST:PORT",
    help="An agent's metrics address ([observers.prometheus]); may be given several times.",
)
@click.option(
    "--after", type=click.IntRange(min=0), default=0, help="Read only results whose number in the store is above this."
)
@click.option(
    "--every",
    type=click.FloatRange(min=1),
    default=5.0,
    show_default=True,
    help="Seconds between two reads from the services.",
)
def command(
    file: Path | None, plane: str | None, pairs: tuple[str, ...], agents: tuple[str, ...], after: int, every: float
) -> int:
    """Show a standing grid on a page, from its queue, its store and the metrics of its agents.

    The page is served on this machine, at the printed address, until Ctrl-C. Anyone with the address can read it. Services
    are read only while a browser shows the page. `htcgrid run --dashboard` shows one run; `htcgrid top` is for the terminal.

    \b
    htcgrid dashboard
    htcgrid dashboard --agent 10.0.0.7:9464 --agent 10.0.0.8:9464
    """
    from htcgrid.service.page_api import served_page  # noqa: PLC0415 - no other command is to load the library that serves

    grid = read_grid(file, plane, pairs, optional=bool(agents))
    function, source = grid.settings.function, grid.settings.source
    limits = Limits(function.memory, function.timeout)
    with ExitStack() as stack:
        standing = stack.enter_context(standing_grid(grid, agents, after))
        name = f"the grid of {file or (source and source.plugin) or 'this config'}"
        page = StandingPage(standing, name, limits, every)
        try:
            address = stack.enter_context(served_page(page.page, say))
        except OSError as error:
            raise Unavailable(f"The page cannot be served: {error.strerror or error}.") from None
        stop = StopRequest()
        stop.make_on(stop_signals())
        say(f"the grid is shown at {address} until Ctrl-C. Anyone with this address can read it.")
        stop.wait()
    return DONE

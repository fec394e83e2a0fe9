import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import click

from htcgrid.cli.grid_options import grid_options, read_grid
from htcgrid.cli.main import DONE, UNAVAILABLE
from htcgrid.cli.standing_grid import standing_grid
from htcgrid.report.agent_metrics import HEADS
from htcgrid.report.grid_looks import Look
from htcgrid.report.queue_look import queue_pairs
from htcgrid.report.standing_page import store_pairs
from htcgrid.report.units import duration
from htcgrid.runtime.printable import printable

_CLEAR = b"\x1b[H\x1b[J"


@click.command()
@grid_options
@click.option(
    "--agent",
    "agents",
    multiple=True,
    metavar="HOST:PORT",
    help="An agent's metrics address; may be given several times.",
)
@click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=2.0,
    show_default=True,
    help="Seconds between two reads from the services.",
)
@click.option("--once", is_flag=True, help="Read once, print, and end.")
def command(
    file: Path | None, plane: str | None, pairs: tuple[str, ...], agents: tuple[str, ...], every: float, once: bool
) -> int:
    """Show a standing grid in the terminal: its queue, its store, its agents.

    It ends with Ctrl-C. If standard output is not a terminal, it prints one line for each read. With --once the exit code
    is 3 if the queue or the store did not answer.

    \b
    htcgrid top
    htcgrid top --once
    """
    grid = read_grid(file, plane, pairs, optional=bool(agents))
    with standing_grid(grid, agents) as standing:
        if once:
            look = standing.look()
            print("\n".join(_lines(look)))
            return UNAVAILABLE if look.errors else DONE
        is_terminal = sys.stdout.isatty()
        with suppress(KeyboardInterrupt):
            while True:
                look = standing.look()
                if is_terminal:
                    _draw(look)
                else:
                    print(_line(look), flush=True)
                time.sleep(every)
    return DONE


def _draw(look: Look) -> None:
    """Print as much as fits on the screen, after a sequence that clears it. The texts themselves cannot control the terminal."""
    size = shutil.get_terminal_size()
    lines = [line[: size.columns - 1] for line in _lines(look)][: size.lines - 1]
    sys.stdout.buffer.write(_CLEAR)
    print("\n".join(lines), flush=True)


def _line(look: Look) -> str:
    pairs = [*(queue_pairs(look.queue) if look.queue else ()), *(store_pairs(look.store) if look.store else ())]
    found = [f"{name.removeprefix('Queue: ').lower()} {value}" for name, value in pairs]
    return ", ".join(
        [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(look.time)), *found, *map(printable, look.errors)]
    )


def _lines(look: Look) -> Iterator[str]:
    yield f"htcgrid top, {time.strftime('%H:%M:%S', time.localtime(look.time))}"
    pairs = [*(queue_pairs(look.queue) if look.queue else ()), *(store_pairs(look.store) if look.store else ())]
    width = max((len(name) for name, _ in pairs), default=0)
    yield from (f"  {name:>{width}}  {value}" for name, value in pairs)
    if look.store is not None and look.store.failures:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in look.store.failures.items())
        yield f"  {'by kind':>{width}}  {kinds}"
    yield from (f"  {printable(each)}" for each in look.errors)
    if look.queue is not None and look.queue.agents:
        rows = [
            (name, f"{holder.leased:,}", duration(holder.silent_seconds * 1000))
            for name, holder in look.queue.agents.items()
        ]
        yield from _table(("Agent on the queue", "Leased", "Silent for"), rows)
    if look.agents:
        yield from _table(HEADS, [each.cells() for each in look.agents])


def _table(heads: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> Iterator[str]:
    texts = [heads, *(tuple(printable(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(row[place]) for row in texts) for place in range(len(heads))]
    yield ""
    for row in texts:
        yield "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()

"""The queue and the store of a standing grid, opened for reading: for `dashboard` and `top`."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from htcgrid.cli.store import reading
from htcgrid.config import ConfigError, GridConfig
from htcgrid.report.grid_looks import Standing
from htcgrid.spi import ResultSink, TaskSource


@contextmanager
def standing_grid(grid: GridConfig, agents: Sequence[str], after: int = 0) -> Iterator[Standing]:
    """The parts of the config that can be read. Raises `ConfigError` if there are none."""
    settings = grid.settings
    source = grid.source() if settings.source is not None else None
    sink = grid.sink() if settings.sink is not None else None
    if source is not None and type(source).stats is TaskSource.stats:
        source = None
    if sink is not None and not (sink.keeps_order or sink.lists_failures or type(sink).stats is not ResultSink.stats):
        sink = None
    if source is None and sink is None and not agents:
        raise ConfigError(
            "This config has nothing to show: the source does not report its depth, and the sink does not report its results. "
            "Name the addresses of agents' metrics with --agent, or use `htcgrid run --dashboard` for one run."
        )
    with ExitStack() as stack:
        if source is not None:
            stack.enter_context(source)
        if sink is not None:
            stack.enter_context(reading(sink))
        yield Standing(source, sink, agents, after)

"""The queue and the result store that `submit`, `results`, `cancel` and `status` work on."""

import logging
import sys

from htcgrid.agent.backoff import BackOff
from htcgrid.agent.shutdown import Shutdown
from htcgrid.config import ConfigError, GridConfig
from htcgrid.spi import ResultSink, ResultStore, TaskQueue, TaskSource

log = logging.getLogger(__name__)


class QueueSource(TaskSource, TaskQueue):
    """A task source that is also a queue; only for type checks."""


class StoreSink(ResultSink, ResultStore):
    """A result sink that can be read; only for type checks."""


def queue_of(grid: GridConfig) -> QueueSource:
    """The source of the config, which must be a queue."""
    source = grid.source()
    if not isinstance(source, TaskQueue):
        name = grid.settings.source.plugin if grid.settings.source else ""
        message = (
            f"[source] plugin = {name!r} is not a queue that tasks can be put into. On one machine use sqlite, "
            f'for example:\n\n[source]\nplugin = "sqlite"\npath = "queue.db"'
        )
        raise ConfigError(message)
    return source  # type: ignore[return-value]


def store_of(grid: GridConfig) -> StoreSink:
    """The sink of the config, which must be readable."""
    sink = grid.sink()
    if not isinstance(sink, ResultStore):
        name = grid.settings.sink.plugin if grid.settings.sink else ""
        message = (
            f"[sink] plugin = {name!r} cannot be read back by id. On one machine use sqlite, for example:\n\n"
            f'[sink]\nplugin = "sqlite"\npath = "results.db"'
        )
        raise ConfigError(message)
    return sink  # type: ignore[return-value]


def say(message: str) -> None:
    """Print a message for the user on standard error, since other programs may read standard output."""
    print(f"htcgrid: {message}", file=sys.stderr, flush=True)


def back_off(grid: GridConfig) -> BackOff:
    """A command tries again for as long as an agent would."""
    return BackOff(Shutdown(), grid.settings.agent.unavailable_limit, log.warning)

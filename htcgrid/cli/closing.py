"""Closes the source and the sink of a run, also after an error."""

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from htcgrid.spi import HtcgridError, Plugin

log = logging.getLogger(__name__)

P = TypeVar("P", bound=Plugin)

CLOSE_SECONDS = 2.0
"""The time that `close` has after an error: it may wait for the same service as the failed call."""


@contextmanager
def closed_in_time(plugin: P) -> Iterator[P]:
    """As `with plugin`, but an error does not wait for `close`."""
    stack = ExitStack()
    stack.enter_context(plugin)
    try:
        yield plugin
    except BaseException:
        closing = threading.Thread(target=_close, args=(plugin,), name="htcgrid-close", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        raise
    stack.close()


def _close(plugin: Plugin) -> None:
    try:
        plugin.close()
    except HtcgridError as error:
        log.warning("%s was not closed: %s", type(plugin).__name__, error)

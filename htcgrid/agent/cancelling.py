"""Making a plane stop tasks, which it may be unable to do at this time."""

import logging
from collections.abc import Collection

from htcgrid.spi import Invoker, Unavailable

log = logging.getLogger(__name__)


def try_to_cancel(plane: Invoker, task_ids: Collection[str]) -> None:
    """Cancel these once. Callers repeat it for as long as the tasks run, so an outage of the plane is only logged."""
    try:
        plane.cancel(task_ids)
    except Unavailable as error:
        log.warning("%d tasks could not be cancelled, and are cancelled again soon: %s", len(task_ids), error)

"""Initialisation errors: whether the task or the function is the cause.

Once the plane reports another kind of outcome, the function can be loaded, so these tasks have failed. If it never does, the
function is broken: no task is stored as failed then, since it would succeed once the function is corrected. The end of the
source decides; an endless source may never hand out another task, so some seconds in which nothing runs decide as well.
"""

import logging
import threading
import time

from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.shared import Shared
from htcgrid.spi import HtcgridError, Lease, Result

log = logging.getLogger(__name__)


class FunctionBroken(HtcgridError):
    """The function cannot be initialised; the tasks were returned."""


class InitErrors:
    """Keeps initialisation errors in the lease table until `clear`, or until there are too many in a row."""

    def __init__(self, leases: LeaseTable, shared: Shared) -> None:
        self._leases = leases
        self._shared = shared
        self._document = b""
        self._quiet_since: float | None = None
        self._is_loaded = self._is_broken = False
        self.is_unsure = True
        """Whether it is still unknown if the function can be loaded."""
        self._lock = threading.Lock()

    def add(self, lease: Lease, result: Result) -> None:
        with self._lock:
            self.is_unsure = True
            self._document = result.outcome.payload
            held = self._leases.hold(lease, result)
            log.info("The function could not be loaded, for the task %s: %d in a row.", lease.task.id, held)
            if self._is_broken or held >= self._shared.options.init_errors_limit:
                self._give_up()

    def clear(self) -> None:
        """The function can be loaded: the tasks that are held have failed."""
        with self._lock:
            self._is_loaded = True
            self.is_unsure = False
            self._leases.finish_not_loaded()

    def look(self) -> None:
        """Decide if the agent has had only held tasks for a while. One thread calls this, several times a second."""
        now = time.monotonic()
        if not self._leases.not_loaded or self._leases.under_way > 0:
            self._quiet_since = None
        elif self._quiet_since is None:
            self._quiet_since = now
        elif now - self._quiet_since > self._shared.options.init_errors_quiet:
            self._quiet_since = None
            self.close()

    def close(self) -> None:
        """No more tasks come: the function is broken; or if it was loaded before in this run, these tasks have failed."""
        if self._is_loaded and not self._is_broken:
            self.clear()
        with self._lock:
            if self._leases.not_loaded:
                self._give_up()

    def _give_up(self) -> None:
        self._is_broken = True
        document = self._document.decode(errors="replace")
        self._shared.fail(FunctionBroken(f"The function cannot be initialised, so no task was run: {document}"))
        self._leases.return_not_loaded()

"""What happens to a lease once the plane has reported on its task: it is finished, tried again, or returned."""

import logging
import random
import time

from htcgrid.agent.init_errors import InitErrors
from htcgrid.agent.leases import LeaseTable
from htcgrid.agent.policy import Verdict, retry_delay, verdict
from htcgrid.agent.shared import Shared
from htcgrid.agent.suspects import Suspects
from htcgrid.spi import FailureKind, Lease, Outcome, Result, Retried, Throttled, Unavailable, error_documents

log = logging.getLogger(__name__)

_SIGNAL_SECONDS = 0.2
"""A supervisor that signals a whole group of processes may end a handler a moment before the agent handles its own signal."""

_IGNORED_IN_A_DRAIN = frozenset({FailureKind.EXIT, FailureKind.INIT_ERROR})


class Outcomes:
    """Decides, for all slots; the lease table carries it out."""

    def __init__(self, leases: LeaseTable, suspects: Suspects, init_errors: InitErrors, shared: Shared) -> None:
        self.suspects = suspects
        self._leases = leases
        self._finish = leases.finish
        self._init_errors = init_errors
        self._options = shared.options
        self._shutdown = shared.shutdown
        self._observers = shared.observers

    def succeeded(self, lease: Lease, outcome: Outcome) -> None:
        self._finish(Result(lease.task, outcome, lease.attempt))
        if self._init_errors.is_unsure:
            self._init_errors.clear()

    def failed(self, lease: Lease, outcome: Outcome) -> None:
        kind = outcome.failure
        if kind in _IGNORED_IN_A_DRAIN and self._shutdown.is_set():
            # The signal that stops the agent may have gone to the handlers too: this says nothing about the task.
            self._leases.return_now(lease)
            return
        if kind is FailureKind.INIT_ERROR:
            self._init_errors.add(lease, Result(lease.task, outcome, lease.attempt))
            return
        if kind is FailureKind.CANCELLED and not self._leases.is_lost(lease.task.id):
            self._stopped_unasked(lease)
            return
        if kind is not FailureKind.CANCELLED:  # a cancel may come before the function is loaded, so it proves nothing
            self._init_errors.clear()
        what = verdict(self._options, kind, lease.attempt)
        if kind is FailureKind.EXIT and what is Verdict.DEAD and self._shutdown.wait(_SIGNAL_SECONDS):
            self._leases.return_now(lease)
        elif what is Verdict.RETRY:
            chance = random.random()  # noqa: S311 - jitter, not a secret
            delay = retry_delay(self._options, lease.attempt, chance)
            log.info("Task %s: %s at attempt %d. It runs again in %.1f s.", lease.task.id, kind, lease.attempt, delay)
            self._retry(lease, outcome, delay)
        else:
            self._leases.finish(Result(lease.task, outcome, lease.attempt), dead=what is Verdict.DEAD)

    def unavailable(self, lease: Lease, error: Unavailable) -> bool:
        """The plane became unavailable. A task that has not begun goes to the next slot whose call the plane accepts.

        Returns whether this task is assumed to be the cause.
        """
        if lease.task.id not in error.begun and isinstance(error, Throttled):
            self._leases.put_back(lease)
        elif lease.task.id not in error.begun:
            self.not_begun(lease, str(error))
        elif self._shutdown.is_set():
            self._leases.return_now(lease)
        else:
            self.suspects.lose(lease.task.id)
            if self.suspects.is_cause(lease.task.id, self._options.unavailable_limit):
                self._count(lease, error_documents.lost_with_its_plane(lease.attempt, str(error)))
                return True
            self._retry(lease, None, 0.0)
        return False

    def not_begun(self, lease: Lease, reason: str) -> None:
        """This does not count as an attempt, unless the plane has not begun this task for `unavailable_limit` seconds."""
        if self.suspects.is_refused_for(lease.task.id, self._options.unavailable_limit):
            self._count(lease, error_documents.never_begun(lease.attempt, reason))
        else:
            self._leases.put_back(lease)

    def _stopped_unasked(self, lease: Lease) -> None:
        """Stopped by the agent at the end of the grace time, by a late cancel of an earlier lease, or by a bug in the plane."""
        if self._shutdown.is_set() or lease.attempt < self._options.lost_attempts:
            self._leases.return_now(lease)
        else:
            self._give_up(lease, error_documents.cancelled_unasked(lease.attempt))

    def _count(self, lease: Lease, document: bytes) -> None:
        """Count the attempt by returning the task: the source counts for all agents, also after the end of this one."""
        if lease.attempt < self._options.lost_attempts:
            self._retry(lease, None, 0.0)
        else:
            self._give_up(lease, document)

    def _retry(self, lease: Lease, outcome: Outcome | None, delay: float) -> None:
        self._observers.tell(Retried(time.time(), [lease], outcome, delay))
        self._leases.retry(lease, delay)

    def _give_up(self, lease: Lease, document: bytes) -> None:
        self.suspects.settle(lease.task.id)
        outcome = Outcome(lease.task.id, document, FailureKind.EXIT, started=time.time())
        self._leases.finish(Result(lease.task, outcome, lease.attempt), dead=True)

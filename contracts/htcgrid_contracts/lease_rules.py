"""Leases: whole batches, how long they last, and leases that were lost."""

import time
from collections.abc import Callable
from dataclasses import replace

from htcgrid.spi import Lease, TaskSource

from htcgrid_contracts.common import not_asked
from htcgrid_contracts.payloads import AWKWARD_PAYLOADS
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered, of_two_sessions

EARLY, LATE = 0.7, 1.7
"""What comes before or after these times the seconds that were asked for was halved, doubled, added up or ignored."""


class LeaseRules(SourceHelpers):
    """Asked of every source; rules about how long a lease lasts, of those whose leases expire."""

    # --- batches ---

    def test_ack_ends_every_task_of_a_batch(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """`ack` must end every task of the batch, not only the first. A task that was left out is handed out again when
        its lease expires. Read: spi.TaskSource.ack."""
        size = self._large(source)
        given(*of_two_sessions(size))
        leases = self.unlike(source, size)
        source.ack(leases)
        self.in_time()
        self.all_ended(source, leases, "ack")
        self.nothing_comes(another(), None if source.lease_seconds is None else self.expiry(source))

    def test_nack_returns_every_task_of_a_batch(self, source: TaskSource, given: Given) -> None:
        """`nack` must return every task of the batch: an agent that stops returns all its tasks in one call.
        Read: spi.TaskSource.nack."""
        if not self.returns(source):
            not_asked("`nack` is the default: what is returned waits for its lease to expire")
        size = self._batch(source)
        given(*of_two_sessions(size))
        leases = self.unlike(source, size)
        expected = sorted(lease.attempt + 1 for lease in leases)
        source.nack(leases)
        self.in_time()
        attempts = sorted(lease.attempt for lease in self.take(source, size))
        assert attempts == expected, (
            f"{size} tasks were returned, and came again as attempts {attempts}; expected {expected}"
        )

    def test_a_lease_that_is_over_spoils_no_batch(self, source: TaskSource, given: Given) -> None:
        """When one lease of a batch has expired, the call must still work for the others. The agent does not know yet
        which one expired. Read: spi.TaskSource.extend."""
        if source.max_batch == 1:
            not_asked("max_batch is 1: no lease is in one call with another")
        given(*numbered(3))
        done, kept, other = self.take(source, 3)
        source.ack([done])
        gone = set(source.extend([kept, done, other], 60 * self.wait_factor))
        if source.lease_seconds is not None:
            self.in_time()
        assert gone <= {done.task.id}, f"one of three tasks was acked, and extend calls another lost: {sorted(gone)}"
        if source.lease_seconds is not None and source.lease_seconds <= self.longest_lease:
            self.nothing_comes(source, self.expiry(source))  # they were extended
        source.nack([done, kept, other])
        if not self.returns(source):
            return
        again = self.held(source, 2)
        assert {lease.task.id for lease in again} == {kept.task.id, other.task.id}, (
            "a task that was acked came again with those returned"
        )
        source.ack([done, *again])
        self.all_ended(source, again, "ack")

    # --- seconds ---

    def test_a_lease_lasts_as_long_as_it_says(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """A lease must last `lease_seconds`. The agent extends by this number: a lease that ends earlier is lost before
        that. Read: spi.TaskSource.lease_seconds."""
        given(*numbered(1))
        self.expiry(source)
        lease_seconds = source.lease_seconds or 0.0
        holder, receiver = source, another()
        took = 0.0
        for _ in range(3):  # a busy machine may be late once
            if self.returns(source):
                holder.nack(self.held(holder, 1, lease_seconds + 20))  # nothing is left of a lease that was extended
            asked = time.monotonic()
            self.take(holder, 1, lease_seconds + 20)
            began = time.monotonic()
            took = self._comes_again(receiver, 1, asked, began, lease_seconds, "its lease began")
            if took <= LATE * lease_seconds + 0.2 * self.wait_factor:
                return
            holder, receiver = receiver, holder
        assert took <= LATE * lease_seconds, f"`lease_seconds` is {lease_seconds:g}, and the lease lasted {took:.1f} s"

    def test_extend_keeps_every_lease_for_so_many_seconds_from_now(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """After `extend` a lease must last that many seconds from now: not longer or shorter, and not added to the time
        that was left. Read: spi.TaskSource.extend."""
        if source.lease_seconds is None or type(source).extend is TaskSource.extend:
            not_asked("`lease_seconds` is None, or `extend` is the default: leases do not expire")
        size = self._large(source)
        lease = source.lease_seconds
        # Far enough from the lease's own seconds, so that one that ignores the argument is seen.
        seconds = lease / 2 if lease >= 4 else max(1.8 * lease, 1.5 * self.wait_factor)
        given(*of_two_sessions(size))
        holder, receiver = source, another()
        leases = self.unlike(holder, size)
        took = 0.0
        for _ in range(3):
            for _ in range(2):  # twice: what is added up shows
                asked = time.monotonic()
                gone = holder.extend(leases, seconds)
                if gone:
                    self.in_time()
                assert not gone, f"{sorted(gone)} was extended in time, and is said to be lost"
            began = time.monotonic()
            took = self._comes_again(receiver, size, asked, began, seconds, f"it was extended by {seconds:g} s")
            if took <= LATE * seconds:
                return
            holder, receiver, leases = receiver, holder, list(self._again)
        assert took <= LATE * seconds, (
            f"a lease was extended by {seconds:g} s, twice at once, and lasted {took:.1f} s: `seconds` count from now"
        )

    def test_a_delay_is_kept_for_every_task_of_a_batch(self, source: TaskSource, given: Given) -> None:
        """`nack` with a delay must delay every task of the batch by that many seconds. The agent waits that long before
        a retry. Read: spi.TaskSource.nack."""
        if not self.returns(source):
            not_asked("`nack` is the default: what is returned waits for its lease to expire")
        size = self._large(source)
        delay = 2.0 * self.wait_factor
        given(*of_two_sessions(size))
        leases = self.unlike(source, size)
        took = 0.0
        for _ in range(3):
            asked = time.monotonic()
            source.nack(leases, delay)
            began = time.monotonic()
            took = self._comes_again(source, size, asked, began, delay, f"it was returned with a delay of {delay:g} s")
            if took <= LATE * delay:
                return
            leases = list(self._again)
        assert took <= LATE * delay, f"a task was returned with a delay of {delay:g} s, and came after {took:.1f} s"

    # --- leases that were lost ---

    def test_a_late_call_leaves_the_lease_of_the_new_holder(
        self, given: Given, source: TaskSource, another: Callable[[], TaskSource]
    ) -> None:
        """A late call with an old lease must not change the lease of the agent that has the task now. An agent that was
        suspended does not know that its lease was lost. Read: spi.TaskSource.nack."""
        given(*numbered(1))
        other = another()
        wait = self.expiry(source)
        late = self.take(source, 1)
        held = self.held(other, 1, wait + 10)
        source.nack(late)
        source.nack(late, 0.1)
        self.nothing_comes(source, 0.6 * self.wait_factor)
        source.extend(late, 0.1)
        self.nothing_comes(source, 0.6 * self.wait_factor)
        gone = other.extend(held, 60 * self.wait_factor)
        assert not gone, "a late nack or extend of the earlier holder took the lease from its new holder"
        other.ack(held)

    def test_a_lost_lease_in_a_batch_leaves_the_new_holder_its_task(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """A lost lease in a batch must not touch the new holder's, whatever else is in the batch: a good lease of another task
        may have the attempt of the new holder's. Tasks and attempts go together. Read: spi.TaskSource.nack."""
        if source.max_batch == 1 or not self.returns(source):
            not_asked("max_batch is 1: no lease is in one call with another; or `nack` is the default")
        given(*numbered(4))
        other = another()
        wait = self.expiry(source)
        first = self.take(source, 4)
        lost, returned = first[:2], first[2:]
        source.nack(returned)
        good = self.held(source, 2)
        if {lease.task.id for lease in good} != {lease.task.id for lease in returned}:
            self.stood_still()  # the others' leases are over already
        theirs = self.held(other, 2, wait + 10)
        source.extend([lost[0], good[0]], 0.1)
        source.nack([lost[1], good[1]])
        again = {lease.task.id for lease in self.take(source, 2)}
        assert again == {lease.task.id for lease in good}, (
            f"two tasks have a new holder; a batch of a lost lease, of attempt 1, and a good one, of attempt {good[0].attempt}, as the "
            f"new holder's, made one of them come again"
        )
        gone = [each for lease in theirs for each in other.extend([lease], 60 * self.wait_factor)]
        assert not gone, "a lost lease in a batch took the task from its new holder"

    def test_attempts_go_on_counting(self, source: TaskSource, given: Given) -> None:
        """`attempt` must grow by one each time, and the task must stay the same. The agent gives up after a number of
        attempts. Read: spi.Lease."""
        (task,) = numbered(1, session_id="s-1", city="Zürich")
        given(replace(task, payload=AWKWARD_PAYLOADS["spaces and order"]))
        wait = 10.0 if self.returns(source) else self.expiry(source) + 10
        first = None
        for expected in (1, 2, 3, 4):
            (lease,) = self.take(source, 1, wait)
            first = first or lease.task
            assert lease.task == first, f"at attempt 1 the task was {first}, and at attempt {expected} {lease.task}"
            assert lease.attempt == expected, f"handed out {expected} times, the task says attempt {lease.attempt}"
            source.nack([lease])

    # --- helpers ---

    _again: tuple[Lease, ...] = ()
    """What has come again last."""

    def _batch(self, source: TaskSource) -> int:
        if source.max_batch == 1:
            not_asked("max_batch is 1: every call has one lease")
        return min(source.max_batch, 4)

    def _large(self, source: TaskSource) -> int:
        """More than a call to a service takes, where the source's own calls take so many."""
        return min(source.max_batch, 120) if self._batch(source) else 1

    def _comes_again(
        self, source: TaskSource, size: int, asked: float, began: float, seconds: float, since: str
    ) -> float:
        """Receive so many tasks and check that none comes too early; returns the seconds until the last one came."""
        leases: dict[str, Lease] = {}  # those of a part of the batch may come more than once
        deadline = began + 3 * seconds + 10 * self.wait_factor
        while len(leases) < size:
            assert time.monotonic() < deadline, (
                f"{len(leases)} of {size} tasks came again within {deadline - began:.0f} s since {since}"
            )
            some = source.receive(min(size - len(leases), source.max_batch), min(1.0, seconds))
            took = time.monotonic() - asked
            assert not some or took >= EARLY * seconds, (
                f"{some[0].task.id} came again {took:.1f} s after {since}; {seconds:g} s were asked for"
            )
            leases |= {lease.task.id: lease for lease in some}
        self._again = tuple(leases.values())
        return time.monotonic() - began

"""What a source does with a lease that is acked, returned or extended."""

import time
from collections.abc import Callable

from htcgrid.spi import TaskSource

from htcgrid_contracts.common import not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered


class SettlingRules(SourceHelpers):
    """Asked of every source."""

    # --- ack ---

    def test_an_acked_task_is_never_handed_out_again(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """Its result is stored; running it again is paid for in vain. Read: spi.TaskSource.ack."""
        source = given(*numbered(1))
        source.ack(self.take(source, 1))
        self.nothing_comes(source, 0.1)
        self.nothing_comes(another(), None if source.lease_seconds is None else self.expiry(source))

    def test_ack_ends_the_tasks_it_names_and_no_other(self, given: Given) -> None:
        """Tasks end in any order, and each is acked when it does. Read: spi.TaskSource.ack."""
        source = given(*numbered(3))
        first, second, third = self.take(source, 3)
        wait = 10.0 if self.returns(source) else self.expiry(source) + 10
        source.ack([second])
        source.nack([first])
        source.nack([third])
        again = self.take(source, 2, wait)
        assert {lease.task.id for lease in again} == {first.task.id, third.task.id}

    def test_a_second_ack_is_quiet(self, given: Given) -> None:
        """After a lost answer the agent acks once more. Read: spi.TaskSource.ack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        source.ack(leases)
        source.ack(leases)
        self.nothing_comes(source)

    def test_an_ack_after_the_lease_was_lost_is_quiet(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """A slow agent acks what has gone to another by then: no reason to stop. Read: spi.TaskSource.ack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        self.take(another(), 1, self.expiry(source) + 10)
        source.ack(leases)

    # --- nack ---

    def test_a_returned_task_is_handed_out_again_with_attempt_one_higher(self, given: Given) -> None:
        """A drain returns what it has not begun. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        (lease,) = self.take(source, 1)
        source.nack([lease])
        wait = 10.0 if self.returns(source) else self.expiry(source) + 10
        (again,) = self.take(source, 1, wait)
        assert again.task == lease.task
        assert again.attempt == 2, f"handed out for the second time, it says attempt {again.attempt}"

    def test_a_returned_task_with_a_delay_waits_that_long(self, given: Given) -> None:
        """The delay is the back-off of a retry. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        if not self.returns(source):
            not_asked("`nack` is the default: what is returned waits for its lease to expire")
        leases = self.take(source, 1)
        delay = 2.0 * self.wait_factor
        began = time.monotonic()
        source.nack(leases, delay)
        (again,) = self.take(source, 1, delay + 10)
        took = time.monotonic() - began
        assert took > delay / 2, (
            f"{again.task.id} was handed out {took:.1f} s after it was returned with a delay of {delay:g} s"
        )
        assert again.attempt == 2, f"handed out for the second time, it says attempt {again.attempt}"

    def test_a_second_return_is_quiet(self, given: Given) -> None:
        """After a lost answer the agent returns once more; the task is there once. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        source.nack(leases)
        source.nack(leases)
        wait = 10.0 if self.returns(source) else self.expiry(source) + 10
        self.take(source, 1, wait)
        self.nothing_comes(source, on_lease=True)

    def test_a_return_after_the_lease_was_lost_is_quiet(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """A slow agent drains what has gone to another by then. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        self.take(another(), 1, self.expiry(source) + 10)
        source.nack(leases)

    # --- extend ---

    def test_an_extended_lease_is_kept(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """Tasks run longer than leases last. Read: spi.TaskSource.extend."""
        source = given(*numbered(1))
        self.expiry(source)
        lease = source.lease_seconds
        assert lease is not None
        other = another()  # before there is a lease: it may take longer than one lasts
        leases = self.take(source, 1)
        deadline = time.monotonic() + 1.6 * lease
        while time.monotonic() < deadline:
            asked = time.monotonic()
            gone = source.extend(leases, lease)
            if gone:
                self.in_time()
            assert not gone, f"{sorted(gone)} was extended in time, and is said to be lost"
            self.lent_at(source, asked)
            self.nothing_comes(other, lease / 3, on_lease=True)
        source.ack(leases)
        self.nothing_comes(other)

    def test_extend_says_which_lease_was_lost(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """The agent stops that invocation: another runs the task. Read: spi.TaskSource.extend."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        wait = self.expiry(source)
        self.take(another(), 1, wait + 10)
        gone = source.extend(leases, wait)
        assert set(gone) == {leases[0].task.id}, f"the lease went to another receiver, and extend says {list(gone)}"

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
        """A task must not be handed out after its `ack`. Its result is stored, and a second run costs money for
        nothing. Read: spi.TaskSource.ack."""
        source = given(*numbered(1))
        source.ack(self.take(source, 1))
        self.nothing_comes(source, 0.1)
        self.nothing_comes(another(), None if source.lease_seconds is None else self.expiry(source))

    def test_ack_ends_the_tasks_it_names_and_no_other(self, given: Given) -> None:
        """`ack` must end the tasks that it is given and no others. Tasks end in any order. Read: spi.TaskSource.ack."""
        source = given(*numbered(3))
        first, second, third = self.take(source, 3)
        wait = 10.0 if self.returns(source) else self.expiry(source) + 10
        source.ack([second])
        source.nack([first])
        source.nack([third])
        again = self.take(source, 2, wait)
        assert {lease.task.id for lease in again} == {first.task.id, third.task.id}

    def test_a_second_ack_is_quiet(self, given: Given) -> None:
        """A second `ack` of the same lease must raise nothing. The agent repeats an `ack` when its answer was lost.
        Read: spi.TaskSource.ack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        source.ack(leases)
        source.ack(leases)
        self.nothing_comes(source)

    def test_an_ack_after_the_lease_was_lost_is_quiet(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """An `ack` after the lease was lost must raise nothing. A slow agent acks tasks that another agent has by then,
        and must not stop because of it. Read: spi.TaskSource.ack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        self.take(another(), 1, self.expiry(source) + 10)
        source.ack(leases)

    # --- nack ---

    def test_a_returned_task_is_handed_out_again_with_attempt_one_higher(self, given: Given) -> None:
        """After `nack` a task must be handed out again, with `attempt` one higher. An agent that stops returns the
        tasks that it has not begun. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        (lease,) = self.take(source, 1)
        source.nack([lease])
        wait = 10.0 if self.returns(source) else self.expiry(source) + 10
        (again,) = self.take(source, 1, wait)
        assert again.task == lease.task
        assert again.attempt == 2, f"handed out for the second time, it says attempt {again.attempt}"

    def test_a_returned_task_with_a_delay_waits_that_long(self, given: Given) -> None:
        """A task that is returned with a delay must not be handed out before the delay is over. The agent waits that
        long before a retry. Read: spi.TaskSource.nack."""
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
        """A second `nack` of the same lease must raise nothing, and the task must be there once. The agent repeats a
        `nack` when its answer was lost. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        source.nack(leases)
        source.nack(leases)
        wait = 10.0 if self.returns(source) else self.expiry(source) + 10
        self.held(source, 1, wait)
        source.nack(leases)  # the same agent has the task again, in another lease
        if self.returns(source):
            source.extend(leases, 0.1)
        self.nothing_comes(source, on_lease=True)

    def test_a_return_after_the_lease_was_lost_is_quiet(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """A `nack` after the lease was lost must raise nothing: a slow agent returns tasks that another agent has by
        then. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        self.take(another(), 1, self.expiry(source) + 10)
        source.nack(leases)

    # --- extend ---

    def test_an_extended_lease_is_kept(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """A lease that is extended in time must not expire: tasks may run longer than one lease lasts.
        Read: spi.TaskSource.extend."""
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
        """`extend` must return the ids of tasks whose lease was lost. The agent stops those invocations, since another
        agent runs the tasks. Read: spi.TaskSource.extend."""
        source = given(*numbered(1))
        leases = self.take(source, 1)
        wait = self.expiry(source)
        self.take(another(), 1, wait + 10)
        gone = source.extend(leases, wait)
        assert set(gone) == {leases[0].task.id}, f"the lease went to another receiver, and extend says {list(gone)}"
        # And of a large batch, which goes to some services in parts; of the others either answer is right.
        size = min(source.max_batch, 23)
        self.publish(source, numbered(size))
        batch = self.take(source, size)
        wait = self.expiry(source)
        taken = {lease.task.id for lease in self.take(another(), (size + 2) // 3, wait + 10)}
        taken &= {lease.task.id for lease in batch}  # the first one's lease may be over again
        named = set(source.extend(batch, wait))
        assert taken <= named, (
            f"of {size} leases that were over another receiver has {len(taken)}, and extend does not name {len(taken - named)} of them"
        )

"""What `receive` hands out, and when it returns."""

import time
from collections.abc import Callable, Sequence

from htcgrid.spi import Lease, TaskSource

from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered


class ReceiveRules(SourceHelpers):
    """Asked of every source."""

    # --- receive ---

    def test_receive_lends_no_more_than_it_is_asked_for(self, source: TaskSource, given: Given) -> None:
        """`receive` must return `max_tasks` leases at most. The agent has no room for more: they would expire before
        they run. Read: spi.TaskSource.receive."""
        given(*numbered(5))
        asked = min(2, source.max_batch)
        leased: Sequence[Lease] = ()
        deadline = time.monotonic() + 10 * self.wait_factor
        while not leased and time.monotonic() < deadline:
            leased = source.receive(asked, 1.0)
        assert 1 <= len(leased) <= asked, f"asked for {asked} of 5 tasks and got {len(leased)}"

    def test_a_full_batch_goes_through_every_call(self, source: TaskSource, given: Given) -> None:
        """`receive`, `ack`, `nack` and `extend` must all accept `max_batch` tasks in one call: the agent makes batches
        of that size. Read: spi.TaskSource.max_batch."""
        assert source.max_batch >= 1, f"max_batch = {source.max_batch}; it is 1 at least"
        most = source.most_leased
        assert most is None or most >= source.max_batch, f"most_leased = {most}; a batch of {source.max_batch} is more"
        size = min(source.max_batch, 1000)
        given(*numbered(size))
        leases: Sequence[Lease] = self.held(source, size)
        gone = source.extend(tuple(leases), 60 * self.wait_factor)  # any sequence
        assert not gone, f"a full batch was extended in time, and {len(gone)} are said to be lost"
        if self.returns(source):
            source.nack(tuple(leases))
            leases = self.held(source, size)
        source.ack(tuple(leases))
        self.nothing_comes(source)

    def test_an_empty_receive_ends_after_about_its_wait(self, given: Given) -> None:
        """Where there are no tasks, `receive` must return after about `wait` seconds. If it returns later, an agent
        that is to stop must wait for it; if at once, the agent asks again and again without a pause.
        Read: spi.TaskSource.receive."""
        source = given()
        took = 0.0
        for _ in range(3):  # a busy machine may be late once
            began = time.monotonic()
            assert not source.receive(1, 1.0), "a task was leased, but the source has none"
            took = time.monotonic() - began
            if took < 1.0 + 2 * self.wait_factor:
                break
        assert took < 1.0 + 2 * self.wait_factor, f"waited {took:.1f} s when asked to wait 1 s"
        assert took > 0.5 or source.exhausted, f"came back after {took:.2f} s when asked to wait 1 s for a first task"

    def test_a_receive_without_wait_returns_at_once(self, given: Given) -> None:
        """`receive` with `wait` 0 must return at once, with or without tasks. The agent has other work to do.
        Read: spi.TaskSource.receive."""
        source = given(*numbered(1))
        leases: list[Lease] = []
        look = 0.0

        def has_one() -> bool:
            nonlocal look
            began = time.monotonic()
            leases.extend(source.receive(1, 0))
            look = time.monotonic() - began
            return bool(leases)

        eventually(has_one, 10 * self.wait_factor, "a task that waits, from receive(1, 0)")
        source.ack(leases)
        took = float("inf")
        for _ in range(5):  # a busy machine holds up some, a source that waits each
            began = time.monotonic()
            assert not source.receive(1, 0), "a task was leased, but the source has none"
            took = min(took, time.monotonic() - began)
        assert took < 3 * look + 0.7 * max(1.0, self.wait_factor), (
            f"receive(1, 0) found a task in {look:.2f} s; where there was none it took {took:.2f} s, asked not to wait"
        )

    def test_receive_returns_as_soon_as_it_has_any(self, source: TaskSource, given: Given) -> None:
        """`receive` must return as soon as it has one task. If it waits for a full batch, environments are idle.
        Read: spi.TaskSource.receive."""
        given(*numbered(1))
        began = time.monotonic()
        leased = source.receive(source.max_batch, 15.0 * self.wait_factor)
        took = time.monotonic() - began
        assert len(leased) == 1, f"one task was there and {len(leased)} were leased"
        assert took < 10 * self.wait_factor, f"a task was there, and receive waited {took:.1f} s for more"

    def test_a_returned_task_comes_again_though_many_are_leased(self, source: TaskSource, given: Given) -> None:
        """A task that is returned must be handed out again, however many leased ones are before it in the queue: a service may
        look at a few at a time. Read: spi.TaskSource.receive."""
        if not self.returns(source):
            not_asked("`nack` is the default: what is returned waits for its lease to expire")
        size = 30
        given(*numbered(size))
        leases = self.held(source, size)
        by_id = {lease.task.id: lease for lease in leases}
        for task in (self.published[-1], self.published[size // 2]):
            source.nack([by_id[task.id]])
            (again,) = self.take(source, 1, why=f"a task was returned, behind others of {size} that are leased: ")
            assert again.task.id == task.id

    def test_receive_sees_a_task_that_comes_while_it_waits(self, given: Given) -> None:
        """`receive` must return a task that is put while it waits. Most of the time an agent waits at an empty queue.
        Read: spi.TaskSource.receive."""
        if self.finite:
            not_asked("finite: all tasks are there from the start")
        source = given()
        if source.exhausted:
            not_asked("it has an end, which an empty queue is: `receive` need not wait there")
        wait = 15.0 * self.wait_factor
        began = time.monotonic()

        def publish_later() -> Sequence[Lease]:
            time.sleep(0.5)
            self.publish(source, numbered(2))
            return ()

        def receive() -> Sequence[Lease]:
            return source.receive(1, wait)

        leased, others, _ = in_threads([receive, receive, publish_later], 2 * wait)
        took = time.monotonic() - began
        found = len(leased) + len(others)
        assert found == 2, f"two tasks came while two threads waited in receive(1, {wait:g}), which returned {found}"
        most = 0.5 + 5 * self.wait_factor
        assert took < most, (
            f"two tasks came after 0.5 s, and of two threads in receive(1, {wait:g}) one returned after {took:.1f} s"
        )

    # --- leases ---

    def test_the_first_attempt_is_number_one(self, given: Given) -> None:
        """The first time a task is handed out, `attempt` must be 1. The agent counts retries by it. Read: spi.Lease."""
        (lease,) = self.take(given(*numbered(1)), 1)
        assert lease.attempt == 1, f"the first time a task is handed out is attempt 1, and this says {lease.attempt}"
        assert not lease.invalid, f"a good task was called invalid: {lease.invalid}"

    def test_a_leased_task_is_not_lent_again(self, given: Given) -> None:
        """A task that is leased must not be handed out again until its lease ends. Otherwise it runs twice. `lease_seconds`
        must be the time that a lease lasts, and None only where it lasts as long as the process.
        Read: spi.TaskSource.receive, spi.TaskSource.lease_seconds."""
        source = given(*numbered(1))
        self.take(source, 1)
        is_long = source.lease_seconds is None or source.lease_seconds > self.longest_lease
        # Where it says that leases are long and they are short, other rules about them are not asked.
        self.nothing_comes(source, 3.0 if is_long else None, on_lease=True)

    def test_a_leased_task_is_not_lent_to_another_receiver(
        self, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """A leased task must not be handed out to another agent either: agents on several machines share the queue.
        Read: spi.TaskSource.receive."""
        source = given(*numbered(1))
        other = another()
        self.take(source, 1)
        self.nothing_comes(other, on_lease=True)

    def test_an_expired_lease_is_handed_out_again_with_attempt_one_higher(
        self, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """When a lease expires, the task must be handed out again, with `attempt` one higher. An agent that died cannot
        return its tasks; this is how they are run again. Read: spi.TaskSource.receive."""
        source = given(*numbered(1))
        (lease,) = self.take(source, 1)
        (again,) = self.take(another(), 1, self.expiry(source) + 10)
        assert again.task.id == lease.task.id
        assert again.attempt == 2, f"handed out for the second time, it says attempt {again.attempt}"

    def test_what_was_leased_at_close_comes_again(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """A task that is leased at `close` must be handed out again later. Otherwise it is lost when an agent ends.
        Read: spi.Plugin.close."""
        source = given(*numbered(1))
        (lease,) = self.take(source, 1)
        other = another()
        wait = self.expiry(source)
        source.close()
        (again,) = self.take(other, 1, wait + 10)
        assert again.task.id == lease.task.id
        assert again.attempt == 2, f"it was leased when its agent closed, and came again as attempt {again.attempt}"

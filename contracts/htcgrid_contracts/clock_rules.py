"""Time zones, parts of a second, and tasks whose lease or delay is over."""

import time
from collections.abc import Callable, Sequence

from htcgrid.spi import Lease, States, TaskQueue, TaskSource

from htcgrid_contracts.common import EAST, WEST, eventually, in_time_zone, not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered

EARLY = 0.7


class ClockRules(SourceHelpers):
    """Asked of every source."""

    def test_agents_in_two_time_zones_keep_each_others_leases(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """Leases must be right when agents have different time zones: the machines of one grid may be anywhere.
        Read: spi.TaskSource.extend, spi.TaskSource.nack."""
        if not self.shared or source.lease_seconds is None:
            not_asked("the place is the object itself, or its leases do not expire")
        with in_time_zone(EAST):
            given(*numbered(1))
            other = another()  # before there is a lease: it may take longer than one lasts
        with in_time_zone(WEST):
            in_the_west = self.take(source, 1)
        with in_time_zone(EAST):
            self.nothing_comes(other, 0.3, on_lease=True)
        with in_time_zone(WEST):
            self.held_again(source, in_the_west)
        with in_time_zone(EAST):
            self.publish(source, numbered(1))
            in_the_east = self.held(other, 1)
        with in_time_zone(WEST):
            self.nothing_comes(source, 0.3)
        if not self.returns(source):
            return
        for giver, leases, there, taker, here in (
            (source, in_the_west, WEST, other, EAST),
            (other, in_the_east, EAST, source, WEST),
        ):
            with in_time_zone(there):
                returned = time.monotonic()
                giver.nack(leases, 1.0)
            with in_time_zone(here):
                self.held(taker, 1)
            took = time.monotonic() - returned
            assert took >= EARLY, f"a task returned with a delay of 1 s came {took:.1f} s later in another time zone"

    def test_a_part_of_a_second_counts(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """Times such as 1.5 seconds may be rounded up, but must not be rounded down: a lease that ends too early is
        lost. Read: spi.TaskSource.nack, spi.TaskSource.extend."""
        if not self.returns(source):
            not_asked("`nack` is the default: what is returned waits for its lease to expire")
        given(*numbered(1))
        seconds = 0.8
        leases = self.held(source, 1)
        began = time.monotonic()
        source.nack(leases, seconds)
        (lease,) = self.held(source, 1)
        took = time.monotonic() - began
        assert took >= EARLY * seconds, f"a delay of {seconds:g} s lasted {took:.2f} s"
        if source.lease_seconds is None or type(source).extend is TaskSource.extend:
            return
        other = another()
        began = time.monotonic()
        gone = source.extend([lease], seconds)
        assert not gone, "a lease was extended in time, and is said to be lost"
        self.take(other, 1)
        took = time.monotonic() - began
        assert took >= EARLY * seconds, f"a lease that was extended by {seconds:g} s lasted {took:.2f} s"

    def test_a_task_whose_lease_is_over_is_counted_and_pending(self, source: TaskSource, given: Given) -> None:
        """A task whose lease has expired must be counted as waiting, and its session must be pending. The agent that
        held it may have died, and the task is not done. Read: spi.States, spi.TaskSource.is_pending."""
        if type(source).stats is TaskSource.stats:
            not_asked("`stats` is the default: it cannot tell how much it holds")
        given(*numbered(1, session_id="asked"), *numbered(1, session_id="another"))
        expiry = self.expiry(source)
        session = self.published[0].attributes.get("session_id", "")
        was_pending = source.is_pending(session)
        leases = self.take(source, 2)
        if self.returns(source):  # the other one, so that of each session one task is over
            source.nack([lease for lease in leases if lease.task.attributes.get("session_id") != session], 0.3)
        time.sleep(expiry)

        def wrong() -> str:
            for brief in (False, True):
                states = source.stats(brief=brief).states
                counted = (states.waiting or 0) + (states.delayed or 0) + (states.leased or 0)
                if counted != 2 and None not in {states.waiting, states.leased}:
                    return f"stats(brief={brief}) says {_told(states)}"
            short, full = (source.stats(brief=brief).states for brief in (True, False))
            both = [(getattr(short, name), getattr(full, name)) for name in ("waiting", "delayed", "leased")]
            if all(one == other for one, other in both if None not in {one, other}):
                return ""
            return f"stats(brief=True) says {_told(short)}, and stats() {_told(full)}"

        is_pending = source.is_pending(session)
        assert is_pending == was_pending, "a lease is over, and the session of its task is not pending any more"
        found = wrong()
        what = f"a lease and a delay have ended: 2 tasks must be counted, in any state, the same in both; {found}"
        eventually(lambda: not wrong(), 10 * self.wait_factor, what)
        self.take(source, 2)
        is_pending = source.is_pending(session)
        assert is_pending == was_pending, "a lease was over, its task is leased again, and its session is not pending"

    def test_the_oldest_task_is_told_by_its_age(self, source: TaskSource, given: Given) -> None:
        """`oldest_seconds` must be the age of the oldest task that waits: not that of the youngest, and not of a task that
        is done, a dead letter or cancelled. Read: spi.QueueStats.oldest_seconds."""
        given(*numbered(1))
        began = time.monotonic()
        if source.stats().oldest_seconds is None:
            not_asked("oldest_seconds is None: the source cannot tell, or not yet")
        time.sleep(1.2)
        self.publish(source, numbered(3))
        apart = time.monotonic() - began
        oldest = source.stats().oldest_seconds
        assert oldest is not None, "four tasks wait, and oldest_seconds is None"
        assert EARLY * apart <= oldest <= apart + 60, (
            f"the oldest of four tasks has waited for {apart:.1f} s, and oldest_seconds is {oldest:.1f}"
        )
        first = self.published[0].id
        done, dead, stopped, held = sorted(self.held(source, 4), key=lambda lease: lease.task.id == first)
        source.ack([done])
        source.dead_letter([dead], "the contract's reason")
        if isinstance(source, TaskQueue):
            source.cancel(task_ids=[stopped.task.id])
        else:
            source.ack([stopped])
        oldest = source.stats().oldest_seconds
        assert oldest is None, f"no task waits, and oldest_seconds is {oldest:.1f}; expected None"
        if self.returns(source):
            source.nack([held], 60 * self.wait_factor)
            oldest = source.stats().oldest_seconds
            assert oldest is not None, "a task is delayed, and oldest_seconds is None"
            assert oldest >= EARLY * apart, (
                f"a task that was put {apart:.1f} s ago was leased and returned, and oldest_seconds is {oldest:.1f}"
            )

    # --- helpers ---

    def held_again(self, source: TaskSource, leases: Sequence[Lease]) -> None:
        """Extends these leases for longer than the rule takes."""
        if source.lease_seconds is None:
            return
        gone = list(source.extend(leases, 60 * self.wait_factor))
        if gone:
            self.in_time()
        assert not gone, f"{gone[0]} was extended in time, and is said to be lost"


def _told(states: States) -> str:
    return f"waiting {states.waiting}, delayed {states.delayed}, leased {states.leased}"

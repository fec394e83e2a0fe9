"""The helpers of the rules about sources."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import NoReturn

import pytest
from htcgrid.spi import Lease, Task, TaskQueue, TaskSource

from htcgrid_contracts.common import PluginContract, not_asked, unique_id

Given = Callable[..., TaskSource]


def numbered(size: int, **attributes: str) -> list[Task]:
    """So many tasks, with ids that no other test has."""
    return [Task(unique_id(), b'{"value": %d}' % number, attributes) for number in range(size)]


def of_two_sessions(size: int) -> list[Task]:
    """So many tasks, half of them of another session."""
    return [*numbered(size - size // 2, session_id="s-1"), *numbered(size // 2, session_id="s-2")]


class SourceHelpers(PluginContract):
    """The fixtures and helper methods of the rules about sources."""

    finite: bool = False
    """Whether the source has an end, as a file has. Its tasks are then published before it is opened."""

    ends: bool = False
    """Whether it says so once it is empty, as a queue with `drain = true` does. Each finite source does."""

    shared: bool = True
    """Whether a second plugin of the same config receives from the same queue. Where the queue is in this object
    alone, rules about another receiver use the same object."""

    longest_lease: float = 10.0
    """Seconds. Rules that wait until a lease expires are left out where `lease_seconds` is above this."""

    largest_payload: int = 2_000_000
    """Bytes of an event that the queue must accept; give less where it has a limit."""

    # --- what a subclass gives ---

    @pytest.fixture
    def source(self) -> TaskSource:
        """A source, not opened, with a new and empty queue."""
        pytest.fail("override the fixture `source`: return a source, not opened, with a new and empty queue")

    def publish(self, source: TaskSource, tasks: Sequence[Task]) -> Sequence[Task] | None:
        """Put tasks where the source finds them, without using it: with the SDK, by writing a file.

        Returns the tasks as they should be leased, where they differ from those given: a file may use line
        numbers as ids. The default uses `put` of a `TaskQueue`, which proves less.
        """
        if not isinstance(source, TaskQueue):
            not_asked("override `publish(source, tasks)`: put tasks where the source finds them")
        source.put(tasks)
        return None

    def publish_invalid(self, source: TaskSource) -> None:
        """Put something there that is not a task, such as a message that is not JSON."""
        not_asked("override `publish_invalid(source)`: put there what is not a task, such as text that is not JSON")

    _safe_until = float("inf")

    published: Sequence[Task] = ()
    """The tasks that `given` has published, as they should be leased."""

    # --- fixtures ---

    @pytest.fixture
    def plugin(self, source: TaskSource) -> TaskSource:
        return source

    @pytest.fixture
    def given(self, source: TaskSource) -> Iterator[Given]:
        """Call it with tasks. It returns the source, opened, which will find them."""

        def given(*tasks: Task) -> TaskSource:
            if self.finite:
                self.published = self.publish(source, tasks) or tasks
            opened.enter_context(source)
            if tasks and not self.finite:
                self.published = self.publish(source, tasks) or tasks
            return source

        with ExitStack() as opened:
            yield given

    @pytest.fixture
    def another(self, source: TaskSource) -> Iterator[Callable[[], TaskSource]]:
        """Call it after `given`. It returns a second receiver on the same queue, opened."""

        def another() -> TaskSource:
            return opened.enter_context(self.again(source)) if self.shared else source

        with ExitStack() as opened:
            yield another

    # --- helpers ---

    def take(self, source: TaskSource, size: int, seconds: float = 10.0, why: str = "") -> list[Lease]:
        """Receive until so many tasks have been leased; `why` is said where they are not."""
        leased: list[Lease] = []
        ids: set[str] = set()
        has_expired = False
        deadline = time.monotonic() + seconds * self.wait_factor
        while len(leased) < size:
            assert time.monotonic() < deadline, (
                f"{why}{len(leased)} of {size} tasks were leased within {seconds * self.wait_factor:.0f} s"
            )
            asked = time.monotonic()
            some = source.receive(min(source.max_batch, size - len(leased)), 1.0)
            if some and not leased:
                self.lent_at(source, asked)
            for lease in some:
                if lease.task.id in ids and time.monotonic() >= self._safe_until:
                    has_expired = True  # while the others were waited for
                else:
                    leased.append(lease)
                    ids.add(lease.task.id)
        if has_expired or len(ids) < size:
            self.in_time()
        return leased

    def held(self, source: TaskSource, size: int, seconds: float = 10.0, why: str = "") -> list[Lease]:
        """Receive so many, and extend them for far longer than the rule takes, so that none expires meanwhile."""
        leases = self.take(source, size, seconds, why)
        if source.lease_seconds is not None:
            gone: set[str] = set()
            for start in range(0, size, source.max_batch):
                gone |= set(source.extend(leases[start : start + source.max_batch], 60 * self.wait_factor))
            if gone:
                self.in_time()
            assert not gone, f"{sorted(gone)} was extended in time, and is said to be lost"
            self._safe_until = float("inf")
        return leases

    def unlike(self, source: TaskSource, size: int) -> list[Lease]:
        """Lease so many tasks, where the source takes tasks back half of them twice: a batch of several attempts."""
        if not self.returns(source):
            return self.take(source, size)
        leases = self.held(source, size)
        once, twice = leases[::2], leases[1::2]
        self.in_batches(source, twice, source.nack)
        why = f"{len(twice)} of {size} leased tasks were returned: "
        leases = [*self.take(source, len(twice), why=why), *once]
        self.in_time()
        return leases

    def in_batches(
        self, source: TaskSource, leases: Sequence[Lease], call: Callable[[Sequence[Lease]], object]
    ) -> None:
        """Make the call for all of these, `max_batch` at a time."""
        for start in range(0, len(leases), source.max_batch):
            call(leases[start : start + source.max_batch])

    def all_ended(self, source: TaskSource, leases: Sequence[Lease], call: str) -> None:
        """Checks that none of these, which this call has ended, is leased still: an `extend` would make it come again."""
        if source.lease_seconds is None or type(source).extend is TaskSource.extend:
            return
        self.in_batches(source, leases, lambda some: source.extend(some, 0.1))
        came = source.receive(1, 0.4)
        assert not came, f"{call} was given {len(leases)} tasks, and {came[0].task.id} was leased still"

    def set_aside(self, source: TaskSource, size: int) -> None:
        """Make dead letters of so many tasks."""
        while size:
            leases = self.take(source, min(size, source.max_batch))
            source.dead_letter(leases, "the contract's reason")
            size -= len(leases)

    def returns(self, source: TaskSource) -> bool:
        """Whether `nack` does anything."""
        return type(source).nack is not TaskSource.nack

    def lent_at(self, source: TaskSource, moment: float) -> None:
        """Note when the leases that the rule holds began or were extended."""
        self._safe_until = moment + 0.75 * (source.lease_seconds or float("inf"))

    def in_time(self) -> None:
        """Leave the rule out where leases may have expired because this machine was slow: not a fault of the source."""
        if time.monotonic() >= self._safe_until:
            self.stood_still()

    def stood_still(self) -> NoReturn:
        """Leave the rule out, since this machine was too slow."""
        not_asked("this machine stood still for as long as a lease lasts; give the fixture a longer one")

    def nothing_comes(self, source: TaskSource, seconds: float | None = None, *, on_lease: bool = False) -> None:
        """Receive for a while, by default for less than a lease lasts; nothing may be leased.

        With `on_lease` there are tasks in hand that would be, had their lease expired.
        """
        if seconds is None:
            seconds = min(0.5, 0.4 * (source.lease_seconds or 10))
        deadline = time.monotonic() + seconds
        while True:
            leased = source.receive(1, max(0.0, min(1.0, deadline - time.monotonic())))
            if leased and on_lease:
                self.in_time()
            assert not leased, (
                f"{leased[0].task.id} was handed out, attempt {leased[0].attempt}, and should not have been"
            )
            if time.monotonic() >= deadline:
                return
            time.sleep(0.01)  # a source whose tasks are all leased need not wait for more

    def expiry(self, source: TaskSource) -> float:
        """After so many seconds a lease has expired for certain."""
        lease = source.lease_seconds
        if lease is None:
            not_asked("`lease_seconds` is None: leases do not expire")
        if lease > self.longest_lease:
            not_asked(
                f"`lease_seconds` is {lease:g}: give the fixture a lease of {self.longest_lease:g} s or less, "
                f"so that the rule need not wait so long (or raise `longest_lease`)"
            )
        return lease + 0.5 * self.wait_factor

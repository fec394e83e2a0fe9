"""What every task source must do: `spi.TaskSource`, rule by rule."""

import time
from collections.abc import Callable, Sequence

import pytest
from htcgrid.spi import Lease, Task, TaskQueue, TaskSource

from htcgrid_contracts.clock_rules import ClockRules
from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.dead_letter_rules import DeadLetterRules
from htcgrid_contracts.late_call_rules import LateCallRules
from htcgrid_contracts.lease_rules import LeaseRules
from htcgrid_contracts.payloads import AWKWARD_ATTRIBUTES, AWKWARD_PAYLOADS
from htcgrid_contracts.queue import TaskQueueRules
from htcgrid_contracts.queue_content_rules import QueueContentRules
from htcgrid_contracts.queue_states import QueueStateRules
from htcgrid_contracts.recovery_rules import RecoveryRules
from htcgrid_contracts.source_helpers import Given, numbered
from htcgrid_contracts.source_sharing_rules import SourceSharingRules
from htcgrid_contracts.wait_rules import WaitRules


class TaskSourceContract(
    LeaseRules,
    WaitRules,
    ClockRules,
    SourceSharingRules,
    TaskQueueRules,
    QueueStateRules,
    QueueContentRules,
    LateCallRules,
    DeadLetterRules,
    RecoveryRules,
):
    """Subclass it, and give the fixture `source`: a source, not opened, on a place that is new and empty.

    Give it as short a lease as possible, so that rules about expired leases need not wait long. `publish`
    is the oracle. See `SourceHelpers` and `PluginContract` for what else may be overridden.
    """

    # --- receive ---

    def test_receive_lends_no_more_than_it_is_asked_for(self, source: TaskSource, given: Given) -> None:
        """The agent asks for what it can hold; more would expire in its hands. Read: spi.TaskSource.receive."""
        given(*numbered(5))
        asked = min(2, source.max_batch)
        leased: Sequence[Lease] = ()
        deadline = time.monotonic() + 10 * self.wait_factor
        while not leased and time.monotonic() < deadline:
            leased = source.receive(asked, 1.0)
        assert 1 <= len(leased) <= asked, f"asked for {asked} of 5 tasks and got {len(leased)}"

    def test_a_full_batch_goes_through_every_call(self, source: TaskSource, given: Given) -> None:
        """`max_batch` is what the agent cuts to, for all four calls. Read: spi.TaskSource.max_batch."""
        assert source.max_batch >= 1, f"max_batch = {source.max_batch}; it is 1 at least"
        most = source.most_leased
        assert most is None or most >= source.max_batch, f"most_leased = {most}; a batch of {source.max_batch} is more"
        size = min(source.max_batch, 100)
        given(*numbered(size))
        leases = self.take(source, size)
        gone = source.extend(leases, source.lease_seconds or 10)
        assert not gone, f"a full batch was extended in time, and {len(gone)} are said to be lost"
        if _returns(source):
            source.nack(leases)
            leases = self.take(source, size)
        source.ack(leases)
        self.nothing_comes(source)

    def test_an_empty_receive_ends_after_about_its_wait(self, given: Given) -> None:
        """One that never ends holds up a drain; one that ends at once makes the agent spin. Read: spi.TaskSource.receive."""
        source = given()
        took = 0.0
        for _ in range(3):  # a busy machine may be late once
            began = time.monotonic()
            assert not source.receive(1, 1.0), "a task was leased where there is none"
            took = time.monotonic() - began
            if took < 1.0 + 2 * self.wait_factor:
                break
        assert took < 1.0 + 2 * self.wait_factor, f"waited {took:.1f} s when asked to wait 1 s"
        assert took > 0.5 or source.exhausted, f"came back after {took:.2f} s when asked to wait 1 s for a first task"

    def test_a_receive_without_wait_returns_at_once(self, given: Given) -> None:
        """With `wait` 0 the agent asks whether there is any, and has more to do. Read: spi.TaskSource.receive."""
        source = given()
        took = float("inf")
        for _ in range(3):  # a busy machine holds up one, a source that waits each
            began = time.monotonic()
            assert not source.receive(1, 0), "a task was leased where there is none"
            took = min(took, time.monotonic() - began)
        assert took < 1 * self.wait_factor, f"took {took:.1f} s when asked not to wait"

    def test_receive_returns_as_soon_as_it_has_any(self, source: TaskSource, given: Given) -> None:
        """One that waits for a full batch leaves environments idle. Read: spi.TaskSource.receive."""
        given(*numbered(1))
        began = time.monotonic()
        leased = source.receive(source.max_batch, 15.0 * self.wait_factor)
        took = time.monotonic() - began
        assert len(leased) == 1, f"one task was there and {len(leased)} were leased"
        assert took < 10 * self.wait_factor, f"a task was there, and receive waited {took:.1f} s for more"

    def test_receive_sees_a_task_that_comes_while_it_waits(self, given: Given) -> None:
        """A queue is empty most of the time that an agent waits on it. Read: spi.TaskSource.receive."""
        if self.finite:
            not_asked("finite: all tasks are there from the start")
        source = given()
        wait = 15.0 * self.wait_factor
        began = time.monotonic()

        def publish_later() -> Sequence[Lease]:
            time.sleep(0.5)
            self.publish(source, numbered(1))
            return ()

        leased, _ = in_threads([lambda: source.receive(1, wait), publish_later], 2 * wait)
        took = time.monotonic() - began
        assert len(leased) == 1, "a task came while receive waited, and it returned none"
        most = 0.5 + 5 * self.wait_factor
        assert took < most, f"a task came after 0.5 s, and receive({wait:g}) returned after {took:.1f} s"

    # --- leases ---

    def test_the_first_attempt_is_number_one(self, given: Given) -> None:
        """Retries are counted by it. Read: spi.Lease."""
        (lease,) = self.take(given(*numbered(1)), 1)
        assert lease.attempt == 1, f"the first time a task is handed out is attempt 1, and this says {lease.attempt}"
        assert not lease.invalid, f"a good task was called invalid: {lease.invalid}"

    def test_a_leased_task_is_not_lent_again(self, given: Given) -> None:
        """Two that hold it would both run it. Read: spi.TaskSource.receive."""
        source = given(*numbered(1))
        self.take(source, 1)
        self.nothing_comes(source, on_lease=True)

    def test_a_leased_task_is_not_lent_to_another_receiver(
        self, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """Agents on two machines share the queue. Read: spi.TaskSource.receive."""
        source = given(*numbered(1))
        other = another()
        self.take(source, 1)
        self.nothing_comes(other, on_lease=True)

    def test_an_expired_lease_is_handed_out_again_with_attempt_one_higher(
        self, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """An agent that died tells nobody; the expiry of its leases is how its tasks come back. Read: spi.TaskSource.receive."""
        source = given(*numbered(1))
        (lease,) = self.take(source, 1)
        (again,) = self.take(another(), 1, self.expiry(source) + 10)
        assert again.task.id == lease.task.id
        assert again.attempt == 2, f"handed out for the second time, it says attempt {again.attempt}"

    def test_what_was_leased_at_close_comes_again(self, given: Given, another: Callable[[], TaskSource]) -> None:
        """Nothing is lost when an agent goes. Read: spi.Plugin.close."""
        source = given(*numbered(1))
        (lease,) = self.take(source, 1)
        other = another()
        wait = self.expiry(source)
        source.close()
        (again,) = self.take(other, 1, wait + 10)
        assert again.task.id == lease.task.id

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
        wait = 10.0 if _returns(source) else self.expiry(source) + 10
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
        wait = 10.0 if _returns(source) else self.expiry(source) + 10
        (again,) = self.take(source, 1, wait)
        assert again.task == lease.task
        assert again.attempt == 2, f"handed out for the second time, it says attempt {again.attempt}"

    def test_a_returned_task_with_a_delay_waits_that_long(self, given: Given) -> None:
        """The delay is the back-off of a retry. Read: spi.TaskSource.nack."""
        source = given(*numbered(1))
        if not _returns(source):
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
        wait = 10.0 if _returns(source) else self.expiry(source) + 10
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

    def test_extend_says_which_task_was_cancelled(self, given: Given) -> None:
        """That is how a cancel reaches a running handler. Read: spi.TaskSource.extend."""
        source = given(*numbered(1), *numbered(1))
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: its tasks cannot be cancelled")
        leases = self.take(source, 2)
        self.names(source.cancel(task_ids=[leases[0].task.id]), [leases[0].task])
        gone: set[str] = set()
        for lease in leases:
            gone |= set(source.extend([lease], source.lease_seconds or 10))
        assert gone == {leases[0].task.id}, f"one of two tasks was cancelled, and extend says {sorted(gone)}"

    # --- what arrives ---

    @pytest.mark.parametrize("name", AWKWARD_PAYLOADS)
    def test_a_payload_arrives_as_it_was_sent(self, given: Given, name: str) -> None:
        """Byte for byte: a parse and a dump change numbers, order and keys. Read: spi, rules for all three."""
        (task,) = numbered(1)
        task = Task(task.id, AWKWARD_PAYLOADS[name])
        (lease,) = self.take(given(task), 1)
        assert lease.task.id == self.published[0].id
        assert lease.task.payload == task.payload, (
            f"sent {task.payload[:80]!r} ({len(task.payload)} bytes), "
            f"received {lease.task.payload[:80]!r} ({len(lease.task.payload)} bytes)"
        )

    def test_a_large_payload_arrives_whole(self, given: Given) -> None:
        """What a page or a message holds is no limit of an event. Read: spi, rules for all three."""
        (task,) = numbered(1)
        task = Task(task.id, b'"' + b"0123456789abcde\\n" * (self.largest_payload // 17) + b'"')
        (lease,) = self.take(given(task), 1)
        assert len(lease.task.payload) == len(task.payload), (
            f"sent {len(task.payload)} bytes, received {len(lease.task.payload)}: set `largest_payload` if the place "
            f"takes less"
        )
        assert lease.task.payload == task.payload, "a large payload arrived changed"

    @pytest.mark.parametrize("name", AWKWARD_ATTRIBUTES)
    def test_attributes_arrive_as_they_were_sent(self, given: Given, name: str) -> None:
        """Handlers read them in their context. Read: spi.Task."""
        (task,) = numbered(1)
        task = Task(task.id, b"{}", AWKWARD_ATTRIBUTES[name])
        source = given(task)
        if self.published[0].attributes != task.attributes:
            not_asked("`publish` says that the place holds no attributes of a task")
        (lease,) = self.take(source, 1)
        assert dict(lease.task.attributes) == dict(task.attributes)

    def test_what_is_no_task_is_lent_as_invalid(self, given: Given) -> None:
        """Its failure is stored and it is acked, and the tasks behind it come. Read: spi.Lease, spi.FailureKind.INVALID_EVENT."""
        if self.finite:
            not_asked("finite: override this rule where the place can hold what is not a task")
        source = given()
        self.publish_invalid(source)
        (lease,) = self.take(source, 1)
        assert len(lease.invalid) >= 10, f"say in `invalid` why it is not a task; it says {lease.invalid!r}"
        assert lease.task.id, "a lease that is invalid needs a task id all the same: its failure is stored by it"
        source.ack([lease])
        self.publish(source, numbered(1))
        (good,) = self.take(source, 1)
        assert not good.invalid, f"a good task behind it was called invalid: {good.invalid}"

    # --- as a whole ---

    def test_four_threads_lose_nothing_and_double_nothing(self, source: TaskSource, given: Given) -> None:
        """The agent calls from several threads at once. Read: spi, rules for all three."""
        tasks = numbered(80)
        given(*tasks)
        seen: list[str] = []
        held: list[float] = []
        deadline = time.monotonic() + 20 * self.wait_factor

        def work() -> None:
            while len(seen) < len(tasks) and time.monotonic() < deadline:
                asked = time.monotonic()
                leased = source.receive(min(source.max_batch, 5), 0.2)
                seen.extend(lease.task.id for lease in leased)
                if leased:
                    source.ack(leased)
                    held.append(time.monotonic() - asked)

        in_threads([work] * 4, 30 * self.wait_factor)
        doubled = len(seen) - len(set(seen))
        if doubled and max(held) > 0.75 * (source.lease_seconds or float("inf")):
            self.stood_still()
        assert not doubled, f"{doubled} tasks were leased twice to threads of one source"
        lost = {task.id for task in self.published} - set(seen)
        assert not lost, f"{len(lost)} of {len(tasks)} tasks were never leased, such as {min(lost)}"

    def test_it_is_not_exhausted_while_a_task_waits(self, given: Given) -> None:
        """The agent ends when it says so. Read: spi.TaskSource.exhausted."""
        source = given(*numbered(2))
        ended = source.exhausted
        assert not ended, "`exhausted` is true while two tasks wait"
        leases = self.take(source, 2)
        if _returns(source):
            source.nack(leases[:1])
            ended = source.exhausted
            assert not ended, "`exhausted` is true while a task that was returned waits"

    def test_a_finite_source_is_exhausted_when_all_is_lent(self, given: Given) -> None:
        """`htcgrid run` over a file ends by it; one that never says so runs for ever. Read: spi.TaskSource.exhausted."""
        if not self.finite:
            not_asked("not finite: it says False for ever")
        source = given(*numbered(2))
        leases = self.take(source, 2)
        source.receive(1, 0.2)  # a file is known to have ended when the end was read
        eventually(lambda: source.exhausted, 2 * self.wait_factor, "`exhausted` with all tasks leased")
        source.ack(leases)
        assert source.exhausted, "`exhausted` is false after all is acked"

    def test_a_place_that_went_away_is_unavailable(self, given: Given) -> None:
        """The agent waits with back-off and comes back to it. Read: spi.Unavailable."""
        source = given(*numbered(1))
        self.take_away(source)
        with self.unavailable("receive", source):
            source.receive(1, 1.0)


def _returns(source: TaskSource) -> bool:
    """Whether `nack` does anything."""
    return type(source).nack is not TaskSource.nack

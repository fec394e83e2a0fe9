"""What every task source must do: `spi.TaskSource`, rule by rule."""

import time

from htcgrid.spi import TaskSource

from htcgrid_contracts.arrival_rules import ArrivalRules
from htcgrid_contracts.beside_rules import BesideRules
from htcgrid_contracts.clock_rules import ClockRules
from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.dead_letter_rules import DeadLetterRules
from htcgrid_contracts.late_call_rules import LateCallRules
from htcgrid_contracts.lease_rules import LeaseRules
from htcgrid_contracts.network_rules import NetworkRules
from htcgrid_contracts.queue import TaskQueueRules
from htcgrid_contracts.queue_content_rules import QueueContentRules
from htcgrid_contracts.queue_states import QueueStateRules
from htcgrid_contracts.receive_rules import ReceiveRules
from htcgrid_contracts.recovery_rules import RecoveryRules
from htcgrid_contracts.settling_rules import SettlingRules
from htcgrid_contracts.source_helpers import Given, numbered
from htcgrid_contracts.source_sharing_rules import SourceSharingRules
from htcgrid_contracts.wait_rules import WaitRules


class TaskSourceContract(
    ReceiveRules,
    SettlingRules,
    ArrivalRules,
    LeaseRules,
    WaitRules,
    ClockRules,
    SourceSharingRules,
    TaskQueueRules,
    QueueStateRules,
    QueueContentRules,
    LateCallRules,
    DeadLetterRules,
    BesideRules,
    RecoveryRules,
    NetworkRules,
):
    """Subclass it, and give the fixture `source`: a source, not opened, with a new and empty queue.

    Its leases should be as short as possible, since some rules wait until one expires. The kit puts tasks with `publish`,
    without the source. See `SourceHelpers` and `PluginContract` for what else may be overridden.
    """

    def test_four_threads_lose_nothing_and_double_nothing(self, source: TaskSource, given: Given) -> None:
        """When four threads call at the same time, each task must be handed out once. The agent calls from several
        threads. Read: spi, rules for all three."""
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

    def test_a_finite_source_is_exhausted_when_all_is_lent(self, given: Given) -> None:
        """A source that ends, such as a file, must say so in `exhausted` once all tasks are leased. Otherwise `htcgrid
        run` never ends. Read: spi.TaskSource.exhausted."""
        if not self.finite:
            not_asked("not finite: it says False for ever")
        source = given(*numbered(2))
        leases = self.take(source, 2)
        source.receive(1, 0.2)  # a file is known to have ended when the end was read
        eventually(lambda: source.exhausted, 2 * self.wait_factor, "`exhausted` with all tasks leased")
        source.ack(leases)
        assert source.exhausted, "`exhausted` is false after all is acked"

    def test_a_source_without_an_end_is_never_exhausted(self, given: Given) -> None:
        """`exhausted` must stay false in a queue that is empty for now. The agents would end, and what comes later would
        wait. Read: spi.TaskSource.exhausted."""
        if self.finite or self.ends:
            not_asked("it has an end")
        source = given(*numbered(1))
        source.ack(self.take(source, 1))
        source.receive(1, 0.0)
        ended = source.exhausted
        assert not ended, "`exhausted` is true in an empty queue, to which tasks may still come"

    def test_a_place_that_went_away_is_unavailable(self, given: Given) -> None:
        """When the queue cannot be reached, `receive` must raise Unavailable. The agent then waits and tries again.
        Read: spi.Unavailable."""
        source = given(*numbered(1))
        with self.away(source):
            with self.unavailable("receive", source):
                source.receive(1, 1.0)
            source.close()  # also while it is away
            self.opens_or_says_why(source)

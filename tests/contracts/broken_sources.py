"""For every rule about sources a source that breaks it. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import json
import logging
import os
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatch
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from htcgrid_contracts import TaskSourceContract, contract_function
from outages import Outages, Reachable, StaysAway
from pydantic import BaseModel, ConfigDict, SecretStr

from htcgrid.builtin.memory import MemorySource
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import (
    DeadTask,
    Function,
    Lease,
    Plugin,
    QueueStats,
    Rejected,
    States,
    Task,
    TaskSource,
    Unavailable,
    Usage,
    generation_of,
)


class Reference(Reachable, MemorySource):
    """A good source: a queue in memory, with a dead letter list and messages that are no tasks."""

    def __init__(self, config: Any, function: Function) -> None:
        super().__init__(config, function)
        self.dead_ids: list[str] = []
        self.letters: list[DeadTask] = []
        self.invalid: list[Lease] = []

    def put(self, tasks: Sequence[Task]) -> None:
        self._reach()
        super().put(tasks)

    def ack(self, leases: Sequence[Lease]) -> None:
        self._reach()
        super().ack(leases)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        self._reach()
        super().nack(leases, delay)

    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        self._reach()
        return super().extend(leases, seconds)

    def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
        self._reach()
        return super().cancel(session_id, task_ids)

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        self._reach()
        if self.invalid:
            return [self.invalid.pop()]
        deadline = time.monotonic() + wait
        while not (leases := super().receive(max_tasks, 0)) and time.monotonic() < deadline:
            time.sleep(0.01)
            self._reach()
        return leases

    def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
        self._reach()
        self.dead_ids += [lease.task.id for lease in leases]
        self.letters += [DeadTask(lease.task, lease.attempt, reason) for lease in leases]
        MemorySource.ack(self, leases)

    def dead_letters(self) -> Iterable[DeadTask]:
        self._reach()
        return self.letters

    def is_pending(self, session_id: str) -> bool:
        self._reach()
        return super().is_pending(session_id)

    def stats(self, *, brief: bool = False) -> QueueStats:
        self._reach()
        return QueueStats(replace(super().stats().states, dead=len(self.dead_ids)))

    redrives = True

    def redrive(self, tasks: Sequence[Task]) -> None:
        self._reach()
        with self._changed:
            for task in tasks:
                if task.id in self._tasks and generation_of(self._tasks[task.id].task) < generation_of(task):
                    del self._tasks[task.id]
                    self._until.pop(task.id, None)
        MemorySource.put(self, tasks)
        self._forget(tasks)

    def _forget(self, tasks: Sequence[Task]) -> None:
        ids = {task.id for task in tasks}
        self.letters = [letter for letter in self.letters if letter.task.id not in ids]
        self.dead_ids = [task_id for task_id in self.dead_ids if task_id not in ids]

    @property
    def exhausted(self) -> bool:
        return False


class Case(Outages, TaskSourceContract):
    """A reference source with one thing wrong."""

    shared = False
    breaks = ""
    says = ""
    broken: type[Any] = Reference
    lease_seconds = 0.4
    wait_factor = 0.4

    @pytest.fixture
    def source(self) -> TaskSource:
        source: TaskSource = self.broken(self.broken.Config(lease_seconds=self.lease_seconds), contract_function())
        return source

    @pytest.fixture
    def missing(self) -> Plugin:
        class Missing(type(self).broken):  # type: ignore[misc]
            def open(self) -> None:
                self.refuse()

            def refuse(self) -> None:
                raise Rejected("There is no queue named q. Create it, or name another.")

        if "refuse" in vars(self.broken):
            Missing.refuse = self.broken.refuse  # type: ignore[method-assign]
        return Missing(self.broken.Config(lease_seconds=1), contract_function())

    def publish_invalid(self, source: Reference) -> None:  # type: ignore[override]
        source.invalid.append(Lease(Task("bad-1", b"{"), invalid="not JSON: Expecting property name"))


class TestReference(Case):
    """Holds every rule, on a busy machine too."""

    lease_seconds = 1.0
    wait_factor = 1.0


# --- any plugin ---


class TestVersion(Case):
    breaks = "test_it_is_written_for_this_version_of_the_interface"
    says = "spi = 99"

    class broken(Reference):
        spi = 99


class TestUnknownKey(Case):
    breaks = "test_an_unknown_key_of_its_config_is_refused"
    says = "Config accepted the key"

    class broken(Reference):
        class Config(BaseModel):
            model_config = ConfigDict(extra="ignore")
            lease_seconds: float = 1


class TestConstructor(Case):
    breaks = "test_constructing_opens_nothing"
    says = "the constructor took 1 more open file"

    class broken(Reference):
        def __init__(self, config: Any, function: Function) -> None:
            super().__init__(config, function)
            self.file = open(os.devnull)  # noqa: PTH123, SIM115


class TestCloseTwice(Case):
    breaks = "test_close_is_quiet_when_called_twice"
    says = "was closed already"

    class broken(Reference):
        closed = False

        def close(self) -> None:
            assert not self.closed, "was closed already"
            self.closed = True


class TestCloseBeforeOpen(Case):
    breaks = "test_close_is_quiet_before_open"
    says = "thread"

    class broken(Reference):
        def close(self) -> None:
            self.thread.join()  # type: ignore[attr-defined]


class TestLeak(Case):
    breaks = "test_close_releases_all_that_open_took"
    says = "there is still the thread"

    class broken(Reference):
        def open(self) -> None:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()


class TestLeavesAFileToTheCollector(Case):
    breaks = "test_close_releases_all_that_open_took"
    says = "left to Python's garbage collector"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            found = Path(os.devnull).open()  # noqa: SIM115
            super().put(tasks)
            found.close()


class TestClosesOneOfItsConnections(Case):
    breaks = "test_close_releases_all_that_open_took"
    says = "more open file descriptors"

    class broken(Reference):
        """Calls at the same time have a connection each, and `close` closes one."""

        def __init__(self, config: Any, function: Function) -> None:
            super().__init__(config, function)
            self.idle: list[int] = []

        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            connection = self.idle.pop() if self.idle else os.open(os.devnull, os.O_RDONLY)
            time.sleep(0.02)
            leases = super().receive(max_tasks, wait)
            self.idle.append(connection)
            return leases

        def close(self) -> None:
            if self.idle:
                os.close(self.idle.pop())
            super().close()


class TestWarnsWhenItIsClosed(Case):
    breaks = "test_close_releases_all_that_open_took"
    says = "`close` logs a warning: The queue cannot be removed"

    class broken(Reference):
        def close(self) -> None:
            logging.getLogger("htcgrid.broken").warning("The queue cannot be removed: this is closed.")
            super().close()


class TestMissingPasses(Case):
    breaks = "test_a_place_that_is_not_there_is_a_clear_error"
    says = "went through though"

    class broken(Reference):
        def refuse(self) -> None:
            """Create it quietly."""


class TestSharesItsQueueWithAll(Case):
    breaks = "test_a_place_that_is_not_there_is_an_error_beside_one_that_is"
    says = "it works while another plugin of this kind is open"

    class broken(Reference):
        connections: ClassVar[list[object]] = []

        def open(self) -> None:
            super().open()
            self.connections.append(self)

        def close(self) -> None:
            super().close()
            if self in self.connections:
                self.connections.remove(self)

        def refuse(self) -> None:
            if not self.connections:
                raise Rejected("There is no queue named q. Create it, or name another.")


class TestSecret(Case):
    breaks = "test_its_errors_and_repr_keep_secrets"
    says = "SecretStr"

    class broken(Reference):
        class Config(MemorySource.Config):
            password: str = "hunter22"


class TestShowsASecretThatItCannotSend(Case):
    breaks = "test_its_errors_and_repr_keep_secrets"
    says = "where it ends with a line break"

    class broken(Reference):
        class Config(MemorySource.Config):
            token: SecretStr = SecretStr("hunter22-and-more")

        config: Config

        def open(self) -> None:
            token = self.config.token.get_secret_value()
            if "\n" in token:
                raise Rejected(f"Invalid header value {token!r}")
            super().open()


class TestShowsAWrongAddress(Case):
    breaks = "test_its_errors_and_repr_keep_secrets"
    says = "where it has another scheme"

    class broken(Reference):
        class Config(MemorySource.Config):
            url: SecretStr = SecretStr("queue://grid:hunter22-and-more@queue.example:7000")

        config: Config

        def open(self) -> None:
            url = self.config.url.get_secret_value()
            if not url.startswith("queue://"):
                raise Rejected(f"{url} is not the address of a queue")
            super().open()


# --- receive ---


class TestTooMany(Case):
    breaks = "test_receive_lends_no_more_than_it_is_asked_for"
    says = "asked for 2 of 5 tasks and got 3"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return super().receive(max_tasks + 1, wait)


class TestFullBatch(Case):
    breaks = "test_a_full_batch_goes_through_every_call"
    says = "such a batch is too long"

    class broken(Reference):
        def ack(self, leases: Sequence[Lease]) -> None:
            assert len(leases) <= 10, "such a batch is too long"
            super().ack(leases)


class TestMostLeased(Case):
    breaks = "test_a_full_batch_goes_through_every_call"
    says = "most_leased = 9; a batch of 1000 is more"

    class broken(Reference):
        most_leased = 9


class TestSpins(Case):
    breaks = "test_an_empty_receive_ends_after_about_its_wait"
    says = "asked to wait 1 s for a first task"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return super().receive(max_tasks, 0)


class TestWaitsAnyway(Case):
    breaks = "test_a_receive_without_wait_returns_at_once"
    says = "asked not to wait"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return super().receive(max_tasks, max(wait, 1))


class TestWaitsForMore(Case):
    breaks = "test_receive_returns_as_soon_as_it_has_any"
    says = "receive waited"
    wait_factor = 0.1

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            time.sleep(wait)
            return super().receive(max_tasks, 0)


class TestLooksOnce(Case):
    breaks = "test_receive_sees_a_task_that_comes_while_it_waits"
    says = "which returned 0"
    wait_factor = 0.1

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            leases = super().receive(max_tasks, 0)
            if not leases:
                time.sleep(wait)
            return leases


# --- leases ---


class TestCountsFromZero(Case):
    breaks = "test_the_first_attempt_is_number_one"
    says = "this says 0"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return [replace(lease, attempt=lease.attempt - 1) for lease in super().receive(max_tasks, wait)]


class LendsTwice(Reference):
    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        self._until = dict.fromkeys(self._until, 0.0)
        return super().receive(max_tasks, wait)


class TestLendsTwice(Case):
    breaks = "test_a_leased_task_is_not_lent_again"
    lease_seconds = 5.0
    says = "handed out, attempt 2"
    broken = LendsTwice


class TestLendsToAnother(Case):
    breaks = "test_a_leased_task_is_not_lent_to_another_receiver"
    lease_seconds = 5.0
    says = "handed out, attempt 2"
    broken = LendsTwice


class NeverCounts(Reference):
    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        return [replace(lease, attempt=1) for lease in super().receive(max_tasks, wait)]


class TestLapseIsNotCounted(Case):
    breaks = "test_an_expired_lease_is_handed_out_again_with_attempt_one_higher"
    says = "it says attempt 1"
    broken = NeverCounts


class TestLosesAtClose(Case):
    breaks = "test_what_was_leased_at_close_comes_again"
    says = "0 of 1 tasks were leased"
    wait_factor = 0.1

    class broken(Reference):
        def close(self) -> None:
            self._tasks.clear()
            self._until.clear()


# --- ack, nack, extend ---


class TestAckDoesNothing(Case):
    breaks = "test_an_acked_task_is_never_handed_out_again"
    says = "was handed out, attempt 2"

    class broken(Reference):
        def ack(self, leases: Sequence[Lease]) -> None:
            """Nothing."""


class TestAcksAll(Case):
    breaks = "test_ack_ends_the_tasks_it_names_and_no_other"
    says = "0 of 2 tasks were leased"
    wait_factor = 0.1

    class broken(Reference):
        def ack(self, leases: Sequence[Lease]) -> None:
            self._tasks.clear()
            self._until.clear()


class LoudWhenLost(Reference):
    def ack(self, leases: Sequence[Lease]) -> None:
        assert all(self._is_ours(lease) for lease in leases), "the lease is not ours"
        super().ack(leases)

    def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        assert all(self._is_ours(lease) for lease in leases), "the lease is not ours"
        super().nack(leases, delay)


class TestSecondAck(Case):
    breaks = "test_a_second_ack_is_quiet"
    says = "the lease is not ours"
    broken = LoudWhenLost


class TestLateAck(Case):
    breaks = "test_an_ack_after_the_lease_was_lost_is_quiet"
    says = "the lease is not ours"
    broken = LoudWhenLost


class TestGiveBackIsNotCounted(Case):
    breaks = "test_a_returned_task_is_handed_out_again_with_attempt_one_higher"
    says = "it says attempt 1"
    broken = NeverCounts


class TestNoDelay(Case):
    breaks = "test_a_returned_task_with_a_delay_waits_that_long"
    says = "after it was returned with a delay of"

    class broken(Reference):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            super().nack(leases, 0)


class TestSecondNack(Case):
    breaks = "test_a_second_return_is_quiet"
    says = "the lease is not ours"
    broken = LoudWhenLost


class TestLateNack(Case):
    breaks = "test_a_return_after_the_lease_was_lost_is_quiet"
    says = "the lease is not ours"
    broken = LoudWhenLost


class TestExtendDoesNothing(Case):
    breaks = "test_an_extended_lease_is_kept"
    lease_seconds = 2.0
    says = "was handed out"

    class broken(Reference):
        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            return ()


class SaysNothingLost(Reference):
    def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
        super().extend(leases, seconds)
        return ()


class TestExtendHidesTheLost(Case):
    breaks = "test_extend_says_which_lease_was_lost"
    says = "extend says []"
    broken = SaysNothingLost


class TestExtendHidesTheCancelled(Case):
    breaks = "test_extend_says_which_task_was_cancelled"
    says = "extend says []"
    broken = SaysNothingLost


# --- what arrives ---


class TestParses(Case):
    breaks = "test_a_payload_arrives_as_it_was_sent"
    says = "received b'"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return [
                replace(lease, task=replace(lease.task, payload=json.dumps(json.loads(lease.task.payload)).encode()))
                for lease in super().receive(max_tasks, wait)
            ]


class TestDropsEmptyAttributes(Case):
    breaks = "test_attributes_arrive_as_they_were_sent"
    says = "note"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return [
                replace(
                    lease, task=replace(lease.task, attributes={k: v for k, v in lease.task.attributes.items() if v})
                )
                for lease in super().receive(max_tasks, wait)
            ]


class TestHidesTheInvalid(Case):
    breaks = "test_what_is_no_task_is_lent_as_invalid"
    says = "say in `invalid` why"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return [replace(lease, invalid="") for lease in super().receive(max_tasks, wait)]


class TestThreads(Case):
    breaks = "test_four_threads_lose_nothing_and_double_nothing"
    says = "leased twice to threads"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            # What a read and a write without a lock between come to.
            ready = [replace(lease, attempt=1) for lease in self._tasks.values()][:max_tasks]
            time.sleep(0.01)
            return ready

        def ack(self, leases: Sequence[Lease]) -> None:
            for lease in leases:
                self._tasks.pop(lease.task.id, None)


class TestEndsTooSoon(Case):
    breaks = "test_it_is_not_exhausted_while_a_task_waits"
    says = "returned waits"

    class broken(Reference):
        received = False

        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            self.received = True
            return super().receive(max_tasks, wait)

        @property
        def exhausted(self) -> bool:
            return self.received


class TestEndsWhenEmpty(Case):
    breaks = "test_a_source_without_an_end_is_never_exhausted"
    says = "true in an empty queue"

    class broken(Reference):
        @property
        def exhausted(self) -> bool:
            return not self._due and not self._tasks


class TestNeverEnds(Case):
    breaks = "test_a_finite_source_is_exhausted_when_all_is_lent"
    says = "with all tasks leased: not within"
    finite = True
    broken = Reference


class TestCrashesWhenAway(Case):
    breaks = "test_a_place_that_went_away_is_unavailable"
    says = "ConnectionError"

    class broken(Reference):
        def unavailable(self) -> Exception:
            return ConnectionError("connection refused")


# --- queues ---


class TestPutDropsAttributes(Case):
    breaks = "test_put_accepts_a_task_that_receive_then_hands_out"
    says = "the leased tasks are not the tasks that were put"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            super().put([replace(task, attributes={}) for task in tasks])


class TestPutOverwrites(Case):
    breaks = "test_put_rejects_an_id_that_is_there_already"
    says = "DID NOT RAISE"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            super().put([task for task in tasks if task.id not in self._tasks])


class TestPutAgain(Case):
    breaks = "test_put_of_a_task_that_is_there_leaves_one"
    says = "was refused"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            if any(task.id in self._tasks for task in tasks):
                raise Rejected("It is there.", [task.id for task in tasks])
            super().put(tasks)


class TestPutsHalf(Case):
    breaks = "test_put_accepts_all_or_none"
    lease_seconds = 5.0
    says = "was handed out"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            for task in sorted(tasks, key=lambda task: task.id in self._tasks):
                super().put([task])


class TestRedriveKeepsWhatIsThere(Case):
    breaks = "test_a_redriven_task_is_lent_though_an_earlier_generation_is_left"
    says = "tasks were leased within"

    class broken(Reference):
        def redrive(self, tasks: Sequence[Task]) -> None:
            MemorySource.put(self, [task for task in tasks if task.id not in self._tasks])


class TestRedrivesTwice(Case):
    breaks = "test_what_is_redriven_twice_is_lent_once"
    lease_seconds = 5.0
    says = "was extended in time, and is said to be lost"

    class broken(Reference):
        def redrive(self, tasks: Sequence[Task]) -> None:
            for task in tasks:
                self.invalid.append(Lease(task))


class TestRedriveReplacesWhatIsLeased(Case):
    breaks = "test_what_is_redriven_twice_is_lent_once"
    says = "was handed out, attempt 1, and should not have been"
    lease_seconds = 5.0

    class broken(Reference):
        def redrive(self, tasks: Sequence[Task]) -> None:
            with self._changed:
                for task in tasks:
                    self._tasks.pop(task.id, None)
                    self._until.pop(task.id, None)
                    self._due = sorted(entry for entry in self._due if entry[2] != task.id)
            super().redrive(tasks)


class TestCancelOnlyMarks(Case):
    breaks = "test_a_cancelled_task_that_waits_never_runs"
    lease_seconds = 5.0
    says = "was handed out"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            return [lease.task for lease in self._tasks.values() if lease.task.id in task_ids]


class TestCancelsAllSessions(Case):
    breaks = "test_cancelling_a_session_leaves_the_others_alone"
    says = "should have been cancelled"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            return super().cancel(task_ids=list(self._tasks))


class TestCancelsWhatIsNotThere(Case):
    breaks = "test_cancelling_what_is_not_there_is_none"
    says = "should have been cancelled"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            return [Task(task_id, b"") for task_id in task_ids]


class TestForgetsWhatWasCancelled(Case):
    breaks = "test_cancelling_again_names_the_same_tasks"
    shared = True
    says = "should have been cancelled"

    class broken(Reference):
        done = False

        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            cancelled = () if self.done else super().cancel(session_id, task_ids)
            self.done = True
            return cancelled


class TestDepthCountsAll(Case):
    breaks = "test_depth_counts_what_waits_and_what_is_lent"
    says = "stats() is to show"
    wait_factor = 0.05

    class broken(Reference):
        def stats(self, *, brief: bool = False) -> QueueStats:
            return QueueStats(States(waiting=len(self._tasks), leased=len(self._until)))


class TestDeadComesBack(Case):
    breaks = "test_a_task_set_aside_is_not_handed_out_again"
    says = "was handed out"

    class broken(Reference):
        def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
            self.dead_ids += [lease.task.id for lease in leases]


class TestForgetsTheReason(Case):
    breaks = "test_a_dead_letter_is_listed_with_its_reason"
    says = "is not the one that is listed"

    class broken(Reference):
        def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
            super().dead_letter(leases, "failed")


class TestForgetsLeasesOfASession(Case):
    breaks = "test_a_session_is_pending_until_its_last_task_is_done"
    says = "is leased, and it is not pending"

    class broken(Reference):
        def is_pending(self, session_id: str) -> bool:
            return super().is_pending(session_id) and not self._until


# --- batches, seconds, lost leases ---


class TestAcksTheFirst(Case):
    breaks = "test_ack_ends_every_task_of_a_batch"
    says = "was leased still"

    class broken(Reference):
        def ack(self, leases: Sequence[Lease]) -> None:
            super().ack(leases[:1])


class TestNacksTheFirst(Case):
    breaks = "test_nack_returns_every_task_of_a_batch"
    says = "leased tasks were returned: 1 of"
    wait_factor = 0.1

    class broken(Reference):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            super().nack(leases[:1], delay)


class TestOneLostAllLost(Case):
    breaks = "test_a_lease_that_is_over_spoils_no_batch"
    says = "extend calls another lost"

    class broken(Reference):
        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            lost = super().extend(leases, seconds)
            return [lease.task.id for lease in leases] if lost else ()


class TestLongLeases(Case):
    breaks = "test_a_lease_lasts_as_long_as_it_says"
    says = "and the lease lasted"
    wait_factor = 0.1

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            leases = super().receive(max_tasks, wait)
            MemorySource.extend(self, leases, 2 * self.config.lease_seconds)
            return leases


class TestExtendDoubles(Case):
    breaks = "test_extend_keeps_every_lease_for_so_many_seconds_from_now"
    says = "`seconds` count from now"
    wait_factor = 0.1

    class broken(Reference):
        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            return super().extend(leases, 2 * seconds)


class TestDelaysHalf(Case):
    breaks = "test_a_delay_is_kept_for_every_task_of_a_batch"
    says = "it was returned with a delay of"

    class broken(Reference):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            super().nack(leases, delay / 2)


class TestLateNackTakesTheLease(Case):
    breaks = "test_a_late_call_leaves_the_lease_of_the_new_holder"
    says = "was handed out, attempt 3"

    class broken(Reference):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            super().nack([self._tasks[lease.task.id] for lease in leases], delay)


class TestPutsTogetherWhatDoesNotBelong(Case):
    breaks = "test_a_lost_lease_in_a_batch_leaves_the_new_holder_its_task"
    says = "made one of them come again"

    class broken(Reference):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            ids, attempts = {lease.task.id for lease in leases}, {lease.attempt for lease in leases}
            there = [self._tasks[each] for each in ids if each in self._tasks]
            super().nack([lease for lease in there if lease.attempt in attempts], delay)


class TestCountsToTwo(Case):
    breaks = "test_attempts_go_on_counting"
    says = "handed out 3 times, the task says attempt 2"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return [replace(lease, attempt=min(2, lease.attempt)) for lease in super().receive(max_tasks, wait)]


# --- waits, and places that went away ---


class TestWaitsTwice(Case):
    breaks = "test_receive_keeps_its_wait"
    says = "when asked to wait"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return super().receive(max_tasks, 2 * wait)


class TestIsSentAwayWhenAnotherWasFaster(Case):
    breaks = "test_a_receive_whose_task_another_agent_gets_goes_on_waiting"
    says = "another agent got it, and receive(1, "

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            deadline, puts = time.monotonic() + wait, self.puts
            while not (leases := super().receive(max_tasks, 0)) and time.monotonic() < deadline:
                if self.puts != puts:
                    return ()
                time.sleep(0.01)
            return leases

        puts = 0

        def put(self, tasks: Sequence[Task]) -> None:
            super().put(tasks)
            self.puts += 1


class TestLooksAtTheFirstTen(Case):
    breaks = "test_a_returned_task_comes_again_though_many_are_leased"
    says = "a task was returned, behind others of 30 that are leased"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            if sum(each in self._until for each in list(self._tasks)[:10]) == 10 and len(self._until) > 28:
                time.sleep(min(wait, 0.1))
                return ()
            return super().receive(max_tasks, wait)


class TestOneCallAtATime(Case):
    breaks = "test_a_receive_that_waits_holds_up_no_other_call"
    says = "they waited for it"

    class broken(Reference):
        def __init__(self, config: Any, function: Function) -> None:
            super().__init__(config, function)
            self.one = threading.Lock()

        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            with self.one:
                return super().receive(max_tasks, wait)

        def ack(self, leases: Sequence[Lease]) -> None:
            with self.one:
                super().ack(leases)


class TestSleepsThroughAReturn(Case):
    breaks = "test_a_receive_that_waits_is_woken_by_a_return"
    says = "and it received none"
    wait_factor = 0.1
    broken = TestLooksOnce.broken


class TestIgnoresMaxBatch(Case):
    breaks = "test_all_of_many_tasks_come_once"
    says = "max_batch is 10, and receive(120) leased 120"

    class broken(Reference):
        max_batch = 10

        def _next_leases(self, most: int) -> list[Lease]:
            return super()._next_leases(1000)


class TestEndsBeforeTheDelay(Case):
    breaks = "test_a_delayed_task_is_not_the_end"
    says = "`exhausted` is true while"
    finite = True

    class broken(Reference):
        @property
        def exhausted(self) -> bool:
            return not any(due <= time.monotonic() for due, _, _ in self._due)


class TestSwallowsOutages(Case):
    breaks = "test_every_call_says_unavailable_once_its_place_went_away"
    says = "ack raised nothing"

    class broken(Reference):
        def ack(self, leases: Sequence[Lease]) -> None:
            MemorySource.ack(self, leases)


class TestCallsAgentsByNumbers(Case):
    breaks = "test_stats_name_an_agent_by_its_name"
    says = "has leased 2 tasks, and `agents` of the stats are {'agent 0'"
    shared = True

    @pytest.fixture
    def source(self, tmp_path: Path) -> TaskSource:
        source: TaskSource = self.broken(
            self.broken.Config(path=tmp_path / "grid.db", lease_seconds=5), contract_function()
        )
        return source

    class broken(SqliteSource):
        def stats(self, *, brief: bool = False) -> QueueStats:
            found = super().stats(brief=brief)
            numbered = enumerate((found.agents or {}).values())
            return replace(found, agents={f"agent {number}": holder for number, holder in numbered})


class TestThrottledIsEmpty(Case):
    breaks = "test_throttling_is_unavailable"
    says = "raised nothing"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            try:
                return super().receive(max_tasks, wait)
            except Unavailable:
                return ()


# --- queues in every state ---


class TestPutTidies(Case):
    breaks = "test_put_keeps_ids_payloads_and_attributes"
    says = "received b'"
    lease_seconds = 5.0

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            super().put([replace(task, payload=task.payload.replace(b" ", b"")) for task in tasks])


class TestPutTakesTwice(Case):
    breaks = "test_put_rejects_what_differs_in_its_attributes_or_comes_twice"
    says = "DID NOT RAISE"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            super().put(list({task.id: task for task in tasks}.values()))


class TestPutsIntoItsOwnMemory(Case):
    breaks = "test_what_was_put_outlives_its_submitter"
    says = "0 of 3 tasks were leased"
    shared = True
    wait_factor = 0.1
    broken = Reference


class TestCancelsTheFirst(Case):
    breaks = "test_cancel_stops_every_task_that_it_is_given"
    says = "4 tasks were cancelled, and cancel named 1"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            return super().cancel(session_id, list(task_ids)[:1])


class TestCancelledComesBack(Case):
    breaks = "test_a_cancelled_task_stays_away_when_its_lease_is_over"
    says = "was handed out, attempt 2"
    broken = TestCancelOnlyMarks.broken


class TestCountsTheDelayedTwice(Case):
    breaks = "test_a_queue_in_every_state_is_counted_right"
    says = "waiting is 9, expected 8"
    wait_factor = 0.1

    class broken(Reference):
        def stats(self, *, brief: bool = False) -> QueueStats:
            return QueueStats(replace(super().stats().states, delayed=1))


class TestCancelsTheDead(Case):
    breaks = "test_a_session_in_every_state_is_cancelled_right"
    says = "expected the first five"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            dead = [letter.task for letter in self.letters] if session_id else []
            return [*super().cancel(session_id, task_ids), *dead]


class TestForgetsTheDelayed(Case):
    breaks = "test_a_session_is_pending_while_its_task_is_delayed"
    says = "is delayed, and it is not pending"

    class broken(Reference):
        def is_pending(self, session_id: str) -> bool:
            delayed = {task_id for due, _, task_id in self._due if due > time.monotonic()}
            return super().is_pending(session_id) and not delayed


class TestStatsTakeTasks(Case):
    breaks = "test_looking_changes_nothing"
    says = "tasks that were only inspected count as handed out"

    class broken(Reference):
        def stats(self, *, brief: bool = False) -> QueueStats:
            MemorySource.receive(self, 1, 0)
            return super().stats(brief=brief)


class TestCutsReasons(Case):
    breaks = "test_dead_letters_are_kept_with_all_that_is_known"
    says = "and listed is"

    class broken(Reference):
        def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
            super().dead_letter(leases, reason[:30])


class TestForgetsAttempts(Case):
    breaks = "test_a_dead_letter_tells_its_attempts"
    says = "dead letters with their attempts and reasons: expected"

    class broken(Reference):
        def dead_letters(self) -> Iterable[DeadTask]:
            return [replace(letter, attempt=1) for letter in self.letters]


class TestDeadAndRunning(Case):
    breaks = "test_what_is_redriven_is_no_dead_letter_any_more"
    says = "are listed as dead letters still"
    lease_seconds = 5.0

    class broken(Reference):
        def _forget(self, tasks: Sequence[Task]) -> None:
            """Nothing."""


class TestCutsLargePayloads(Case):
    breaks = "test_a_large_payload_arrives_whole"
    says = "received 1000000"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return [
                replace(lease, task=replace(lease.task, payload=lease.task.payload[:1_000_000]))
                for lease in super().receive(max_tasks, wait)
            ]


class TestRedrivesUnsaid(Case):
    breaks = "test_what_can_be_redriven_is_said"
    says = "`redrives` is False, and there is a `redrive`"

    class broken(Reference):
        redrives = False


# --- beside other agents and commands ---


class OnAFile(Case):
    """A source in a file that several share."""

    shared = True
    broken: type[Any] = SqliteSource
    lease_seconds = 5.0

    @pytest.fixture
    def source(self, tmp_path: Path) -> TaskSource:
        source: TaskSource = self.broken(
            self.broken.Config(path=tmp_path / "grid.db", lease_seconds=self.lease_seconds), contract_function()
        )
        return source


class TestAgentsRace(OnAFile):
    breaks = "test_agents_beside_each_other_lose_nothing_and_double_nothing"
    says = "were leased to two agents"

    class broken(SqliteSource):
        held: Sequence[Lease] = ()

        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            leases = super().receive(max_tasks, wait)
            again, type(self).held = self.held, leases
            return [*again, *leases][:max_tasks]


class TestCancelsHere(OnAFile):
    breaks = "test_a_cancel_from_elsewhere_reaches_who_holds_the_task"
    says = "cancelled by another program, and extend says []"

    class broken(SqliteSource):
        here: Collection[str] = ()

        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            self.here = {*self.here, *task_ids}
            return super().cancel(session_id, task_ids)

        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            return [task_id for task_id in super().extend(leases, seconds) if task_id in self.here]


class TestCountsItsOwn(OnAFile):
    breaks = "test_stats_and_dead_letters_are_the_same_for_every_agent"
    says = "waiting is 0, expected 1"
    wait_factor = 0.1

    class broken(SqliteSource):
        mine = 0

        def put(self, tasks: Sequence[Task]) -> None:
            super().put(tasks)
            self.mine += len(tasks)

        def stats(self, *, brief: bool = False) -> QueueStats:
            return super().stats(brief=brief) if self.mine else QueueStats(States(0, 0, 0, 0, 0))


class TestKnowsItsOwnSessions(OnAFile):
    breaks = "test_a_session_is_pending_for_every_agent"
    says = "to another program its session is not pending"

    class broken(SqliteSource):
        mine: Collection[str] = ()

        def put(self, tasks: Sequence[Task]) -> None:
            super().put(tasks)
            self.mine = {*self.mine, *(task.attributes.get("session_id", "") for task in tasks)}

        def is_pending(self, session_id: str) -> bool:
            return session_id in self.mine and super().is_pending(session_id)


class LooksAtTheEnd(SqliteSource):
    """Where nothing is there it sleeps, and then looks once more."""

    def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
        leases = super().receive(max_tasks, 0)
        if not leases and wait:
            time.sleep(wait)
            leases = super().receive(max_tasks, 0)
        return leases


class TestSleepsThroughReturns(OnAFile):
    breaks = "test_a_receive_that_waits_is_woken_by_another_agent"
    says = "while receive waited, which saw it"
    broken = LooksAtTheEnd


class TestSleepsThroughDelays(OnAFile):
    breaks = "test_a_delay_that_ends_while_receive_waits_is_seen"
    says = "a receive that waited received it after"
    broken = LooksAtTheEnd


class TestSleepsThroughExpiries(OnAFile):
    breaks = "test_a_lease_that_expires_while_receive_waits_is_seen"
    says = "a receive that waited received it after"
    lease_seconds = 0.4
    broken = LooksAtTheEnd


class TestEndsForGood(Case):
    breaks = "test_what_is_returned_after_the_end_comes_again"
    says = "and it is still true"
    finite = True

    class broken(MemorySource):
        over = False

        @property
        def exhausted(self) -> bool:
            self.over = self.over or super().exhausted
            return self.over


class TestCancelsAllForNothing(Case):
    breaks = "test_cancel_of_nothing_cancels_nothing"
    says = "neither a session nor an id, and named 2 tasks"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            everything = list(self._tasks) if session_id is None and not task_ids else task_ids
            return super().cancel(session_id, everything)


class TestCancelsWhatIsDone(Case):
    breaks = "test_cancel_names_each_task_once_and_none_that_is_done"
    says = "cancel named 4 tasks; expected the first alone"
    lease_seconds = 5.0

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            super().cancel(session_id, task_ids)
            return [Task(task_id, b"") for task_id in task_ids]


class TestSessionsArePatterns(Case):
    breaks = "test_sessions_are_told_apart_by_their_whole_names"
    says = "no task has the session 's-1:', and it is pending"

    class broken(Reference):
        def is_pending(self, session_id: str) -> bool:
            return super().is_pending(session_id.partition(":")[0])


# --- clocks ---


class TestKeepsTheHourOfTheWall(OnAFile):
    """Due times are those of a clock on the wall, which differs from place to place."""

    breaks = "test_agents_in_two_time_zones_keep_each_others_leases"
    says = "was handed out"

    class broken(SqliteSource):
        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            return super().extend(leases, seconds - time.timezone)


class TestCutsDelaysToSeconds(OnAFile):
    breaks = "test_a_part_of_a_second_counts"
    says = "a delay of 0.8 s lasted"

    class broken(SqliteSource):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            super().nack(leases, int(delay))


class TestCutsLeasesToSeconds(OnAFile):
    breaks = "test_a_part_of_a_second_counts"
    says = "a lease that was extended by 0.8 s lasted"

    class broken(SqliteSource):
        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            return super().extend(leases, int(seconds))


class TestCountsWhatIsOverNowhere(Case):
    breaks = "test_a_task_whose_lease_is_over_is_counted_and_pending"
    says = "2 tasks must be counted, in any state, the same in both; stats(brief=False) says waiting 1, delayed None, leased 0"

    class broken(Reference):
        def stats(self, *, brief: bool = False) -> QueueStats:
            states = super().stats().states
            return QueueStats(replace(states, waiting=(states.waiting or 1) - 1))


class TestCountsInBriefWhatIsOverAsLeased(Case):
    breaks = "test_a_task_whose_lease_is_over_is_counted_and_pending"
    says = "stats(brief=True) says waiting 0, delayed None, leased 2, and stats() waiting 2"

    class broken(Reference):
        def stats(self, *, brief: bool = False) -> QueueStats:
            states = super().stats().states
            if brief:
                states = replace(states, waiting=0, leased=(states.leased or 0) + (states.waiting or 0))
            return QueueStats(states)


class TestTellsTheYoungest(OnAFile):
    breaks = "test_the_oldest_task_is_told_by_its_age"
    says = "and oldest_seconds is 0.0"

    class broken(SqliteSource):
        def stats(self, *, brief: bool = False) -> QueueStats:
            found = super().stats(brief=brief)
            return replace(found, oldest_seconds=None if found.oldest_seconds is None else 0.0)


class TestTellsTheAgeOfWhatIsDone(OnAFile):
    breaks = "test_the_oldest_task_is_told_by_its_age"
    says = "no task waits, and oldest_seconds is 1.0; expected None"

    class broken(SqliteSource):
        def stats(self, *, brief: bool = False) -> QueueStats:
            found = super().stats(brief=brief)
            return replace(found, oldest_seconds=found.oldest_seconds or 1.0)


class TestTellsTheAgeOfDeadLetters(OnAFile):
    breaks = "test_the_oldest_task_is_told_by_its_age"
    says = "no task waits, and oldest_seconds is "

    class broken(SqliteSource):
        def stats(self, *, brief: bool = False) -> QueueStats:
            found = super().stats(brief=brief)
            return replace(found, oldest_seconds=found.oldest_seconds or (1.0 if found.states.dead else None))


# --- pages, ids, priorities and generations ---


class TestPagesOfDeadLettersBeginAtARow(OnAFile):
    breaks = "test_what_is_run_again_while_dead_letters_are_read_hides_no_other"
    says = "of the others were never read"

    class broken(SqliteSource):
        def dead_letters(self) -> Iterator[DeadTask]:
            start = 0
            while page := list(islice(super().dead_letters(), start, start + 50)):
                yield from page
                start += 50


class TestBatchesComeInReverse(OnAFile):
    breaks = "test_the_highest_priority_comes_first"
    says = "and in batches as [-1, 0, 1, 9, 10, 100]"

    class broken(SqliteSource):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            return super().receive(max_tasks, wait)[::-1]


class TestCancelsAPage(OnAFile):
    breaks = "test_more_tasks_than_a_page_are_put_and_cancelled"
    says = "cancel of a session of 1100 tasks left 100 of them"

    class broken(SqliteSource):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            return super().cancel(session_id, task_ids)[:1000]


class TestListsAPageOfDeadLetters(OnAFile):
    breaks = "test_all_of_many_dead_letters_are_listed"
    says = "each of 1100 dead letters once in `dead_letters`, which lists 1000"
    wait_factor = 0.1

    class broken(SqliteSource):
        def dead_letters(self) -> Iterator[DeadTask]:
            return islice(super().dead_letters(), 1000)


class TestCancelForgetsTheSession(Case):
    breaks = "test_cancel_returns_tasks_with_their_session"
    says = "`cancel` returned it with the attributes {}"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            return [Task(task.id, b"") for task in super().cancel(session_id, task_ids)]


class TestIdsArePatterns(Case):
    breaks = "test_cancel_takes_ids_as_they_are"
    says = "and cancel named"

    class broken(Reference):
        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            like = [each for task_id in task_ids for each in self._tasks if fnmatch(each, task_id.replace("%", "*"))]
            return super().cancel(session_id, like)


class TestPutRevives(Case):
    breaks = "test_put_of_a_task_that_is_leased_changes_nothing"
    says = "was handed out, attempt 2"
    lease_seconds = 5.0

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            super().put(tasks)
            super().nack([lease for lease in self._tasks.values() if lease.task in tasks])


class TestComparesAttributesAsText(Case):
    breaks = "test_put_knows_a_task_whose_attributes_come_in_another_order"
    says = "attributes in another order, and was refused"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            for task in tasks:
                there = self._tasks.get(task.id)
                if there and json.dumps(dict(there.task.attributes)) != json.dumps(dict(task.attributes)):
                    raise Rejected(f"There is another task of the id {task.id}.")
            super().put(tasks)


class TestLowestFirst(OnAFile):
    breaks = "test_the_highest_priority_comes_first"
    says = "came the lowest first"

    class broken(SqliteSource):
        def _priority(self, task: Task) -> int:
            return -super()._priority(task)


class TestPrioritiesAreTexts(OnAFile):
    breaks = "test_the_highest_priority_comes_first"
    says = "came ordered as texts"

    class broken(SqliteSource):
        def _priority(self, task: Task) -> int:
            return int.from_bytes(task.attributes.get("priority", "0").ljust(4).encode())


class TestFailsOnAPriority(OnAFile):
    breaks = "test_a_priority_that_cannot_be_kept_is_rejected_or_passed_over"
    says = "invalid literal for int"

    class broken(SqliteSource):
        def put(self, tasks: Sequence[Task]) -> None:
            for task in tasks:
                int(task.attributes.get("priority", "0"))
            super().put(tasks)


class TestGenerationsAreTexts(Case):
    breaks = "test_the_generations_of_tasks_are_numbers"
    says = "0 of 1 tasks were leased within"
    wait_factor = 0.1

    class broken(Reference):
        def redrive(self, tasks: Sequence[Task]) -> None:
            there = {lease.task.id: lease.task.attributes.get("generation", "0") for lease in self._tasks.values()}
            super().redrive([task for task in tasks if there.get(task.id, "") < task.attributes["generation"]])


class TestRedriveStopsAtWhatIsThere(Case):
    breaks = "test_a_redrive_that_was_cut_off_is_completed_by_giving_it_again"
    says = "2 of 3 tasks were leased within"
    wait_factor = 0.1
    lease_seconds = 60.0

    class broken(Reference):
        def redrive(self, tasks: Sequence[Task]) -> None:
            super().redrive(list(takewhile(lambda task: task.id not in self._tasks, tasks)))


class TestALateAckEndsTheLaterGeneration(Case):
    breaks = "test_a_late_call_leaves_the_later_generation"
    says = "0 of 1 tasks were leased within"
    wait_factor = 0.1

    class broken(Reference):
        def ack(self, leases: Sequence[Lease]) -> None:
            super().ack(leases)
            for lease in leases:
                self._tasks.pop(lease.task.id, None)
                self._until.pop(lease.task.id, None)


class TestStaysAway(Case):
    breaks = "test_a_place_that_came_back_is_used_again"
    says = "the place came back, and it still says: The place is away."
    wait_factor = 0.1

    class broken(StaysAway, Reference):
        pass


class TestAnOpenThatFailsLeavesAFile(Case):
    breaks = "test_an_open_that_fails_leaves_nothing"
    says = "there is still 2 more open file descriptors"
    wait_factor = 0.1

    class broken(Reference):
        files: list[int] = []  # noqa: RUF012

        def refuse(self) -> None:
            self.files.append(os.open("/dev/null", os.O_RDONLY))
            raise Rejected("There is no queue named q. Create it, or name another.")


# --- calls that come late, or have nothing in them ---


class TestFailsOnNothing(Case):
    breaks = "test_a_call_with_nothing_in_it_does_nothing"
    says = "nack([]) is allowed, and raised ValueError"

    class broken(Reference):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            if not leases:
                raise ValueError('syntax error at or near ")"')
            super().nack(leases, delay)


class TestDropsLongDelays(Case):
    breaks = "test_very_long_times_are_taken"
    says = "and came at once"

    class broken(Reference):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            super().nack(leases, delay if delay <= 900 else 0)


class TestRefusesLongWaits(Case):
    breaks = "test_a_wait_may_be_long_or_a_part_of_a_second"
    says = "receive(1, 600) is allowed, and raised ValueError"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            if wait > 20:
                raise ValueError("WaitTimeSeconds must be 0 to 20")
            return super().receive(max_tasks, wait)


class TestTakesBackWhatWasReturned(Case):
    breaks = "test_a_returned_task_is_not_ours_any_more"
    says = "0 of 1 tasks were leased"

    class broken(Reference):
        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            with self._changed:
                for lease in leases:
                    self._due = [each for each in self._due if each[2] != lease.task.id]
                    self._until.setdefault(lease.task.id, 0.0)
            return super().extend(leases, seconds)


class TestTellsOfACancelOnce(Case):
    breaks = "test_what_was_cancelled_stays_so_whatever_its_holder_does"
    says = "it says so each time it is asked"

    class broken(Reference):
        told: ClassVar[set[str]] = set()

        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            gone = set(super().extend(leases, seconds)) - self.told
            self.told.update(gone)
            return gone


class TestCancelsSessionsQuietly(Case):
    breaks = "test_what_was_cancelled_stays_so_whatever_its_holder_does"
    says = "one with its session, and extend says"

    class broken(Reference):
        quiet: ClassVar[set[str]] = set()

        def cancel(self, session_id: str | None = None, task_ids: Collection[str] = ()) -> Sequence[Task]:
            cancelled = super().cancel(session_id, task_ids)
            self.quiet.update(task.id for task in cancelled if session_id is not None)
            return cancelled

        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            return set(super().extend(leases, seconds)) - self.quiet


class TestNoSuchLease(Case):
    breaks = "test_a_late_call_leaves_a_dead_letter_as_it_is"
    says = "a second dead_letter is allowed, and raised RuntimeError"

    class broken(Reference):
        def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
            if {lease.task.id for lease in leases} & set(self.dead_ids):
                raise RuntimeError("no such lease")
            super().dead_letter(leases, reason)


class TestALateAckRemovesTheDeadLetter(Case):
    breaks = "test_a_late_call_leaves_a_dead_letter_as_it_is"
    says = "a late ack of a dead letter has removed it"

    class broken(Reference):
        def ack(self, leases: Sequence[Lease]) -> None:
            super().ack(leases)
            self._forget([lease.task for lease in leases])


class TestPutBringsBackWhatWasCancelled(OnAFile):
    breaks = "test_a_cancelled_task_that_is_put_again_does_not_run"
    says = "was handed out, attempt 1, and should not have been"

    class broken(SqliteSource):
        def put(self, tasks: Sequence[Task]) -> None:
            with self._file.writing(durable=True) as connection:
                for task in tasks:
                    there = "seq IN (SELECT seq FROM tasks WHERE id = ?)"
                    connection.execute(f"DELETE FROM queue WHERE state = 'cancelled' AND {there}", (task.id,))
            super().put(tasks)


class TestHasAColumnForReasons(Case):
    breaks = "test_a_dead_letter_may_have_any_reason"
    says = "value too long"

    class broken(Reference):
        def dead_letter(self, leases: Sequence[Lease], reason: str) -> None:
            if len(reason) > 1000:
                raise ValueError("value too long for type character varying(1000)")
            super().dead_letter(leases, reason)


# --- who reads dead letters ---


class TestReadsUnderALock(Case):
    breaks = "test_who_reads_dead_letters_holds_up_no_call"
    says = "another thread was within `dead_letters`"

    class broken(Reference):
        def dead_letters(self) -> Iterable[DeadTask]:
            with self._changed:
                yield from self.letters


class TestReadersShareACursor(Case):
    breaks = "test_two_may_read_dead_letters_at_once"
    says = "since another began to read"

    class broken(Reference):
        rows: Iterator[DeadTask] = iter(())

        def dead_letters(self) -> Iterable[DeadTask]:
            self.rows = iter(self.letters)
            while (each := next(self.rows, None)) is not None:
                yield each


class TestKeepsConnectionsOfReaders(Case):
    breaks = "test_a_reading_of_dead_letters_may_be_left"
    says = "10 readings of dead letters were left"

    class broken(Reference):
        taken = 0

        def dead_letters(self) -> Iterable[DeadTask]:
            if self.taken >= 10:
                raise Unavailable("The pool has no connection left.")
            self.taken += 1
            yield from self.letters
            self.taken -= 1


# --- several at once, several large ones ---


class TestSubmittersRace(Case):
    breaks = "test_submitters_of_the_same_tasks_at_once_leave_each_once"
    says = "UNIQUE constraint failed"

    class broken(Reference):
        now: ClassVar[set[str]] = set()

        def put(self, tasks: Sequence[Task]) -> None:
            ids = {task.id for task in tasks}
            if ids & self.now:
                raise RuntimeError("UNIQUE constraint failed")
            self.now.update(ids)
            time.sleep(0.02)
            super().put(tasks)
            self.now.difference_update(ids)


class TestRequestIsTooLarge(Case):
    breaks = "test_several_large_events_go_through_one_call"
    says = "the request is too large"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            if sum(len(task.payload) for task in tasks) > 4_000_000:
                raise Rejected("the request is too large")
            super().put(tasks)


class TestForgetsItsUsage(Case):
    breaks = "test_usage_counts_what_was_asked_since_the_plugin_was_made"
    says = "they count since the plugin was made"

    class broken(Reference):
        calls = 0

        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            self.calls += 1
            return super().receive(max_tasks, wait)

        def usage(self) -> Usage:
            self.calls, calls = 0, self.calls
            return Usage({"queue": calls})


# --- types, and threads ---


class TestLeasesMemoryviews(Case):
    breaks = "test_what_arrives_has_the_types_of_the_interface"
    says = "Lease.task.payload is a builtins.memoryview, and should be bytes"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            leases = super().receive(max_tasks, wait)
            return [
                replace(each, task=replace(each.task, payload=memoryview(each.task.payload)))  # type: ignore[arg-type]
                for each in leases
            ]


class TestExtendsWhenRead(Case):
    breaks = "test_what_arrives_has_the_types_of_the_interface"
    says = "`extend` returned <generator object"

    class broken(Reference):
        def extend(self, leases: Sequence[Lease], seconds: float) -> Collection[str]:
            return (each for each in super().extend(leases, seconds))  # type: ignore[return-value]


class TestAcksInOneThread(Case):
    breaks = "test_every_call_works_in_any_thread"
    says = "`ack` in another thread raised RuntimeError"

    class broken(Reference):
        def open(self) -> None:
            self.owner = threading.get_ident()
            super().open()

        def ack(self, leases: Sequence[Lease]) -> None:
            if threading.get_ident() != self.owner:
                raise RuntimeError("there is no current event loop in this thread")
            super().ack(leases)


class TestPutsByTheHundred(Case):
    breaks = "test_put_of_many_accepts_all_or_none"
    says = "was handed out, attempt 1, and should not have been"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            if len({task.id for task in tasks}) < len(tasks):
                raise Rejected("An id comes twice.")
            for start in range(0, len(tasks), 100):
                super().put(tasks[start : start + 100])


class TestLooksForDoublesByTheHundred(Case):
    breaks = "test_put_of_many_accepts_all_or_none"
    says = "the last one comes twice, and `put` accepted them"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            seen = {task.id: task for task in reversed(tasks)}
            super().put(tasks if len(tasks) < 100 else list(seen.values()))


class TestForgetsThePriorityOfWhatIsReturned(OnAFile):
    breaks = "test_a_task_that_comes_again_keeps_its_priority"
    says = "were returned, and came again as [1, "

    class broken(SqliteSource):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            super().nack(leases, delay)
            with self._file.writing(durable=False) as connection:
                connection.execute("UPDATE queue SET priority = 0 WHERE state <> 'leased'")


class TestWaitsInTurn(OnAFile):
    breaks = "test_agents_that_wait_at_once_do_not_wait_for_each_other"
    says = "3 agents called receive(1, "

    class broken(SqliteSource):
        _one = threading.Lock()

        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            with self._one:
                return super().receive(max_tasks, wait)


class TestLeasesEndUnsaid(OnAFile):
    breaks = "test_a_leased_task_is_not_lent_again"
    says = "was handed out, attempt 2, and should not have been"
    lease_seconds = 1.0

    class broken(SqliteSource):
        def open(self) -> None:
            super().open()
            self.lease_seconds = None


class TestReturnsFewAtOnce(OnAFile):
    breaks = "test_a_full_batch_goes_through_every_call"
    says = "too many SQL variables"

    class broken(SqliteSource):
        def nack(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
            if len(leases) > 999:
                raise RuntimeError("too many SQL variables")
            super().nack(leases, delay)


class TestRefusesWhatIsDone(Case):
    breaks = "test_a_task_that_is_done_can_be_put_again"
    says = "which raised RuntimeError: UNIQUE constraint failed"

    class broken(Reference):
        done: frozenset[str] = frozenset()

        def ack(self, leases: Sequence[Lease]) -> None:
            super().ack(leases)
            self.done |= {lease.task.id for lease in leases}

        def redrive(self, tasks: Sequence[Task]) -> None:
            if any(task.id in self.done for task in tasks):
                raise RuntimeError("UNIQUE constraint failed: tasks.id")
            super().redrive(tasks)


class TestReturnsAllAtItsEnd(OnAFile):
    breaks = "test_an_agent_that_comes_and_goes_takes_no_lease_of_another"
    says = "was handed out, attempt 2, and should not have been"

    class broken(SqliteSource):
        def close(self) -> None:
            if self._seen:
                with self._file.writing(durable=False) as connection:
                    connection.execute("UPDATE queue SET state = 'ready', due = NULL WHERE state = 'leased'")
            super().close()


class TestLooksThroughWhatChanges(Case):
    breaks = "test_calls_of_every_kind_may_come_side_by_side"
    says = "during iteration"

    class broken(Reference):
        def stats(self, *, brief: bool = False) -> QueueStats:
            for _ in self._tasks:
                time.sleep(0.0005)
            return super().stats(brief=brief)


class TestCountsNothingAsUnknown(Case):
    breaks = "test_an_empty_queue_is_told_as_empty"
    says = "`waiting` is told of a queue with a task, and is None of an empty one"

    class broken(Reference):
        def stats(self, *, brief: bool = False) -> QueueStats:
            states = super().stats(brief=brief).states
            return QueueStats(replace(states, waiting=states.waiting or None))


class TestWaitsThroughAnOutage(Case):
    breaks = "test_a_receive_that_waits_when_its_place_went_away_is_unavailable"
    says = "which raised None"

    class broken(Reference):
        def receive(self, max_tasks: int, wait: float) -> Sequence[Lease]:
            deadline = time.monotonic() + wait
            leases = super().receive(max_tasks, 0)
            while not leases and time.monotonic() < deadline:
                time.sleep(0.01)
                with suppress(Unavailable):
                    leases = super().receive(max_tasks, 0)
            return leases


class TestTripsOverANul(Case):
    breaks = "test_any_text_in_an_attribute_is_kept_or_rejected"
    says = "raised ValueError: A string literal cannot contain NUL"

    class broken(Reference):
        def put(self, tasks: Sequence[Task]) -> None:
            if any("\0" in text for task in tasks for text in task.attributes.values()):
                raise ValueError("A string literal cannot contain NUL (0x00) characters.")
            super().put(tasks)


class TestKeepsTheConnectionOfWhatItRefuses(Case):
    breaks = "test_what_is_refused_takes_nothing"
    says = "no connection is free"

    class broken(Reference):
        free = 10

        def put(self, tasks: Sequence[Task]) -> None:
            if not self.free:
                raise Unavailable("no connection is free")
            try:
                super().put(tasks)
            except Rejected:
                self.free -= 1
                raise


class TestKeepsTheLockOfWhatItRefuses(OnAFile):
    breaks = "test_what_is_refused_takes_nothing"
    says = "another agent's `put` hung"

    class broken(SqliteSource):
        holders: ClassVar[dict[Path, object]] = {}

        def put(self, tasks: Sequence[Task]) -> None:
            deadline = time.monotonic() + 30
            while self.holders.setdefault(self.config.path, self) is not self:
                if time.monotonic() > deadline:
                    raise Unavailable("The queue is locked.")
                time.sleep(0.01)
            super().put(tasks)
            self.holders.pop(self.config.path, None)

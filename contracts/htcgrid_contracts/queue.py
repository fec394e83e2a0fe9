"""What a source must do that tasks can be put into: `spi.TaskQueue`, `TaskSource.stats` and `dead_letter`."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from htcgrid.spi import GENERATION, Rejected, Task, TaskQueue, TaskSource

from htcgrid_contracts.common import eventually, not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered


class TaskQueueRules(SourceHelpers):
    """Asked of sources that offer it."""

    def test_put_accepts_a_task_that_receive_then_hands_out(self, given: Given) -> None:
        """`htcgrid submit` puts it there. Read: spi.TaskQueue.put."""
        source = given()
        queue = _queue(source)
        tasks = numbered(3, session_id="s-1")
        queue.put(tasks)
        leases = self.held(source, len(tasks))
        leased = {lease.task.id: lease.task for lease in leases}
        assert leased == {task.id: task for task in tasks}, "what was put was not leased as it was"

    def test_put_rejects_an_id_that_is_there_already(self, given: Given) -> None:
        """The second would be answered by the first one's result. Read: spi.TaskQueue.put."""
        source = given()
        queue = _queue(source)
        tasks = numbered(1)
        queue.put(tasks)
        with pytest.raises(Rejected) as caught:
            queue.put([replace(tasks[0], payload=b'{"value": "another"}')])
        assert tasks[0].id in str(caught.value) or tasks[0].id in caught.value.task_ids, (
            f"the error does not name the task: {caught.value}"
        )

    def test_put_of_a_task_that_is_there_leaves_one(self, given: Given) -> None:
        """A submit that was cut off is completed by giving it again. Read: spi.TaskQueue.put."""
        source = given()
        queue = _queue(source)
        first, second = numbered(2)
        queue.put([first])
        try:
            queue.put([first, second])
        except Rejected as error:
            pytest.fail(f"a task that is there already, with the same event and attributes, was refused: {error}")
        leased = sorted(lease.task.id for lease in self.held(source, 2))
        assert leased == sorted([first.id, second.id]), "what was put again was leased beside itself"
        self.nothing_comes(source, on_lease=True)

    def test_a_redriven_task_is_lent_though_an_earlier_generation_is_left(self, given: Given) -> None:
        """An agent that died before its ack has left it there. Read: spi.TaskSource.redrive."""
        source = given()
        if not source.redrives:
            not_asked("`redrives` is False: failed tasks are not put again into this source")
        (first,) = numbered(1)
        again = replace(first, attributes={**first.attributes, GENERATION: "1"})
        self.publish(source, [first])
        source.redrive([again])
        leased = self.take(source, 1)
        source.ack(leased)
        if leased[0].task != again:
            leased = self.take(source, 1)
            source.ack(leased)
        assert leased[0].task == again, f"{leased[0].task} was leased, and not the task of the later generation"
        assert leased[0].attempt == 1, (
            f"a task that was put in again is at attempt 1, and this says {leased[0].attempt}"
        )

    def test_what_is_redriven_twice_is_lent_once(self, given: Given) -> None:
        """A redrive that was cut off is completed by giving it again. Read: spi.TaskSource.redrive."""
        source = given()
        if not source.redrives:
            not_asked("`redrives` is False: failed tasks are not put again into this source")
        (first,) = numbered(1, generation="1")
        source.redrive([first])
        source.redrive([first])
        (lease,) = self.take(source, 1)
        assert lease.task == first
        self.nothing_comes(source, on_lease=True)

    def test_put_accepts_all_or_none(self, given: Given) -> None:
        """A submit that failed can be repeated as it was. Read: spi.TaskQueue.put."""
        source = given()
        queue = _queue(source)
        old, new = numbered(1), numbered(2)
        queue.put(old)
        with pytest.raises(Rejected):
            queue.put([new[0], replace(old[0], payload=b'{"value": "another"}'), new[1]])
        (lease,) = self.take(source, 1)
        assert lease.task.id == old[0].id
        self.nothing_comes(source, on_lease=True)

    def test_a_cancelled_task_that_waits_never_runs(self, given: Given) -> None:
        """Cancelling is what saves the bill. Read: spi.TaskQueue.cancel."""
        source = given()
        queue = _queue(source)
        stopped, kept = numbered(2)
        queue.put([stopped, kept])
        self.names(queue.cancel(task_ids=[stopped.id]), [stopped])
        (lease,) = self.take(source, 1)
        assert lease.task.id == kept.id, "the task that was cancelled was handed out"
        self.nothing_comes(source, on_lease=True)

    def test_extend_says_which_task_was_cancelled(self, given: Given) -> None:
        """That is how a cancel reaches a running handler. Read: spi.TaskSource.extend."""
        source = given(*numbered(1), *numbered(1))
        queue = _queue(source)
        leases = self.take(source, 2)
        self.names(queue.cancel(task_ids=[leases[0].task.id]), [leases[0].task])
        gone: set[str] = set()
        for lease in leases:
            gone |= set(source.extend([lease], source.lease_seconds or 10))
        assert gone == {leases[0].task.id}, f"one of two tasks was cancelled, and extend says {sorted(gone)}"

    def test_cancelling_a_session_leaves_the_others_alone(self, given: Given) -> None:
        """Sessions are of different users. Read: spi.TaskQueue.cancel."""
        source = given()
        queue = _queue(source)
        stopped = numbered(3, session_id="stopped")
        queue.put(stopped)
        kept = numbered(1, session_id="kept")
        queue.put(kept)
        self.names(queue.cancel(session_id="stopped"), stopped)
        (lease,) = self.take(source, 1)
        assert lease.task.id == kept[0].id, "a task of the session that was cancelled was handed out"
        self.nothing_comes(source, on_lease=True)

    def test_cancelling_what_is_not_there_is_none(self, given: Given) -> None:
        """Users cancel what has ended. Read: spi.TaskQueue.cancel."""
        queue = _queue(given())
        self.names(queue.cancel(task_ids=["contract-not-there"]), [])
        self.names(queue.cancel(session_id="not-there"), [])

    def test_cancelling_again_names_the_same_tasks(self, given: Given) -> None:
        """The first call may have broken off before their results were stored. Read: spi.TaskQueue.cancel."""
        if not self.shared:
            not_asked("the place is this process's own: a call that broke off took all of it along")
        queue = _queue(given())
        stopped = numbered(2, session_id="stopped")
        queue.put(stopped)
        for _ in range(2):
            self.names(queue.cancel(session_id="stopped"), stopped)

    def test_depth_counts_what_waits_and_what_is_lent(self, source: TaskSource, given: Given) -> None:
        """Progress and `htcgrid status` show it. Read: spi.TaskSource.stats."""
        if type(source).stats is TaskSource.stats:
            not_asked("`stats` is the default: it cannot tell how much it holds")
        given(*numbered(3))
        self._depth(source, waiting=3, leased=0)
        self.keeps_secrets(source, "what `stats` says", repr(source.stats()))
        leases = self.held(source, 1)
        self._depth(source, waiting=2, leased=1)
        source.ack(leases)
        self._depth(source, waiting=2, leased=0)

    def test_a_task_set_aside_is_not_handed_out_again(self, given: Given) -> None:
        """One that kills its environment each time would go round for ever. Read: spi.TaskSource.dead_letter."""
        source = given(*numbered(1))
        source.dead_letter(self.take(source, 1), "the contract makes it a dead letter")
        wait = None if source.lease_seconds is None else self.expiry(source)
        self.nothing_comes(source, wait)
        dead = source.stats(brief=True).states.dead
        kept = 0 if type(source).dead_letter is TaskSource.dead_letter else 1  # the default acks, and keeps none
        assert dead in (kept, None), f"{kept} tasks are dead letters, and stats() says {dead}"

    def test_a_dead_letter_is_listed_with_its_reason(self, given: Given) -> None:
        """`htcgrid failures` shows why. Read: spi.TaskSource.dead_letters."""
        source = given(*numbered(1))
        if type(source).dead_letters is TaskSource.dead_letters:
            not_asked("`dead_letters` is the default: its dead letters are read in other ways")
        (lease,) = self.take(source, 1)
        source.dead_letter([lease], "the contract's reason")

        def reasons() -> list[str]:
            return [each.reason for each in source.dead_letters() if each.task.id == lease.task.id]

        eventually(lambda: len(reasons()) == 1, 10 * self.wait_factor, "the dead letter in `dead_letters`")
        assert reasons() == ["the contract's reason"], (
            f"the reason that was given is not the one that is listed: {reasons()}"
        )

    def test_a_session_is_pending_until_its_last_task_is_done(self, given: Given) -> None:
        """`htcgrid results --session S --wait` waits for that. Read: spi.TaskSource.is_pending."""
        source = given()
        queue = _queue(source)
        queue.put(numbered(1, session_id="asked"))
        if source.is_pending("asked") is None:
            not_asked("`is_pending` says None: it cannot tell")
        assert source.is_pending("asked") is True, "a task of the session is waiting, and it is not pending"
        leases = self.take(source, 1)
        assert source.is_pending("asked") is True, "a task of the session is leased, and it is not pending"
        source.ack(leases)
        assert source.is_pending("asked") is False, "all tasks of the session are acked, and it is still pending"
        assert source.is_pending("contract-not-there") is False, "a session that never was is pending"

    def names(self, cancelled: Sequence[Task], expected: Sequence[Task]) -> None:
        """`cancel` returns the tasks that were cancelled."""
        found, wanted = sorted(task.id for task in cancelled), sorted(task.id for task in expected)
        assert found == wanted, f"{wanted} should have been cancelled, and cancel returned {found}"

    def _depth(self, source: TaskSource, **expected: int) -> None:
        def agrees() -> bool:
            states = source.stats(brief=True).states
            return all(getattr(states, name) in (number, None) for name, number in expected.items())

        shown = source.stats(brief=True).states
        eventually(agrees, 10 * self.wait_factor, f"stats() is to show {expected}, and shows {shown}")


def _queue(source: TaskSource) -> TaskQueue:
    if not isinstance(source, TaskQueue):
        not_asked("no TaskQueue: tasks are put there in other ways")
    return source

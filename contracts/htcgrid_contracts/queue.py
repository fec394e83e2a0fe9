"""What a source must do that tasks can be put into: `spi.TaskQueue`, `TaskSource.stats` and `dead_letter`."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from htcgrid.spi import GENERATION, Rejected, Task, TaskQueue, TaskSource

from htcgrid_contracts.common import eventually, not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered


class TaskQueueRules(SourceHelpers):
    """Asked of sources that are a `TaskQueue`."""

    def test_put_accepts_a_task_that_receive_then_hands_out(self, given: Given) -> None:
        """A task that was put must be handed out by `receive`: `htcgrid submit` puts tasks in this way.
        Read: spi.TaskQueue.put."""
        source = given()
        queue = _queue(source)
        tasks = numbered(3, session_id="s-1")
        queue.put(tasks)
        leases = self.held(source, len(tasks))
        leased = {lease.task.id: lease.task for lease in leases}
        assert leased == {task.id: task for task in tasks}, "the leased tasks are not the tasks that were put"

    def test_put_rejects_an_id_that_is_there_already(self, given: Given) -> None:
        """`put` must raise Rejected for another task with an id that is there. Otherwise the second task would get the
        result of the first. Read: spi.TaskQueue.put."""
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
        """`put` of a task that is there already must leave one. A `submit` that was interrupted is repeated with the
        same tasks. Read: spi.TaskQueue.put."""
        source = given()
        queue = _queue(source)
        first, second = numbered(2)
        queue.put([first])
        try:
            queue.put([first, second])
        except Rejected as error:
            pytest.fail(f"a task that is there already, with the same event and attributes, was refused: {error}")
        leased = sorted(lease.task.id for lease in self.held(source, 2))
        assert leased == sorted([first.id, second.id]), "a task that was put twice was leased twice"
        self.nothing_comes(source, on_lease=True)

    def test_a_redriven_task_is_lent_though_an_earlier_generation_is_left(self, given: Given) -> None:
        """`redrive` must accept a task whose earlier generation is still in the queue: an agent that died before its
        `ack` has left it there. Read: spi.TaskSource.redrive."""
        source = given()
        if not source.redrives:
            not_asked("`redrives` is False: failed tasks are not put again into this source")
        (first,) = numbered(1)
        again = replace(first, payload=b'{"value": "again"}', attributes={**first.attributes, GENERATION: "1"})
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
        if not self.returns(source):
            return
        (delayed,) = numbered(1)
        self.publish(source, [delayed])
        source.nack(self.held(source, 1), 60 * self.wait_factor)
        source.redrive([replace(delayed, attributes={GENERATION: "1"})])
        self.take(source, 1, why="a task that was delayed was redriven, and runs at once: ")

    def test_what_is_redriven_twice_is_lent_once(self, given: Given) -> None:
        """A task that is redriven twice must be handed out once, also where it is leased by then. A `redrive` that was
        interrupted is repeated with the same tasks. Read: spi.TaskSource.redrive."""
        source = given()
        if not source.redrives:
            not_asked("`redrives` is False: failed tasks are not put again into this source")
        (first,) = numbered(1, generation="1")
        source.redrive([first])
        source.redrive([first])
        (lease,) = self.held(source, 1)
        assert lease.task == first
        self.nothing_comes(source, on_lease=True)
        source.redrive([first])
        self.nothing_comes(source, on_lease=True)
        gone = source.extend([lease], 60 * self.wait_factor)
        assert not gone, "a leased task was redriven in the same generation, and its lease is said to be lost"

    def test_put_accepts_all_or_none(self, given: Given) -> None:
        """When `put` rejects one task, it must accept none of the call. Then a user can correct the input and repeat
        the whole `submit`. Read: spi.TaskQueue.put."""
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
        """A task that is cancelled while it waits must not be handed out: users cancel to save the cost.
        Read: spi.TaskQueue.cancel."""
        source = given()
        queue = _queue(source)
        stopped, kept = numbered(2)
        queue.put([stopped, kept])
        self.names(queue.cancel(task_ids=[stopped.id]), [stopped])
        (lease,) = self.take(source, 1)
        assert lease.task.id == kept.id, "the task that was cancelled was handed out"
        self.nothing_comes(source, on_lease=True)

    def test_a_cancelled_task_that_is_put_again_does_not_run(self, given: Given) -> None:
        """`put` of an id that is cancelled, and still kept, must not make it run: a submit that was interrupted is completed by
        the same command, perhaps after a cancel. It is accepted without effect, or rejected. Read: spi.TaskQueue.put."""
        source = given()
        queue = _queue(source)
        (task,) = numbered(1)
        queue.put([task])
        queue.cancel(task_ids=[task.id])
        if not queue.cancel(task_ids=[task.id]):
            not_asked("the queue keeps no cancelled ids")
        with suppress(Rejected):
            queue.put([task])
        self.nothing_comes(source)

    def test_extend_says_which_task_was_cancelled(self, given: Given) -> None:
        """`extend` must return the ids of leased tasks that were cancelled. Only so does the agent know that it must
        stop the handler. Read: spi.TaskSource.extend."""
        source = given(*numbered(1), *numbered(1))
        queue = _queue(source)
        leases = self.take(source, 2)
        self.names(queue.cancel(task_ids=[leases[0].task.id]), [leases[0].task])
        gone: set[str] = set()
        for lease in leases:
            gone |= set(source.extend([lease], source.lease_seconds or 10))
        assert gone == {leases[0].task.id}, f"one of two tasks was cancelled, and extend says {sorted(gone)}"
        source.ack(leases[1:])
        # And of a large batch, which goes to some services in parts.
        size = min(source.max_batch, 23)
        queue.put(numbered(size))
        batch = self.held(source, size)
        stopped = {lease.task.id for lease in batch[3::5]}
        queue.cancel(task_ids=sorted(stopped))
        gone = set(source.extend(batch, 60 * self.wait_factor))
        assert gone == stopped, (
            f"of a batch of {size} tasks {len(stopped)} were cancelled; extend names {len(gone & stopped)} of these, and "
            f"{len(gone - stopped)} others"
        )

    def test_cancelling_a_session_leaves_the_others_alone(self, given: Given) -> None:
        """`cancel` of a session must not cancel tasks of other sessions, which belong to other users.
        Read: spi.TaskQueue.cancel."""
        source = given()
        queue = _queue(source)
        stopped = numbered(3, session_id="stopped")
        queue.put(stopped)
        kept = numbered(1, session_id="kept")
        queue.put(kept)
        self.names(queue.cancel(session_id="stopped"), stopped)
        (lease,) = self.held(source, 1)
        assert lease.task.id == kept[0].id, "a task of the session that was cancelled was handed out"
        self.nothing_comes(source, on_lease=True)
        later = numbered(1, session_id="stopped")
        queue.put(later)
        self.take(source, 1, why="a session was cancelled, and then a task was put into it: ")

    def test_cancelling_what_is_not_there_is_none(self, given: Given) -> None:
        """`cancel` of a task that does not exist must return nothing and raise nothing. Users cancel tasks that have
        ended. Read: spi.TaskQueue.cancel."""
        queue = _queue(given())
        self.names(queue.cancel(task_ids=["contract-not-there"]), [])
        self.names(queue.cancel(session_id="not-there"), [])

    def test_cancelling_again_names_the_same_tasks(self, given: Given) -> None:
        """A second `cancel` must return the same tasks. The first command may have been interrupted before it stored
        their results. Read: spi.TaskQueue.cancel."""
        if not self.shared:
            not_asked("the place is in the memory of this process: an interrupted call ends with the place")
        queue = _queue(given())
        stopped = numbered(2, session_id="stopped")
        queue.put(stopped)
        for _ in range(2):
            self.names(queue.cancel(session_id="stopped"), stopped)

    def test_depth_counts_what_waits_and_what_is_lent(self, source: TaskSource, given: Given) -> None:
        """`stats` must count the tasks that wait and those that are leased: progress and `htcgrid status` show these
        numbers. Read: spi.TaskSource.stats."""
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
        """After `dead_letter` a task must not be handed out. A task that ends its environment each time would otherwise
        run again for ever. Read: spi.TaskSource.dead_letter."""
        source = given(*numbered(1))
        source.dead_letter(self.take(source, 1), "the contract makes it a dead letter")
        wait = None if source.lease_seconds is None else self.expiry(source)
        self.nothing_comes(source, wait)
        dead = source.stats(brief=True).states.dead
        kept = 0 if type(source).dead_letter is TaskSource.dead_letter else 1  # the default acks, and keeps none
        assert dead in (kept, None), f"{kept} tasks are dead letters, and stats() says {dead}"

    def test_a_dead_letter_is_listed_with_its_reason(self, given: Given) -> None:
        """`dead_letters` must list each task with the reason that was given: `htcgrid failures` shows it.
        Read: spi.TaskSource.dead_letters."""
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
        """`is_pending` must be true until the last task of the session has ended: `htcgrid results --session S --wait`
        waits for that. Read: spi.TaskSource.is_pending."""
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
        """Checks that `cancel` returned the tasks that were cancelled."""
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

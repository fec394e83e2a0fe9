"""A source that other agents and commands use at the same time, and odd calls that are allowed."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from htcgrid.spi import GENERATION, Lease, Task, TaskQueue, TaskSource, Unavailable

from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.payloads import AWKWARD_SESSIONS
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered

"""Names that differ, and that a pattern, a collation or a key of parts may take for one another."""


class SourceSharingRules(SourceHelpers):
    """`another` is the source of another agent or command, where the place can be shared."""

    # --- beside others ---

    def test_agents_beside_each_other_lose_nothing_and_double_nothing(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """When several agents receive at the same time, each task must be handed out once. The source must take a lease
        in one atomic step. Read: spi.TaskSource.receive."""
        if not self.shared:
            not_asked("the place is the object itself: there is one agent")
        given(*numbered(160))
        agents = [source, another(), another(), another()]
        seen: list[str] = []
        late: list[float] = []
        deadline = time.monotonic() + 20 * self.wait_factor

        def work(agent: TaskSource) -> None:
            while len(seen) < len(self.published) and time.monotonic() < deadline:
                asked = time.monotonic()
                leases = agent.receive(min(agent.max_batch, 3), 0.2)
                seen.extend(lease.task.id for lease in leases)
                if leases:
                    agent.ack(leases)
                    late.append(time.monotonic() - asked)

        in_threads([lambda agent=agent: work(agent) for agent in agents], 40 * self.wait_factor)  # type: ignore[misc]
        doubled = len(seen) - len(set(seen))
        if doubled and max(late) > 0.75 * (source.lease_seconds or float("inf")):
            self.stood_still()
        assert not doubled, f"{doubled} of {len(self.published)} tasks were leased to two agents"
        lost = {task.id for task in self.published} - set(seen)
        assert not lost, f"{len(lost)} of {len(self.published)} tasks were never leased, such as {min(lost)}"

    def test_an_agent_that_comes_and_goes_takes_no_lease_of_another(self, source: TaskSource, given: Given) -> None:
        """`open` and `close` must leave the leases of other agents alone: agents come and go while others work.
        Read: spi.Plugin.open, spi.Plugin.close."""
        if not self.shared:
            not_asked("the place is the object itself: there is one agent")
        given(*numbered(1))
        leases = self.held(source, 1)
        for _ in range(2):
            with self.again(source) as other:
                self.nothing_comes(other, on_lease=True)
        gone = source.extend(leases, 60 * self.wait_factor)
        assert not gone, "another agent was opened and closed, and the lease of this one is said to be lost"

    def test_a_cancel_from_elsewhere_reaches_who_holds_the_task(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """A `cancel` by another program must reach the agent that holds the task: `htcgrid cancel` is such a program.
        Read: spi.TaskQueue.cancel."""
        given(*numbered(2))
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: its tasks cannot be cancelled")
        stopped, kept = self.held(source, 2)
        command = another()
        assert isinstance(command, TaskQueue)
        command.cancel(task_ids=[stopped.task.id])
        gone = {each for lease in (stopped, kept) for each in source.extend([lease], 60 * self.wait_factor)}
        assert gone == {stopped.task.id}, (
            f"one of two leased tasks was cancelled by another program, and extend says {sorted(gone)}"
        )

    def test_stats_and_dead_letters_are_the_same_for_every_agent(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """`stats` and `dead_letters` must be the same for every agent and program on the same queue, such as `htcgrid
        status`. Read: spi.TaskSource.stats, spi.TaskSource.dead_letters."""
        if not self.shared:
            not_asked("the place is the object itself: there is one agent")
        given(*numbered(3))
        dead, _ = self.held(source, 2)
        source.dead_letter([dead], "the contract's reason")
        command = another()

        def wrong() -> str:
            states = command.stats(brief=True).states
            expected = {"waiting": 1, "leased": 1}
            return ", ".join(
                f"{name} is {getattr(states, name)}, expected {number}"
                for name, number in expected.items()
                if getattr(states, name) not in {number, None}
            )

        eventually(lambda: not wrong(), 10 * self.wait_factor, f"the stats that another program sees: {wrong()}")
        if type(source).dead_letters is not TaskSource.dead_letters:
            eventually(
                lambda: [each.task.id for each in command.dead_letters()] == [dead.task.id],
                10 * self.wait_factor,
                "the dead letter of one agent in the `dead_letters` of another",
            )

    def test_a_session_is_pending_for_every_agent(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """`is_pending` must be the same for every program on the same queue, such as `htcgrid results --wait`.
        Read: spi.TaskSource.is_pending."""
        given(*numbered(1, session_id="asked"))
        if not isinstance(source, TaskQueue) or source.is_pending("asked") is None:
            not_asked("no TaskQueue, or `is_pending` says None: it cannot tell")
        command = another()
        assert command.is_pending("asked") is True, "a task waits, and to another program its session is not pending"
        source.ack(self.take(source, 1))
        assert command.is_pending("asked") is False, (
            "all tasks of the session are acked, and to another program it is still pending"
        )

    def test_submitters_of_the_same_tasks_at_once_leave_each_once(
        self, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """When two programs put the same tasks at the same time, each task must be there once. A user may repeat a
        `submit` while the first still runs. Read: spi.TaskQueue.put."""
        source = given()
        queues = [self._queue(each) for each in (source, another(), another(), another())]
        same, own = numbered(8), [numbered(4) for _ in queues]
        together = threading.Barrier(len(queues))

        def submit(queue: TaskQueue, tasks: Sequence[Task]) -> None:
            together.wait(30 * self.wait_factor)
            for some in ([*same[:4], *tasks[:2]], [*same[4:], *tasks[2:]]):
                for left in reversed(range(20)):
                    try:
                        queue.put(some)
                        break
                    except Unavailable:  # as `htcgrid submit` does: the same tasks again
                        if not left:
                            raise
                        time.sleep(0.05)

        in_threads(
            [lambda queue=queue, tasks=tasks: submit(queue, tasks) for queue, tasks in zip(queues, own, strict=True)],  # type: ignore[misc]
            60 * self.wait_factor,
        )
        expected = sorted(task.id for tasks in (same, *own) for task in tasks)
        came: list[str] = []
        while len(came) < len(expected):
            leases = self.take(source, 1)
            came += [lease.task.id for lease in leases]
            source.ack(leases)
        assert sorted(came) == expected, f"of {len(expected)} tasks that 4 submitters put at once some came twice"
        self.nothing_comes(source, 0.2)

    # --- while it waits ---

    def test_a_receive_that_waits_is_woken_by_another_agent(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """A `receive` that waits must soon return a task that another agent has returned.
        Read: spi.TaskSource.receive."""
        if not self.shared or self.finite or not self.returns(source):
            not_asked("there is one agent, it is finite, or `nack` is the default")
        given(*numbered(1))
        other = another()
        leases = self.held(other, 1)

        def nack() -> tuple[float, Sequence[Lease]]:
            time.sleep(0.5)
            other.nack(leases)
            return time.monotonic(), ()

        def receive() -> tuple[float, Sequence[Lease]]:
            found = source.receive(1, 15 * self.wait_factor)
            return time.monotonic(), found

        (returned, _), (came, found) = in_threads([nack, receive], 40 * self.wait_factor)
        assert len(found) == 1, "another agent returned a task while receive waited, and it received none"
        assert came - returned < 5 * self.wait_factor, (
            f"another agent returned a task while receive waited, which saw it {came - returned:.1f} s later"
        )

    def test_agents_that_wait_at_once_do_not_wait_for_each_other(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """When several agents wait in `receive`, each must wait for about `wait` seconds. A lock or a transaction that is
        held while one waits makes the agents of a grid wait in turn. Read: spi.TaskSource.receive."""
        if not self.shared:
            not_asked("the place is the object itself: there is one agent")
        given()
        agents = [source, another(), another()]
        wait = 2.0 * self.wait_factor

        def receive(agent: TaskSource) -> float:
            began = time.monotonic()
            assert not agent.receive(1, wait), "a task was leased, but the source has none"
            return time.monotonic() - began

        took = 0.0
        for _ in range(3):  # a busy machine may be late once
            took = max(in_threads([lambda agent=agent: receive(agent) for agent in agents], 10 * wait))  # type: ignore[misc]
            if took < 2.2 * wait:
                break
        assert took < 2.2 * wait, f"3 agents called receive(1, {wait:g}) at once, and one of them waited {took:.1f} s"

    def test_a_delay_that_ends_while_receive_waits_is_seen(self, source: TaskSource, given: Given) -> None:
        """A `receive` that waits must return a task soon after its delay ends, not only when the wait is over.
        Read: spi.TaskSource.receive."""
        if not self.returns(source):
            not_asked("`nack` is the default: what is returned waits for its lease to expire")
        given(*numbered(1))
        delay = 1.0 * self.wait_factor
        leases = self.held(source, 1)
        began = time.monotonic()
        later = threading.Timer(0.3, source.nack, [leases, delay])  # while `receive` waits already
        later.start()
        self._comes_within(source, began, 0.3 + delay, "the beginning: it was returned with a delay")
        later.join()

    def test_a_lease_that_expires_while_receive_waits_is_seen(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """A `receive` that waits must return a task soon after its lease expires: the other agents take over the tasks
        of one that died. Read: spi.TaskSource.receive."""
        given(*numbered(1))
        self.expiry(source)
        other = another()
        self.take(source, 1)
        self._comes_within(other, time.monotonic(), source.lease_seconds or 0.0, "it was leased")

    def test_what_is_returned_after_the_end_comes_again(self, source: TaskSource, given: Given) -> None:
        """When a task is returned after the source was exhausted, it must be handed out again.
        Read: spi.TaskSource.exhausted."""
        if not self.finite or not self.returns(source):
            not_asked("not finite, or `nack` is the default")
        given(*numbered(2))
        first, second = self.held(source, 2)
        source.receive(1, 0.2)
        eventually(lambda: source.exhausted, 2 * self.wait_factor, "`exhausted` with all tasks leased")
        source.nack([first])
        ended = source.exhausted
        assert not ended, "`exhausted` was true, a task was returned, and it is still true"
        (again,) = self.take(source, 1)
        assert again.task.id == first.task.id
        source.ack([again, second][: source.max_batch])

    # --- odd, but allowed ---

    def test_cancel_of_nothing_cancels_nothing(self, given: Given) -> None:
        """`cancel` without a session and without ids must cancel nothing. A list of ids may be empty.
        Read: spi.TaskQueue.cancel."""
        source = given()
        queue = self._queue(source)
        queue.put(numbered(2))
        named = [*queue.cancel(), *queue.cancel(task_ids=[])]
        assert not named, f"cancel was given neither a session nor an id, and named {len(named)} tasks"
        self.take(source, 2)

    def test_cancel_names_each_task_once_and_none_that_is_done(self, given: Given) -> None:
        """`cancel` must return each task once, and no task that is done: a `cancelled` result is stored for each that
        it returns. Read: spi.TaskQueue.cancel."""
        source = given()
        queue = self._queue(source)
        queue.put(numbered(3))
        done, dead, stopped = self.held(source, 3)
        source.ack([done])
        source.dead_letter([dead], "the contract's reason")
        named = [task.id for task in queue.cancel(task_ids=[each.task.id for each in (stopped, stopped, done, dead)])]
        assert named == [stopped.task.id], (
            f"a leased task, given twice, one that is acked and a dead letter: cancel named {len(named)} tasks; expected the "
            f"first alone"
        )

    def test_a_task_that_is_done_can_be_put_again(self, given: Given) -> None:
        """`put` and `redrive` must accept a task that is done: a `submit` that was interrupted is repeated when its first
        tasks have been acked, and a failed task was acked before its redrive.
        Read: spi.TaskQueue.put, spi.TaskSource.redrive."""
        source = given()
        queue = self._queue(source)
        tasks = numbered(2)
        queue.put(tasks)
        source.ack(self.held(source, 2))
        (new,) = numbered(1)
        again = replace(tasks[1], attributes={GENERATION: "1"})
        try:
            queue.put([tasks[0], new])
            if source.redrives:
                source.redrive([again])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
            raise AssertionError(
                f"a task that is done was put again, or redriven, which raised {type(error).__name__}: {error}"
            ) from None
        wanted = {new.id, again.id} if source.redrives else {new.id}
        deadline = time.monotonic() + 10 * self.wait_factor
        while wanted and time.monotonic() < deadline:
            leases = source.receive(source.max_batch, 0.5)  # what was done may run again
            wanted -= {lease.task.id for lease in leases}
            source.ack(leases)
        assert not wanted, f"beside tasks that are done {len(wanted)} were put or redriven, and never came"

    def test_sessions_are_told_apart_by_their_whole_names(self, given: Given) -> None:
        """Sessions must be compared by their exact and whole names. A user must not cancel the tasks of another.
        Read: spi.TaskQueue.cancel, spi.TaskSource.is_pending."""
        source = given()
        queue = self._queue(source)
        tasks = {name: numbered(1, session_id=name)[0] for name in AWKWARD_SESSIONS}
        for task in tasks.values():
            queue.put([task])
        for name in ("s", "s-1:", "s-1:b", "s__", "%"):
            pending = source.is_pending(name)
            assert not pending, f"no task has the session {name!r}, and it is pending"
        unnamed = numbered(1)
        queue.put(unnamed)
        named = [task.id for task in queue.cancel(session_id="")]
        assert named in ([], [unnamed[0].id]), f"no task has the session '', and cancel named {len(named)}"
        if not named:
            tasks[""] = unnamed[0]
        for name in ("s_1", "s%", "s-1", "s-1:a", "s-1 ", AWKWARD_SESSIONS[-2], AWKWARD_SESSIONS[-1]):
            assert source.is_pending(name) in (True, None), f"a task of the session {name!r} waits; it is not pending"
            named = [task.id for task in queue.cancel(session_id=name)]
            assert named == [tasks.pop(name).id], f"the session {name!r} has one task, and cancel named {len(named)}"
        left = {lease.task.id for lease in self.take(source, len(tasks))}
        assert left == {task.id for task in tasks.values()}, "a task of another session was cancelled"

    # --- helpers ---

    def _queue(self, source: TaskSource) -> TaskQueue:
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: tasks are put there in other ways")
        return source

    def _comes_within(self, source: TaskSource, began: float, seconds: float, since: str) -> None:
        """Checks that a `receive` with a far longer wait returns a task at about this time."""
        longest = seconds + 15 * self.wait_factor
        found: Sequence[Lease] = ()
        while not found and time.monotonic() - began < longest:
            found = source.receive(1, longest)
            if not found:
                time.sleep(0.01)  # a finite source need not wait
        took = time.monotonic() - began
        assert found, f"a task was to come {seconds:g} s after {since}, and receive({longest:g}) received none"
        assert took < 1.5 * seconds + 4 * self.wait_factor, (
            f"a task was to come {seconds:g} s after {since}, and a receive that waited received it after {took:.1f} s"
        )

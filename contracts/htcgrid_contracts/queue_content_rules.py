"""Queues of more than one page, and how ids, attributes, priorities and generations are compared."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from htcgrid.spi import GENERATION, Lease, Rejected, Task, TaskQueue, TaskSource

from htcgrid_contracts.common import eventually, not_asked, unique_id
from htcgrid_contracts.payloads import AWKWARD_IDS, large_text
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered

_SESSIONS = 150
_PRIORITIES = (9, 100, -1, 0, 10, 1)


class QueueContentRules(SourceHelpers):
    """Asked of sources that are a `TaskQueue`."""

    many_tasks: int = 1100
    """Tasks that are more than a page of what the source reads from."""

    # --- more than a page ---

    def test_more_tasks_than_a_page_are_put_and_cancelled(self, given: Given) -> None:
        """`put` and `cancel` must work for more tasks than one page of the service: a session may have millions.
        Read: spi.TaskQueue.put, spi.TaskQueue.cancel."""
        source = given()
        queue = self.a_queue(source)
        of_session = numbered(self.many_tasks, session_id="many")
        by_ids = [
            replace(task, attributes={"session_id": f"s-{number % _SESSIONS}"})
            for number, task in enumerate(numbered(self.many_tasks))
        ]
        queue.put(of_session)
        queue.put(by_ids)
        self._all_are_counted(source, 2 * self.many_tasks)
        for what, expected, named in (
            ("a session", of_session, queue.cancel(session_id="many")),
            ("a list", by_ids, queue.cancel(task_ids=[task.id for task in by_ids])),
        ):
            ids = {task.id for task in named}
            assert len(named) == len(ids), f"cancel of {what} of {len(expected)} tasks named some twice"
            missing = {task.id for task in expected} - ids
            assert not missing, f"cancel of {what} of {len(expected)} tasks left {len(missing)} of them"
        if not source.redrives:
            return
        again = [replace(task, attributes={GENERATION: "1"}) for task in by_ids]
        source.redrive(again)
        missing = {task.id for task in again}
        deadline = time.monotonic() + 20 * self.wait_factor
        while missing and time.monotonic() < deadline:
            leases = source.receive(source.max_batch, 1.0)
            missing -= {lease.task.id for lease in leases if not lease.invalid}
            source.ack(leases)
        assert not missing, (
            f"{len(again)} tasks that were cancelled were redriven, and {len(missing)} of them never came"
        )

    def test_put_of_many_accepts_all_or_none(self, given: Given) -> None:
        """When `put` rejects the last of many tasks, it must accept none of them, and must see an id that comes twice among
        them, also where it sends them in several requests. Read: spi.TaskQueue.put."""
        source = given()
        queue = self.a_queue(source)
        (old,) = numbered(1)
        queue.put([old])
        new, changed = numbered(self.many_tasks), replace(old, payload=b'"another"')
        if not self._is_rejected(queue, [changed]):
            not_asked("this queue knows no ids, and takes every task")
        for last, what in ((changed, "is there with another event"), (new[0], "comes twice")):
            assert self._is_rejected(queue, [*new, last]), (
                f"of {len(new) + 1} tasks the last one {what}, and `put` accepted them"
            )
        (lease,) = self.take(source, 1)
        assert lease.task.id == old.id, f"`put` rejected one of {len(new) + 1} tasks, and accepted others"
        self.nothing_comes(source, on_lease=True)

    def test_all_of_many_dead_letters_are_listed(self, source: TaskSource, given: Given) -> None:
        """`dead_letters` must list all of many: a user runs all of them again, and must not miss one.
        Read: spi.TaskSource.dead_letters."""
        if type(source).dead_letters is TaskSource.dead_letters:
            not_asked("`dead_letters` is the default: its dead letters are read in other ways")
        size = min(self.many_tasks, 60 * source.max_batch)
        given(*numbered(size))
        self.set_aside(source, size)
        expected = {task.id for task in self.published}

        def listed() -> list[str]:
            return [letter.task.id for letter in source.dead_letters() if letter.task.id in expected]

        found = len(listed())
        eventually(
            lambda: sorted(listed()) == sorted(expected),
            10 * self.wait_factor,
            f"each of {size} dead letters once in `dead_letters`, which lists {found}",
        )

    def test_several_large_events_go_through_one_call(self, given: Given) -> None:
        """`put` and `receive` must accept several large events in one call. The size of one request is not a limit of a
        batch. Read: spi.TaskQueue.put, spi.TaskSource.receive."""
        source = given()
        queue = self.a_queue(source)
        large = large_text(self.largest_payload)
        tasks = [replace(task, payload=large) for task in numbered(3)]
        queue.put(tasks)
        came: list[Task] = []
        deadline = time.monotonic() + 30 * self.wait_factor
        while len(came) < len(tasks):
            assert time.monotonic() < deadline, f"{len(came)} of 3 events of {len(large)} bytes came"
            leases = source.receive(min(3, source.max_batch), 1.0)
            came += [lease.task for lease in leases]
            source.ack(leases)
            again = [lease.attempt for lease in leases if lease.attempt > 1]
            assert not again, f"an event came for the first time, at attempt {again[0]}: it was leased and not returned"
        for task in came:
            assert task.payload == large, f"an event of {len(large)} bytes came with {len(task.payload)}, or changed"

    # --- cancel ---

    def test_cancel_returns_tasks_with_their_session(self, given: Given) -> None:
        """`cancel` must return tasks with their session, since a `cancelled` result is stored under it.
        Read: spi.TaskQueue.cancel."""
        source = given()
        queue = self.a_queue(source)
        tasks = numbered(2, session_id="s-1", city="Zürich")
        queue.put(tasks)
        self.held(source, 1)
        named = [*queue.cancel(session_id="s-1"), *queue.cancel(task_ids=[task.id for task in tasks])]
        wrong = [dict(task.attributes) for task in named if task.attributes.get("session_id") != "s-1"]
        assert not wrong, f"a task is of the session 's-1', and `cancel` returned it with the attributes {wrong[0]}"

    def test_cancel_takes_ids_as_they_are(self, given: Given) -> None:
        """`cancel` must compare ids exactly. An id is not a pattern, and not a part of a query.
        Read: spi.TaskQueue.cancel."""
        source = given()
        queue = self.a_queue(source)
        first = unique_id()
        tasks = {end: replace(task, id=first + end) for end, task in _with_ids(AWKWARD_IDS)}
        queue.put(list(tasks.values()))
        for absent in (f"{first[:-1]}%", f"{first[:-1]}_", f"{first[:-1]}*", f"{first}' OR '1'='1"):
            named = queue.cancel(task_ids=[absent])
            assert not named, f"no task has the id {absent!r}, and cancel named {len(named)}"
        for end in AWKWARD_IDS[::2]:
            stopped = tasks.pop(end)
            named = queue.cancel(task_ids=[stopped.id])
            assert [task.id for task in named] == [stopped.id], (
                f"the task {stopped.id!r} was cancelled, and cancel named {[task.id for task in named]}"
            )
        left = {lease.task.id for lease in self.held(source, len(tasks))}
        assert left == {task.id for task in tasks.values()}, "a task of another id was cancelled"

    # --- put again ---

    def test_put_of_a_task_that_is_leased_changes_nothing(self, given: Given) -> None:
        """`put` of a task that is leased must not change it: a `submit` that is repeated meets tasks that run.
        Read: spi.TaskQueue.put."""
        source = given()
        queue = self.a_queue(source)
        tasks = numbered(1)
        queue.put(tasks)
        leases = self.held(source, 1)
        queue.put(tasks)
        self.nothing_comes(source, on_lease=True)
        gone = source.extend(leases, 60 * self.wait_factor)
        assert not gone, "a leased task was put again, and its lease is said to be lost"
        if not self.returns(source):
            return
        delayed = numbered(1)
        queue.put(delayed)
        source.nack(self.held(source, 1), 60 * self.wait_factor)
        source.nack(leases)
        queue.put([*tasks, *delayed])
        (again,) = self.held(source, 1)
        assert again.attempt == 2, f"handed out for the second time, and put again before, it says {again.attempt}"
        self.nothing_comes(source, on_lease=True)

    def test_put_knows_a_task_whose_attributes_come_in_another_order(self, given: Given) -> None:
        """`put` must see the same task where only the order of the attributes differs. Attributes have no order.
        Read: spi.TaskQueue.put."""
        source = given()
        queue = self.a_queue(source)
        (task,) = numbered(1, session_id="s-1", note="", city="Zürich")
        queue.put([task])
        try:
            queue.put([replace(task, attributes=dict(sorted(task.attributes.items())))])
        except Rejected as error:
            raise AssertionError(
                f"a task that is there was put with its attributes in another order, and was refused: {error}"
            ) from None
        self.take(source, 1)
        self.nothing_comes(source, on_lease=True)

    # --- priorities ---

    def test_the_highest_priority_comes_first(self, source: TaskSource, given: Given) -> None:
        """Where a source has priorities, the highest number must come first: 10 before 9, and 0 before -1.
        Read: spi.Task."""
        given()
        queue = self.a_queue(source)
        tasks = {each: numbered(1, priority=str(each))[0] for each in _PRIORITIES}
        try:
            queue.put(list(tasks.values()))
        except Rejected as error:
            not_asked(f"it does not take these priorities: {error}")
        came = self._priorities(source, 1)
        highest_first = sorted(_PRIORITIES, reverse=True)
        as_texts = sorted(_PRIORITIES, key=str)
        wrong = {
            "the lowest first": highest_first[::-1],
            "ordered as texts": as_texts[::-1],
            "ordered as texts, the lowest first": as_texts,
        }
        for what, order in wrong.items():
            assert came != order, f"tasks of the priorities {list(_PRIORITIES)} came {what}: {came}"
        if came != highest_first:
            self._has_no_priorities(source)
            not_asked(f"this source has no priorities: tasks came as {came}")
        queue.put([replace(task, id=unique_id()) for task in tasks.values()])
        in_batches = self._priorities(source, source.max_batch)
        assert in_batches == highest_first, (
            f"tasks of the priorities {list(_PRIORITIES)} came one by one as {came}, and in batches as {in_batches}"
        )

    def test_a_task_that_comes_again_keeps_its_priority(self, source: TaskSource, given: Given) -> None:
        """A task that is returned, redriven, or whose lease has expired must keep its priority.
        Read: spi.Task, spi.TaskSource.nack, spi.TaskSource.redrive."""
        given()
        at_first = self._order(source, lambda _: None)
        if at_first != [9, 8, 1]:
            not_asked(f"this source has no priorities: tasks came as {at_first}")

        def give_back(low: Task) -> None:
            leases = {lease.task.id: lease for lease in self.held(source, 3)}
            first = leases.pop(low.id)
            source.nack([first])  # the first in the queue, so that it comes first where priorities are lost
            later, last = leases.values()
            source.nack([later])
            source.nack([last], 1.0)
            time.sleep(2.5 * self.wait_factor)  # a delay may be rounded up

        if self.returns(source):
            returned = self._order(source, give_back)
            assert returned == [9, 8, 1], (
                f"tasks of the priorities 9, 8 and 1 were returned, and came again as {returned}"
            )

        def run_again(low: Task) -> None:
            done = self.held(source, 3)
            source.ack(done)
            done.sort(key=lambda lease: lease.task.id != low.id)
            source.redrive([replace(each.task, attributes={**each.task.attributes, GENERATION: "1"}) for each in done])

        if source.redrives:
            redriven = self._order(source, run_again)
            assert redriven == [9, 8, 1], f"tasks of the priorities 9, 8 and 1 were redriven, and came as {redriven}"
        if source.lease_seconds is not None and source.lease_seconds <= self.longest_lease:

            def expire(_: Task) -> None:
                self.take(source, 3)
                time.sleep(self.expiry(source))

            expired = self._order(source, expire)
            assert expired == [9, 8, 1], f"leases of the priorities 9, 8 and 1 expired, and the tasks came as {expired}"

    def _all_are_counted(self, source: TaskSource, size: int) -> None:
        """Checks that `stats` sees more than a page of tasks, and of sessions, where it counts them."""

        def counted() -> tuple[int, int]:
            stats = source.stats()
            return stats.states.waiting or 0, len(stats.sessions)

        waiting, sessions = counted()
        if source.stats().states.waiting is not None:
            what = f"{size} tasks wait, and `stats` counts {waiting}"
            eventually(lambda: counted()[0] >= 0.9 * size, 10 * self.wait_factor, what)
        what = f"{_SESSIONS + 1} sessions have tasks, and `stats` tells {sessions}"
        assert sessions == 0 or sessions > _SESSIONS, what

    def _is_rejected(self, queue: TaskQueue, tasks: Sequence[Task]) -> bool:
        try:
            queue.put(tasks)
        except Rejected:
            return True
        return False

    def _priorities(self, source: TaskSource, size: int) -> list[int]:
        """Receives and acks all of the tasks of `_PRIORITIES`, so many at a time; returns their priorities as they came."""
        came: list[int] = []
        deadline = time.monotonic() + 20 * self.wait_factor
        while len(came) < len(_PRIORITIES):
            assert time.monotonic() < deadline, f"{len(came)} of {len(_PRIORITIES)} tasks came"
            leases = source.receive(size, 1.0)
            came += [int(lease.task.attributes["priority"]) for lease in leases]
            source.ack(leases)
        return came

    def _has_no_priorities(self, source: TaskSource) -> None:
        """Checks that a source in whose order no priority shows refuses none that is not a number, as one that has them may."""
        queue = self.a_queue(source)
        try:
            queue.put(numbered(1, priority="high"))
        except Rejected:
            pass
        else:
            return
        low, high = (numbered(1, priority=each)[0] for each in ("0", "1"))  # a source of few priorities has these
        for task in (low, high):
            queue.put([task])
        (first,) = self.take(source, 1)
        assert first.task.id == high.id, (
            "the priority 'high' is Rejected, since it is no number; and of two tasks with the priorities 0 and 1 the first "
            "came first"
        )

    def _order(self, source: TaskSource, then: Callable[[Task], None]) -> list[int]:
        """Puts tasks of the priorities 1, 8 and 9, does this, and returns the order in which they then come."""
        tasks = [numbered(1, priority=priority)[0] for priority in ("1", "8", "9")]
        try:
            self.a_queue(source).put(tasks)
        except Rejected as error:
            not_asked(f"it does not take these priorities: {error}")
        then(tasks[0])
        came = []
        for _ in tasks:
            (lease,) = self.take(source, 1)
            came.append(int(lease.task.attributes["priority"]))
            source.ack([lease])
            self.in_time()
        return came

    def test_a_priority_that_cannot_be_kept_is_rejected_or_passed_over(self, given: Given) -> None:
        """A priority that the source cannot keep must be ignored, or rejected with the id of the task. The next `put`
        must work. Read: spi.Task, spi.TaskQueue.put."""
        source = given()
        queue = self.a_queue(source)
        accepted = []
        for priority in ("100000", "-9999999999999", "9" * 40, "high", "", "1.5"):
            (task,) = numbered(1, priority=priority)
            try:
                queue.put([task])
            except Rejected as error:
                named = list(error.task_ids)
                assert named == [task.id], f"`put` rejected the priority {priority!r}, and task_ids name {named}"
                continue
            accepted.append(task)
        (plain,) = numbered(1)
        queue.put([plain])
        expected = {task.id for task in [*accepted, plain]}
        came = {lease.task.id for lease in self.held(source, len(expected))}
        assert came == expected, "a task was accepted, and another came"

    # --- generations ---

    def test_the_generations_of_tasks_are_numbers(self, given: Given) -> None:
        """Generations must be compared as numbers: generation 10 is later than generation 9.
        Read: spi.TaskSource.redrive."""
        source = self._redriving(given)
        (ninth,) = numbered(1, generation="9")
        tenth = replace(ninth, attributes={**ninth.attributes, GENERATION: "10"})
        self.publish(source, [ninth])
        source.redrive([tenth])
        came = []
        while tenth not in came:
            leases = self.take(source, 1)
            source.ack(leases)
            came.append(leases[0].task)
        eleventh, before = (replace(tenth, id=unique_id(), attributes={GENERATION: each}) for each in ("11", "9"))
        before = replace(before, id=eleventh.id)
        source.redrive([eleventh])
        with suppress(Rejected):
            source.redrive([before])
        (lease,) = self.take(source, 1)
        source.ack([lease])
        assert lease.task == eleventh, f"a task of generation 11 was replaced by that of generation 9: {lease.task}"

    def test_a_redrive_that_was_cut_off_is_completed_by_giving_it_again(self, given: Given) -> None:
        """A `redrive` that was interrupted must be completed when it is repeated. Tasks that are there already must not
        stop those behind them. Read: spi.TaskSource.redrive."""
        source = self._redriving(given)
        first, second, third = numbered(3, generation="1")
        source.redrive([second])
        source.redrive([first, second, third])
        came = sorted(lease.task.id for lease in self.held(source, 3))
        assert came == sorted([first.id, second.id, third.id]), "of three tasks that were redriven others came"
        self.nothing_comes(source, on_lease=True)

    def test_a_late_call_leaves_the_later_generation(self, given: Given) -> None:
        """A late call for an earlier generation must not change the later one. An agent that was suspended does not
        know of the redrive. Read: spi.TaskSource.redrive."""
        source = self._redriving(given)
        (first,) = numbered(1)
        again = replace(first, attributes={**first.attributes, GENERATION: "1"})
        self.publish(source, [first])
        late = self.held(source, 1)
        source.redrive([again])
        source.ack(late)
        (lease,) = self.take(source, 1)
        assert lease.task == again, f"{lease.task} was leased, and not the task of the later generation"
        held = self._kept(source, lease)
        source.nack(late)
        lost = set(source.extend(late, 0.1))
        source.ack(late)
        if type(source).dead_letter is not TaskSource.dead_letter:
            source.dead_letter(late, "the contract's reason")
        self.nothing_comes(source, max(0.6 * self.wait_factor, 0.5), on_lease=True)
        gone = source.extend(held, 60 * self.wait_factor)
        assert not gone, "a late call of an agent that had the earlier generation took the lease of the later one"
        assert lost == {first.id}, f"a later generation took the lease of an earlier one, and `extend` says {lost}"

    # --- helpers ---

    def a_queue(self, source: TaskSource) -> TaskQueue:
        """The source as a `TaskQueue`; where it is not one, the rule is left out."""
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: tasks are put there in other ways")
        return source

    def _kept(self, source: TaskSource, lease: Lease) -> Sequence[Lease]:
        """The lease, extended for longer than the rule takes."""
        if source.lease_seconds is not None:
            source.extend([lease], 60 * self.wait_factor)
        return [lease]

    def _redriving(self, given: Given) -> TaskSource:
        source = given()
        if not source.redrives:
            not_asked("`redrives` is False: failed tasks are not put again into this source")
        return source


def _with_ids(ends: Sequence[str]) -> Iterator[tuple[str, Task]]:
    return zip(ends, numbered(len(ends)), strict=True)

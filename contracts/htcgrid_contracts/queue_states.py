"""Queues with tasks in every state at once: counted, cancelled, made dead letters and redriven."""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import pytest
from htcgrid.spi import GENERATION, Lease, QueueStats, Rejected, States, Task, TaskQueue, TaskSource

from htcgrid_contracts.common import eventually, not_asked
from htcgrid_contracts.payloads import AWKWARD_ATTRIBUTES, AWKWARD_IDS, AWKWARD_PAYLOADS
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered

T = TypeVar("T")

_ODD_EVENTS = tuple(AWKWARD_PAYLOADS[name] for name in ("spaces and order", "the same key twice", "200 kB"))


class QueueStateRules(SourceHelpers):
    """Asked of sources that are a `TaskQueue`."""

    # --- put ---

    def test_put_keeps_ids_payloads_and_attributes(self, given: Given) -> None:
        """`put` must keep ids, payloads and attributes exactly as they are given. Read: spi.TaskQueue.put."""
        source = given()
        queue = self.queue(source)
        tasks = [replace(task, payload=payload) for task, payload in _named(AWKWARD_PAYLOADS)]
        priority = {"priority": "1"}  # one that a queue of few priorities has too
        tasks += [
            replace(task, attributes={**attributes, **(priority if "priority" in attributes else {})})
            for task, attributes in _named(AWKWARD_ATTRIBUTES)
        ]
        tasks += [replace(task, id=task.id + name) for task, name in _named({each: each for each in AWKWARD_IDS})]
        queue.put(tasks)
        for task in self._taken(source, len(tasks)):
            sent = next((each for each in tasks if each.id == task.id), None)
            assert sent is not None, f"a task of the id {task.id!r} came, and none was put"
            assert task.payload == sent.payload, f"put {sent.payload[:80]!r}, received {task.payload[:80]!r}"
            assert dict(task.attributes) == dict(sent.attributes), f"put {sent.attributes}, received {task.attributes}"

    def test_put_rejects_what_differs_in_its_attributes_or_comes_twice(self, given: Given) -> None:
        """`put` must reject a task whose id is there with other attributes, and an id that comes twice in one call.
        Otherwise one task gets the result of the other. Read: spi.TaskQueue.put."""
        queue = self.queue(given())
        first, other = numbered(2, session_id="s-1", city="Bern")
        queue.put([first])
        with pytest.raises(Rejected):
            queue.put([replace(first, attributes={"session_id": "s-1", "city": "Basel"})])
        with pytest.raises(Rejected):
            queue.put([other, other])

    def test_what_was_put_outlives_its_submitter(self, source: TaskSource, given: Given) -> None:
        """Tasks must stay in the queue after the plugin that put them is closed: `htcgrid submit` ends at once.
        Read: spi.TaskQueue.put."""
        if not self.shared:
            not_asked("the place is this process's own")
        given()
        submitter = self.again(source)
        tasks = numbered(min(source.max_batch, 3))
        with submitter:
            self.queue(submitter).put(tasks)
        found = {lease.task.id for lease in self.take(source, len(tasks))}
        assert found == {task.id for task in tasks}

    # --- cancel ---

    def test_cancel_stops_every_task_that_it_is_given(self, given: Given) -> None:
        """`cancel` must cancel every task that it is given, waiting or leased, and return these alone.
        Read: spi.TaskQueue.cancel."""
        source = given()
        queue = self.queue(source)
        queue.put(numbered(5))
        *leases, kept = self.held(source, 5)
        first, second, third, fourth = leases
        source.nack([first, second])
        stopped = [lease.task for lease in leases]
        named = queue.cancel(task_ids=[*(task.id for task in stopped), "contract-not-there"])
        assert sorted(task.id for task in named if task.id != "contract-not-there") == sorted(
            task.id for task in stopped
        ), f"4 tasks were cancelled, and cancel named {len(named)}"
        self.nothing_comes(source, 1.0 * self.wait_factor, on_lease=True)
        left = [third, fourth, kept]
        size = min(source.max_batch, len(left))
        gone: set[str] = set()
        for start in range(0, len(left), size):
            gone |= set(source.extend(left[start : start + size], 60 * self.wait_factor))
        assert gone == {third.task.id, fourth.task.id}, (
            f"two leased tasks were cancelled, and extend says {sorted(gone)}"
        )

    def test_a_cancelled_task_stays_away_when_its_lease_is_over(self, given: Given) -> None:
        """A task that was cancelled while leased must not be handed out when its lease expires. Its agent may have
        died. Read: spi.TaskQueue.cancel."""
        source = given()
        queue = self.queue(source)
        queue.put(numbered(2))
        wait = self.expiry(source)
        first, second = (lease.task.id for lease in self.take(source, 2))
        queue.cancel(task_ids=[first])
        time.sleep(wait)
        named = [task.id for task in queue.cancel(task_ids=frozenset({second}))]  # any collection
        assert named == [second], f"a task whose lease is over was cancelled, and cancel named {named}"
        self.nothing_comes(source)

    # --- all states at once ---

    def test_a_queue_in_every_state_is_counted_right(self, given: Given) -> None:
        """`stats` must be right when tasks are waiting, delayed, leased, acked, dead and cancelled at the same time, in
        several sessions. Read: spi.TaskSource.stats, spi.States."""
        source = given()
        if type(source).stats is TaskSource.stats:
            not_asked("`stats` is the default: it cannot tell how much it holds")
        began = time.monotonic()
        self._in_every_state(source)
        others = ("zone", "", "kiosk", "attic", "x")  # in no order of their own
        for name in others:
            self.queue(source).put(numbered(1, session_id=name) if name else numbered(1))
        has_dead = type(source).dead_letter is not TaskSource.dead_letter
        inside = States(waiting=1, delayed=1, leased=1, cancelled=2, dead=1 if has_dead else 0)
        for brief in (False, True):
            sessions = {"mixed": inside, "mixed-other": States(2, 0, 0, 0, 0)}
            sessions |= dict.fromkeys(others, States(1, 0, 0, 0, 0))
            wrong = _Wrong(replace(inside, waiting=8), {} if brief else sessions, began)
            eventually(
                lambda brief=brief, wrong=wrong: not wrong.of(source.stats(brief=brief)),  # type: ignore[misc]
                5 * self.wait_factor,
                f"stats(brief={brief}) of a queue in every state: {wrong.of(source.stats(brief=brief))}",
            )

    def test_a_session_in_every_state_is_cancelled_right(self, given: Given) -> None:
        """`cancel` must not return tasks that are done or dead, and these must not keep a session pending.
        Read: spi.TaskQueue.cancel, spi.TaskSource.is_pending."""
        source = given()
        queue = self.queue(source)
        leased, waiting, delayed, cancelled, both = (lease.task.id for lease in self._in_every_state(source))
        assert source.is_pending("mixed") in (True, None), "tasks of the session wait, and it is not pending"
        named = [task.id for task in queue.cancel(session_id="mixed")]
        now, before = {leased, waiting, delayed}, {cancelled, both}
        assert len(named) == len(set(named)), "cancel named a task twice"
        assert now <= set(named) <= now | before, (
            f"cancel of a session with 1 leased, 1 waiting, 1 delayed, 2 cancelled, 1 acked and 1 dead task named "
            f"{len(named)} tasks; expected the first five"
        )
        missing = before - set(named)
        assert not (self.shared and missing), "cancel did not name what an earlier call had cancelled"
        assert source.is_pending("mixed") in (False, None), (
            "all of the session is acked, cancelled or dead: not pending"
        )
        assert source.is_pending("mixed-other") in (True, None), "another session's tasks wait, and it is not pending"

    def test_a_session_is_pending_while_its_task_is_delayed(self, given: Given) -> None:
        """`is_pending` must be true while a task waits for its delay to end: the task will run again.
        Read: spi.TaskSource.is_pending."""
        source = given()
        self.queue(source).put(numbered(1, session_id="asked"))
        if source.is_pending("asked") is None:
            not_asked("`is_pending` says None: it cannot tell")
        source.nack(self.held(source, 1), 60 * self.wait_factor)
        assert source.is_pending("asked") is True, "a task of the session is delayed, and it is not pending"

    def _in_every_state(self, source: TaskSource) -> Sequence[Lease]:
        """Of a session: tasks that are leased, waiting, delayed, cancelled while leased and cancelled while waiting;
        one more is acked and one a dead letter. Of another session two wait."""
        queue = self.queue(source)
        queue.put(numbered(7, session_id="mixed"))
        queue.put(numbered(2, session_id="mixed-other"))
        leases = self.held(source, 9)
        mixed = [lease for lease in leases if lease.task.attributes["session_id"] == "mixed"]
        source.nack([lease for lease in leases if lease not in mixed])
        acked, dead, leased, waiting, delayed, cancelled, both = mixed
        source.ack([acked])
        source.nack([waiting, both])
        source.nack([delayed], 60 * self.wait_factor)
        source.dead_letter([dead], "the contract's reason")
        queue.cancel(task_ids=[cancelled.task.id, both.task.id])
        return leased, waiting, delayed, cancelled, both

    def test_looking_changes_nothing(self, source: TaskSource, given: Given) -> None:
        """`stats` must not change the queue: `htcgrid status` calls it every second. Read: spi.TaskSource.stats."""
        given(*numbered(2))
        for _ in range(2):
            source.stats()
            source.stats(brief=True)
            list(source.dead_letters())
            source.is_pending("s-1")
        leases = self.take(source, 2)
        assert [lease.attempt for lease in leases] == [1, 1], "tasks that were only inspected count as handed out"

    def test_stats_name_an_agent_by_its_name(self, source: TaskSource, given: Given) -> None:
        """`stats` must show the name of the agent that holds a task, and how long ago that agent last called: users look
        for one that hangs. Read: spi.QueueStats, spi.Holder, spi.Plugin.agent."""
        if not self.shared:
            not_asked("the place is the object itself: there is one agent")
        reader = given(*numbered(4))
        if reader.stats().agents is None:
            not_asked("stats().agents is None: the queue cannot tell agents apart")
        other = self.again(source)
        other.agent = f"contract-{uuid.uuid4().hex[:8]}"
        with other:
            self.take(reader, 1)
            began = time.monotonic()
            leases = self.take(other, 2)
            agents = reader.stats().agents or {}
            found = {name: holder.leased for name, holder in agents.items() if other.agent in name}
            elapsed = time.monotonic() - began + 10
            silent = [holder.silent_seconds for name, holder in agents.items() if other.agent in name]
            assert all(0 <= each <= elapsed for each in silent), (
                f"the agent {other.agent!r} was heard of {elapsed - 10:.1f} s ago, and its silent_seconds are {silent}"
            )
            assert list(found.values()) == [2], (
                f"the agent {other.agent!r} has leased 2 tasks, and `agents` of the stats are {dict(agents)}"
            )
            time.sleep(2.5)  # more than 1 s, of which a queue may know only the whole ones
            stats = reader.stats()
            looked = time.monotonic()
            agents = stats.agents or {}
            silent = [holder.silent_seconds for name, holder in agents.items() if other.agent in name]
            elapsed = time.monotonic() - began + 10
            assert all(1 <= each <= elapsed for each in silent), (
                f"the agent {other.agent!r} has not called for 2.5 s, and its silent_seconds are {silent}"
            )
            if source.lease_seconds is not None and source.lease_seconds <= 1.2:
                held = sum(holder.leased for name, holder in agents.items() if other.agent in name)
                assert not held, f"the leases of {other.agent!r} are over, and `agents` says that it has leased {held}"
                assert not stats.states.leased, (
                    f"all leases are over, and `agents` says so, but `states` says that {stats.states.leased} are leased"
                )
            self.take(other, 1)
            agents = reader.stats().agents or {}
            since = time.monotonic() - looked
            again = [holder.silent_seconds for name, holder in agents.items() if other.agent in name]
            assert again, f"the agent {other.agent!r} has leased a task, and `agents` does not name it any more"
            assert max(again) < max(silent, default=since) + since - 0.5, (
                f"the agent {other.agent!r} was silent for {max(silent, default=0):.1f} s; then it leased a task, and its "
                f"silent_seconds are {max(again):.1f}"
            )
            other.ack(leases)

    # --- dead letters, and what is run again ---

    def test_dead_letters_are_kept_with_all_that_is_known(self, source: TaskSource, given: Given) -> None:
        """`dead_letters` must return every task of the batch with its event, its attributes and its whole reason, so that it can be
        understood and run again. Read: spi.TaskSource.dead_letters."""
        size = min(source.max_batch, 3)
        tasks = numbered(size, session_id="s-1", city="Zürich")
        given(*(replace(task, payload=payload) for task, payload in zip(tasks, _ODD_EVENTS, strict=False)))
        if type(source).dead_letters is TaskSource.dead_letters:
            not_asked("`dead_letters` is the default: its dead letters are read in other ways")
        leases = self.held(source, size)
        reason = "ended by signal 9, 3 times: „Größe“ past its limit, as told by the kernel; " + "see the log " * 5
        source.dead_letter(leases, reason)
        expected = {lease.task.id: lease.task for lease in leases}
        eventually(
            lambda: len([each for each in source.dead_letters() if each.task.id in expected]) == size,
            10 * self.wait_factor,
            f"all {size} dead letters of one call in `dead_letters`",
        )
        for each in source.dead_letters():
            assert each.reason == reason, f"the reason is {reason!r}, and listed is {each.reason!r}"
            task = expected[each.task.id]
            assert each.task == task, f"{task.payload[:80]!r}, {task.attributes} is listed as {str(each.task)[:300]}"

    def test_a_dead_letter_tells_its_attempts(self, source: TaskSource, given: Given) -> None:
        """A dead letter must tell how often its own task was tried, and its own reason: users need both.
        Read: spi.DeadTask."""
        given(*numbered(3))
        if type(source).dead_letters is TaskSource.dead_letters or not self.returns(source):
            not_asked("`dead_letters` or `nack` is the default")
        first, second, other = self.held(source, 3)
        source.nack([second])
        (second,) = self.held(source, 1)
        for some, reason in (([first, second], "the contract's reason"), ([other], "another reason")):
            self.in_batches(source, some, lambda leases, reason=reason: source.dead_letter(leases, reason))  # type: ignore[misc]
        expected = {
            first.task.id: (1, "the contract's reason"),
            second.task.id: (2, "the contract's reason"),
            other.task.id: (1, "another reason"),
        }
        found: dict[str, tuple[int, str]] = {}

        def are_listed() -> bool:
            found.update({each.task.id: (each.attempt, each.reason) for each in source.dead_letters()})
            return expected.keys() <= found.keys()

        eventually(are_listed, 10 * self.wait_factor, "three dead letters in `dead_letters`")
        assert found == expected, f"dead letters with their attempts and reasons: expected {expected}, listed {found}"

    def test_what_can_be_redriven_is_said(self, source: TaskSource) -> None:
        """A source with a `redrive` of its own must set `redrives`. Otherwise htcgrid never calls it.
        Read: spi.TaskSource.redrives."""
        offers = type(source).redrive is not TaskSource.redrive
        assert source.redrives is offers, (
            f"`redrives` is {source.redrives}, and there is {'a' if offers else 'no'} `redrive`"
        )

    def test_what_is_redriven_is_no_dead_letter_any_more(self, source: TaskSource, given: Given) -> None:
        """A task that is redriven must not be in `dead_letters` any more: it would be shown as failed while it runs.
        Read: spi.TaskSource.redrive."""
        size = min(source.max_batch, 3)
        given()
        if not source.redrives:
            not_asked("`redrives` is False: failed tasks are not put again into this source")
        tasks = numbered(size, session_id="s-1", city="Bern")
        self.publish(source, [replace(each, payload=_ODD_EVENTS[0]) for each in tasks])
        leases = self.held(source, size)
        source.dead_letter(leases, "the contract's reason")
        again = [replace(lease.task, attributes={**lease.task.attributes, GENERATION: "1"}) for lease in leases]
        source.redrive(again)
        if again[0].attributes.get("session_id") == "s-1":
            is_pending = source.is_pending("s-1")
            assert is_pending in (True, None), "tasks of a session were redriven, and it is not pending"
        came = [self.take(source, 1)[0] for _ in range(size)]
        attempts = [lease.attempt for lease in came]
        assert attempts == [1] * size, f"what is redriven is at attempt 1 again, and came at {attempts}"
        found = sorted((lease.task for lease in came), key=lambda task: task.id)
        source.ack(came)
        assert found == sorted(again, key=lambda task: task.id), f"{size} tasks were redriven, and came as {found}"
        left = [each.task.id for each in source.dead_letters()]
        assert not left, f"{len(left)} of {size} tasks that were redriven are listed as dead letters still"
        eventually(
            lambda: source.stats(brief=True).states.dead in {0, None},
            10 * self.wait_factor,
            f"no dead letter in the stats: all {size} were redriven",
        )

    # --- helpers ---

    def queue(self, source: TaskSource) -> TaskQueue:
        """The source as a `TaskQueue`; where it is not one, the rule is left out."""
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: tasks are put there in other ways")
        return source

    def _taken(self, source: TaskSource, size: int) -> list[Task]:
        """Receive and ack so many tasks."""
        tasks: list[Task] = []
        while len(tasks) < size:
            leases = self.take(source, 1)
            tasks += [lease.task for lease in leases]
            source.ack(leases)
        return tasks


class _Wrong:
    """Collects what is wrong with `stats`, as a text."""

    def __init__(self, every: States, sessions: Mapping[str, States], began: float) -> None:
        self._every, self._sessions, self._began = every, sessions, began

    def of(self, stats: QueueStats) -> str:
        wrong = _differs(stats.states, self._every)
        if stats.sessions and self._sessions:
            for name, expected in self._sessions.items():
                found = stats.sessions.get(name, States(0, 0, 0, 0, 0))
                wrong += [f"session {name}: {each}" for each in _differs(found, expected)]
            order = [name for name in stats.sessions if name in self._sessions]
            if order != list(self._sessions):
                wrong.append(f"sessions in the order {order}, submitted in the order {list(self._sessions)}")
        elapsed = time.monotonic() - self._began + 5
        if stats.oldest_seconds is not None and not 0 <= stats.oldest_seconds <= elapsed:
            wrong.append(f"oldest_seconds is {stats.oldest_seconds:g}, and nothing is older than {elapsed:.0f} s")
        if stats.agents is not None and self._sessions:
            held = sum(holder.leased for holder in stats.agents.values())
            if held != self._every.leased:
                wrong.append(f"agents hold {held} leases; expected {self._every.leased}")
        return "; ".join(wrong)


def _differs(found: States, expected: States) -> list[str]:
    wrong = []
    waiting, wanted = found.waiting, expected.waiting
    if found.delayed is None and wanted is not None:
        wanted += expected.delayed or 0
    elif found.delayed != expected.delayed:
        wrong.append(f"delayed is {found.delayed}, expected {expected.delayed}")
    if waiting not in {wanted, None}:
        wrong.append(f"waiting is {waiting}, expected {wanted}")
    wrong += [
        f"{name} is {getattr(found, name)}, expected {getattr(expected, name)}"
        for name in ("leased", "dead")
        if getattr(found, name) not in {getattr(expected, name), None}
    ]
    if found.cancelled is not None and found.cancelled > (expected.cancelled or 0):
        wrong.append(f"cancelled is {found.cancelled}, expected {expected.cancelled}")
    return wrong


def _named(contents: Mapping[str, T]) -> Sequence[tuple[Task, T]]:
    return list(zip(numbered(len(contents)), contents.values(), strict=True))

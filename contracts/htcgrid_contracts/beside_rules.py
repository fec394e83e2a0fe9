"""A source whose calls come side by side, that is empty, or whose place goes away while it waits."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count, product

import pytest
from htcgrid.spi import Lease, Rejected, States, Task, TaskQueue, TaskSource, Unavailable

from htcgrid_contracts.common import in_threads, not_asked, patiently
from htcgrid_contracts.payloads import LONG_TEXT, ODD_TEXTS
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered

_STATES = ("waiting", "delayed", "leased", "cancelled", "dead")


class BesideRules(SourceHelpers):
    """Asked of every source."""

    def test_calls_of_every_kind_may_come_side_by_side(self, source: TaskSource, given: Given) -> None:
        """Every call must work while other threads make others: receive, extend, ack and nack, and beside these put, cancel
        and stats. Each must get its own answer, and no task may be lost. Read: spi, rules for all three."""
        given(*numbered(40))
        expected = {task.id for task in self.published}
        is_queue = isinstance(source, TaskQueue)
        until = time.monotonic() + 0.8 * max(1.0, self.wait_factor)
        done: set[str] = set()
        names = count()

        def is_over() -> bool:
            return time.monotonic() > until

        def work() -> None:
            late = until + 20 * self.wait_factor
            while not expected <= done and time.monotonic() < late:
                leases = patiently(lambda: source.receive(min(source.max_batch, 3), 0.05))
                patiently(lambda leases=leases: source.extend(leases, 60 * self.wait_factor))  # type: ignore[misc]
                if next(names) % 4 == 0 and not is_over() and self.returns(source):
                    patiently(lambda leases=leases: source.nack(leases))  # type: ignore[misc]
                else:
                    patiently(lambda leases=leases: source.ack(leases))  # type: ignore[misc]
                    done.update(lease.task.id for lease in leases)

        def look() -> None:
            while not is_over():
                patiently(lambda: source.stats(brief=True))
                patiently(source.stats)
                patiently(lambda: list(source.dead_letters()))
                patiently(lambda: source.is_pending("s-1"))

        def put_and_cancel() -> None:
            while is_queue and not is_over():
                (task,) = numbered(1)
                patiently(lambda task=task: source.put([task]))  # type: ignore[misc, attr-defined]
                named: Sequence[Task] = patiently(lambda task=task: source.cancel(task_ids=[task.id]))  # type: ignore[misc, attr-defined]
                others = [each.id for each in named if each.id != task.id]
                assert not others, (
                    f"a thread cancelled {task.id}, and cancel named {others[0]}, which another thread had"
                )

        in_threads([work, work, look, put_and_cancel, put_and_cancel], 40 * self.wait_factor)
        assert expected <= done, (
            f"{len(expected - done)} of {len(expected)} tasks never came, or came and were not acked"
        )

    def test_an_empty_queue_is_told_as_empty(self, source: TaskSource, given: Given) -> None:
        """A queue in which nothing is must be told as empty: 0 is a number, and a sum over nothing must not be an error or
        "not known". Read: spi.TaskSource.stats, spi.States."""
        given()
        empty = {brief: source.stats(brief=brief) for brief in (False, True)}
        for brief, stats in empty.items():
            wrong = [
                f"{name} is {found}" for name in _STATES if (found := getattr(stats.states, name)) not in {0, None}
            ]
            assert not wrong, f"the queue is empty, and stats(brief={brief}) says: {', '.join(wrong)}"
        assert empty[False].oldest_seconds is None, "the queue is empty, and oldest_seconds is not None"
        assert not list(source.dead_letters()), "the queue is empty, and `dead_letters` lists something"
        assert not source.is_pending("s-1"), "the queue is empty, and a session is pending"
        if isinstance(source, TaskQueue):
            assert not source.cancel(session_id="s-1"), "the queue is empty, and `cancel` named something"
        if self.finite:
            return
        self.publish(source, numbered(1))
        for brief, stats in empty.items():
            then = source.stats(brief=brief).states
            unknown = [name for name in _known(then) if name not in _known(stats.states)]
            assert not unknown, f"`{unknown[0]}` is told of a queue with a task, and is None of an empty one; it is 0"

    def test_a_receive_that_waits_when_its_place_went_away_is_unavailable(
        self, source: TaskSource, given: Given
    ) -> None:
        """When the place goes away while `receive` waits, it must raise Unavailable soon, as at its start. Read: spi.Unavailable."""
        if self.finite:
            not_asked("finite: it does not wait for more")
        self.needs("take_away")
        given()
        wait = 30 * self.wait_factor
        raised: list[tuple[float, BaseException | None]] = []

        def receive() -> None:
            error = None
            try:
                source.receive(1, wait)
            except BaseException as caught:  # noqa: BLE001 - looked at below
                error = caught
            raised.append((time.monotonic(), error))

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        time.sleep(0.7)
        with self.away(source):
            began = time.monotonic()
            thread.join(wait + 5 * self.wait_factor)
        assert raised, "its place went away while `receive` waited, and it has not returned after its wait"
        ended, error = raised[0]
        assert isinstance(error, Unavailable), f"its place went away while `receive` waited, which raised {error!r}"
        most = 20 + self.away_seconds * self.wait_factor  # what is sent is read to its end: SQS waits for 20 s at most
        assert ended - began < most, (
            f"its place went away while receive(1, {wait:g}) waited, and it said so {ended - began:.0f} s later"
        )

    def test_any_text_in_an_attribute_is_kept_or_rejected(self, given: Given) -> None:
        """`put` must keep any text in an attribute, or raise Rejected with the id of the task; or it is leased as invalid. A NUL
        or half of a surrogate pair comes in JSON, and a text of any length: many databases refuse it with an error of their own.
        Read: spi.TaskQueue.put."""
        source = given()
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: tasks are put there in other ways")
        kept = {}
        # The session may be in a column of its own, where the others are in a document.
        odd = [*product(("note", "session_id"), ODD_TEXTS), ("note", LONG_TEXT)]
        for name, text in odd:
            (task,) = numbered(1)
            task = replace(task, attributes={**task.attributes, name: text})
            if self._is_put(source, f"a task with the attribute {name} = {text[:80]!r}", task):
                kept[task.id] = task
        leases: list[Lease] = self.held(source, len(kept)) if kept else []
        for lease in leases:
            if lease.invalid:
                continue  # what no sink could store may be told so late
            sent = dict(kept[lease.task.id].attributes)
            assert dict(lease.task.attributes) == sent, (
                f"sent {str(sent)[:200]}, received {str(lease.task.attributes)[:200]}"
            )

    def test_what_is_refused_takes_nothing(
        self, source: TaskSource, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """After many calls that were Rejected the next must work, of another agent too. A call that ends in an error must give
        its connection and its lock back. Read: spi.Rejected."""
        given()
        if not isinstance(source, TaskQueue):
            not_asked("no TaskQueue: tasks are put there in other ways")
        (first,) = numbered(1)
        source.put([first])
        other = replace(first, payload=b'"another"')
        if self._is_put(source, "a task whose id is there", other):
            not_asked("this queue knows no ids, and takes every task")

        def refused() -> None:
            for _ in range(12):
                assert not self._is_put(source, "a task whose id is there", other), (
                    "put was refused once, and not again"
                )
            source.put(numbered(1))

        in_threads([refused, refused], 30 * self.wait_factor)
        elsewhere = another()
        assert isinstance(elsewhere, TaskQueue)
        assert not self._is_put(source, "a task whose id is there", other)
        try:
            in_threads([lambda: elsewhere.put(numbered(1))], 8 * self.wait_factor)
        except AssertionError:
            pytest.fail("put was Rejected, and after it another agent's `put` hung: the first has kept a lock")

    # --- helpers ---

    def _is_put(self, source: TaskQueue, what: str, task: Task) -> bool:
        """Whether the task was accepted, and not Rejected by its id."""
        try:
            source.put([task])
        except Rejected as error:
            is_named = task.id in str(error) or task.id in error.task_ids
            assert is_named, f"{what} was Rejected, and the error does not name it: {error}"
            if isinstance(source, TaskSource):
                self.keeps_secrets(source, "the error of a task that is Rejected", str(error))
            return False
        except Unavailable as error:
            raise AssertionError(f"{what} was put, and the error is: {error}; raise Rejected") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
            raise AssertionError(
                f"{what} was put, which raised {type(error).__name__}: {error}; keep it, or raise Rejected"
            ) from None
        return True


def _known(states: States) -> list[str]:
    return [name for name in _STATES if getattr(states, name) is not None]

"""How a source waits, what works meanwhile, and what it raises once its service is away."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from htcgrid.spi import GENERATION, Lease, Plugin, TaskQueue, TaskSource

from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.source_helpers import Given, SourceHelpers, numbered


class WaitRules(SourceHelpers):
    """Asked of every source."""

    def test_receive_keeps_its_wait(self, given: Given) -> None:
        """`receive` must wait for about `wait` seconds. Half of it means twice as many requests; twice as much delays
        an agent that is to stop. Read: spi.TaskSource.receive."""
        source = given()
        wait = 2.0 * self.wait_factor
        took = 0.0
        for _ in range(3):  # a busy machine may be late once
            began = time.monotonic()
            assert not source.receive(1, wait), "a task was leased, but the source has none"
            took = time.monotonic() - began
            assert took > 0.75 * wait or source.exhausted, f"came back after {took:.1f} s when asked to wait {wait:g} s"
            if took < 1.6 * wait:
                return
        assert took < 1.6 * wait, f"came back after {took:.1f} s when asked to wait {wait:g} s"

    def test_a_receive_whose_task_another_agent_gets_goes_on_waiting(
        self, given: Given, another: Callable[[], TaskSource]
    ) -> None:
        """When a task comes and another agent gets it, a `receive` that waits must go on waiting: an agent that is sent away
        asks again at once, and a thousand idle agents would ask for each task. Read: spi.TaskSource.receive."""
        if self.finite:
            not_asked("finite: all tasks are there from the start")
        source = given()
        if source.exhausted:
            not_asked("it has an end, which an empty queue is: `receive` need not wait there")
        other = another()
        wait = 3.0 * self.wait_factor

        def receive(receiver: TaskSource) -> tuple[int, float]:
            began = time.monotonic()
            leases = receiver.receive(1, wait)
            receiver.ack(leases)
            return len(leases), time.monotonic() - began

        def publish() -> tuple[int, float]:
            time.sleep(0.3 * wait)
            self.publish(source, numbered(1))
            return 1, 0.0

        ended = in_threads([lambda: receive(source), lambda: receive(other), publish], 3 * wait + 10 * self.wait_factor)
        waited = [took for size, took in ended if not size]
        assert len(waited) == 1, f"one task came while two agents waited for {wait:g} s, and {len(waited)} got none"
        assert waited[0] > 0.75 * wait, (
            f"a task came, another agent got it, and receive(1, {wait:g}) came back without one after {waited[0]:.1f} s"
        )

    def test_a_receive_that_waits_holds_up_no_other_call(self, source: TaskSource, given: Given) -> None:
        """Other calls must work while `receive` waits in another thread: the agent acks results meanwhile.
        Read: spi, rules for all three."""
        given(*numbered(12))
        leases = self.held(source, 12)
        wait = 3.0 * self.wait_factor

        def call() -> tuple[float, Sequence[Lease]]:
            time.sleep(0.2)
            began = time.monotonic()
            source.ack([leases.pop()])
            source.extend([leases.pop()], 60 * self.wait_factor)
            source.nack([leases.pop()], 60 * self.wait_factor)
            for name, other in self._calls(source, [leases[-1], leases.pop()]).items():
                if name in {"dead_letter", "dead_letters", "stats", "is_pending", "cancel", "redrive"}:
                    other()
            return time.monotonic() - began, ()

        def receive() -> tuple[float, Sequence[Lease]]:
            return 0.0, source.receive(1, wait)

        took = float("inf")
        while leases and took >= 0.75 * wait:  # a busy machine may be late once
            (took, _), _ = in_threads([call, receive], 3 * wait + 10 * self.wait_factor)
            source.ack(source.receive(1, 0.1))  # what was redriven: the next `receive` is to wait
        assert took < 0.75 * wait, (
            f"ack, extend, nack and others took {took:.1f} s while another thread was in receive(1, {wait:g}): they waited for it"
        )

    def test_a_receive_that_waits_is_woken_by_a_return(self, source: TaskSource, given: Given) -> None:
        """A `receive` that waits must return a task soon after its `nack`. Otherwise the task waits while an
        environment is idle. Read: spi.TaskSource.nack."""
        if self.finite or not self.returns(source):
            not_asked("finite, or `nack` is the default")
        given(*numbered(1))
        leases = self.held(source, 1)

        def nack() -> tuple[float, Sequence[Lease]]:
            time.sleep(0.5)
            source.nack(leases)
            return time.monotonic(), ()

        def receive() -> tuple[float, Sequence[Lease]]:
            found = source.receive(1, 15 * self.wait_factor)
            return time.monotonic(), found

        (returned, _), (came, found) = in_threads([nack, receive], 40 * self.wait_factor)
        assert len(found) == 1, "a task was returned while receive waited, and it received none"
        took = came - returned
        assert took < 4 * self.wait_factor, f"a task was returned while receive waited, which saw it {took:.1f} s later"

    def test_all_of_many_tasks_come_once(self, source: TaskSource, given: Given) -> None:
        """Of many tasks, more than one page or batch, each must be handed out once, in batches of `max_batch` at most.
        Read: spi.TaskSource.receive."""
        size = min(max(2 * source.max_batch + 7, 120), 4500)
        given(*numbered(size))
        seen: list[str] = []
        deadline = time.monotonic() + 40 * self.wait_factor
        while len(seen) < size and time.monotonic() < deadline:
            asked = time.monotonic()
            leases = source.receive(size, 1.0)
            assert len(leases) <= source.max_batch, (
                f"max_batch is {source.max_batch}, and receive({size}) leased {len(leases)} tasks"
            )
            if leases:
                self.lent_at(source, asked)
                seen += [lease.task.id for lease in leases]
                source.ack(leases)
                self.in_time()
                again = [lease.attempt for lease in leases if lease.attempt > 1]
                assert not again, f"a task came for the first time, at attempt {again[0]}: who had it before?"
        lost = {task.id for task in self.published} - set(seen)
        assert not lost, f"{len(lost)} of {size} tasks never came, such as {min(lost)}"
        assert len(seen) == size, f"{len(seen) - size} of {size} tasks came twice, though each was acked in time"
        assert not source.receive(1, 0.2), "a task came that was never there"

    def test_it_is_not_exhausted_while_a_task_waits(self, given: Given) -> None:
        """`exhausted` must be false while a task waits. The agent ends when it is true.
        Read: spi.TaskSource.exhausted."""
        source = given(*numbered(2))
        ended = source.exhausted
        assert not ended, "`exhausted` is true while two tasks wait"
        leases = self.take(source, 2)
        if self.returns(source):
            source.nack(leases[:1])
            ended = source.exhausted
            assert not ended, "`exhausted` is true while a task that was returned waits"

    def test_a_delayed_task_is_not_the_end(self, source: TaskSource, given: Given) -> None:
        """`exhausted` must be false while a task waits for its delay to end. Otherwise the run ends without that task.
        Read: spi.TaskSource.exhausted."""
        if not (self.finite or self.ends) or not self.returns(source):
            not_asked("it has no end, or `nack` is the default")
        given(*numbered(2))
        first, second = self.held(source, 2)
        source.receive(1, 0.1)
        source.nack([first], 1.0 * self.wait_factor)
        source.ack([second])
        ended = source.exhausted
        assert not ended, "`exhausted` is true while a task that was returned with a delay waits"
        source.ack(self.take(source, 1))
        eventually(lambda: source.exhausted, 2 * self.wait_factor, "`exhausted` once the delayed task is acked")

    def test_every_call_says_unavailable_once_its_place_went_away(self, source: TaskSource, given: Given) -> None:
        """Every call must raise Unavailable when the queue cannot be reached, after one try. If an error is swallowed, a task
        is lost; if leases are reported as lost, tasks run twice. Read: spi.Unavailable, spi, one attempt."""
        given(*numbered(2))
        leases = self.held(source, 2)
        calls = self._calls(source, leases)
        with self.away(source):
            for name, call in calls.items():
                with self.unavailable(name, source) if name == "receive" else self.one_try(name, source):
                    call()

    def test_every_call_works_in_any_thread(self, source: TaskSource, given: Given) -> None:
        """Every call must work in another thread than the one that called `open`. The agent receives, acks and extends in
        several threads. Read: spi, rules for all three."""
        given(*numbered(2))
        leases = self.held(source, 2)
        calls = self._calls(source, leases)
        for name in ("extend", "ack", "dead_letter", "dead_letters", "stats", "receive", "put", "is_pending"):
            try:
                in_threads([calls.get(name, tuple)], 30 * self.wait_factor)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
                raise AssertionError(f"`{name}` in another thread raised {type(error).__name__}: {error}") from None

    def use(self, plugin: TaskSource) -> None:  # type: ignore[override]
        """Ask whether there is a task."""
        plugin.receive(1, 0)

    def use_wrongly(self, plugin: Plugin) -> None:
        """Put an id that is there already, with another event."""
        if isinstance(plugin, TaskQueue):
            (task,) = numbered(1)
            plugin.put([task])
            try:
                plugin.put([replace(task, payload=b"0")])
            finally:
                plugin.cancel(task_ids=[task.id])

    def calls_through(self, plugin: TaskSource) -> Mapping[str, Callable[[], object]]:
        """Of a source with two leases."""
        if self.finite:
            not_asked("finite: all tasks are there from the start")
        self.publish(plugin, numbered(2))
        calls = self._calls(plugin, self.held(plugin, 2))
        return {"receive": calls["receive"], **calls}

    def _calls(self, source: TaskSource, leases: Sequence[Lease]) -> Mapping[str, Callable[[], object]]:
        calls: dict[str, Callable[[], object]] = {
            "ack": lambda: source.ack(leases[:1]),
            "nack": lambda: source.nack(leases[1:]),
            "nack with a delay": lambda: source.nack(leases[1:], 1.0),
            "extend": lambda: source.extend(leases[1:], 10),
            "dead_letter": lambda: source.dead_letter(leases[1:], "the contract's reason"),
            "dead_letters": lambda: list(source.dead_letters()),
            "stats": source.stats,
            "receive": lambda: source.receive(1, 0.5),
        }
        calls = {
            name: call
            for name, call in calls.items()
            if getattr(type(source), name.split()[0]) is not getattr(TaskSource, name.split()[0])
        }
        if isinstance(source, TaskQueue):
            calls["put"] = lambda: source.put(numbered(1))
            calls["cancel"] = lambda: source.cancel(task_ids=[leases[1].task.id])
            if source.is_pending("s-1") is not None:
                calls["is_pending"] = lambda: source.is_pending("s-1")
        if source.redrives:
            again = replace(leases[1].task, attributes={**leases[1].task.attributes, GENERATION: "1"})
            calls["redrive"] = lambda: source.redrive([again])
        return calls

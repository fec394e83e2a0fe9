"""What every compute plane must do: `spi.Invoker`, rule by rule."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, Outcome, Throttled, Unavailable

from htcgrid_contracts.bound_rules import BoundRules
from htcgrid_contracts.common import eventually, in_threads, not_asked
from htcgrid_contracts.connection_rules import ConnectionRules
from htcgrid_contracts.environment_rules import EnvironmentRules
from htcgrid_contracts.function_rules import FunctionRules
from htcgrid_contracts.invoker_answers import AnswerRules
from htcgrid_contracts.invoker_failures import FailureRules
from htcgrid_contracts.invoker_helpers import lease
from htcgrid_contracts.invoker_identity import IdentityRules
from htcgrid_contracts.meter_rules import MeterRules
from htcgrid_contracts.output_rules import OutputRules
from htcgrid_contracts.queueing_rules import QueueingRules
from htcgrid_contracts.slot_rules import SlotRules
from htcgrid_contracts.task_rules import TaskRules


class InvokerContract(
    AnswerRules,
    MeterRules,
    FailureRules,
    IdentityRules,
    FunctionRules,
    BoundRules,
    OutputRules,
    EnvironmentRules,
    SlotRules,
    QueueingRules,
    TaskRules,
    ConnectionRules,
):
    """Subclass it, and give the fixture `invoker`: the plane, not opened, serving `function`.

    One is opened, and serves all rules but those about opening. Its `capabilities` decide what is
    asked. See `InvokerHelpers` and `PluginContract` for what else may be overridden.
    """

    # --- concurrency ---

    def test_as_many_invocations_run_at_the_same_time_as_are_declared(self, plane: Invoker) -> None:
        """As many invocations as `max_concurrency` says must run at the same time. The agent starts that many threads.
        Read: spi.Invoker.max_concurrency."""
        assert plane.max_concurrency >= 1, f"max_concurrency = {plane.max_concurrency}; it is 1 at least"
        size = min(plane.max_concurrency, self.most_threads)
        if size == 1:
            not_asked(
                "max_concurrency is 1: give the plane 2 environments, by an option or in the fixture, if it can have them"
            )
        self.overlap(plane, size)

    def test_an_environment_runs_one_invocation_at_a_time(self, plane: Invoker) -> None:
        """An environment must run one invocation at a time. Handlers rely on it when they keep data in module globals.
        Read: spi.Invoker.invoke."""
        size = min(plane.max_concurrency, self.most_threads)
        answers = in_threads(
            [lambda: self.answer(self.call(plane, "count", seconds=0.5))] * (2 * size), 60 * self.wait_factor
        )
        for one in answers:
            for other in answers:
                if one is not other and one["environment"] == other["environment"]:
                    apart = one["ended"] <= other["began"] or other["ended"] <= one["began"]
                    assert apart, "two invocations were under way in one environment at the same time"

    def test_each_thread_gets_the_answers_to_its_own_tasks(self, plane: Invoker) -> None:
        """When several threads call at the same time, each must get the answers to its own tasks.
        Read: spi, rules for all three."""
        size = min(plane.max_concurrency, self.most_threads)

        def work(thread: int) -> None:
            for number in range(10):
                answer = self.answer(self.call(plane, "echo", value=[thread, number]))
                assert answer == [thread, number], f"sent {[thread, number]} and got the answer to {answer}"

        in_threads([lambda thread=thread: work(thread) for thread in range(size)], 60 * self.wait_factor)  # type: ignore[misc]

    # --- cancel ---

    @pytest.mark.capability(Capability.CANCEL)
    @pytest.mark.parametrize("do", ["sleep", "spin"])
    def test_cancel_stops_a_running_handler(self, plane: Invoker, do: str) -> None:
        """`cancel` must stop a running handler within 2 s when another thread calls it, and the environment must be
        free again. Read: spi.Invoker.cancel."""
        self.works(plane)
        for _ in range(3):  # a busy machine may be late once
            outcome, took = self.cancelled(plane, lease(do, seconds=30 * self.wait_factor))
            document = self.failed(outcome, FailureKind.CANCELLED)
            assert document["errorType"] == "Htcgrid.Cancelled", (
                f"its errorType is Htcgrid.Cancelled; the document: {document}"
            )
            if took < 2 * self.wait_factor:
                break
        assert took < 2 * self.wait_factor, f"a running handler was stopped {took:.1f} s after cancel; 2 s at most"
        again = lease("echo", value="again")
        again = replace(again, task=replace(again.task, id=outcome.task_id))
        assert self.answer(self.run(plane, [again])[0]) == "again", "a task that was cancelled does not run again"
        self.works(plane)

    @pytest.mark.capability(Capability.CANCEL)
    def test_cancel_stops_the_tasks_it_names_and_no_other(self, plane: Invoker) -> None:
        """`cancel` must stop the tasks that it is given, if they run, and no others: not one that begins later, also while
        the plane is busy. Read: spi.Invoker.cancel."""
        if plane.max_concurrency == 1:
            not_asked("max_concurrency is 1: nothing runs beside the cancelled task")
        self.side_by_side(plane, 2)
        kept = lease("sleep", seconds=1.5 * self.wait_factor, value="kept")
        stopped = lease("sleep", seconds=30 * self.wait_factor)
        again = lease("sleep", seconds=0.2, value="again")  # long enough that a plane which remembers a cancel stops it
        again = replace(again, task=replace(again.task, id=stopped.task.id), attempt=2)

        def run_kept() -> list[Outcome]:
            return self.run(plane, [kept])

        def run_stopped() -> list[Outcome]:
            return [self.cancelled(plane, stopped)[0], *self.run(plane, [again])]

        (first,), (second, third) = in_threads([run_kept, run_stopped], 90 * self.wait_factor)
        assert self.answer(first) == "kept"
        self.failed(second, FailureKind.CANCELLED)
        assert third.failure is None, (
            f"a task was cancelled, began again while another ran, and was reported as {third.failure}"
        )

    @pytest.mark.capability(Capability.CANCEL)
    def test_a_task_that_runs_twice_is_cancelled_twice(self, plane: Invoker) -> None:
        """When a task runs twice at a time, since its lease was lost and it was handed out again, `cancel` must stop both. An id
        of a task is not one of a call. Read: spi.Invoker.cancel."""
        if plane.max_concurrency == 1:
            not_asked("max_concurrency is 1: nothing runs at the same time")
        self.side_by_side(plane, 2)
        asked = lease("sleep", seconds=30 * self.wait_factor)
        calls: list[Callable[[], Outcome]] = [
            lambda number=number: self.run(plane, [replace(asked, attempt=number)], 8 * self.wait_factor)[0]  # type: ignore[misc]
            for number in (1, 2)
        ]
        ended = threading.Event()

        def stop() -> None:
            while not ended.wait(1.0 * self.wait_factor):  # again, since on a busy machine they may not have begun
                plane.cancel([asked.task.id])

        stopper = threading.Thread(target=stop, daemon=True)
        stopper.start()
        try:
            outcomes = in_threads(calls, 90 * self.wait_factor)
        finally:
            ended.set()
            stopper.join()
        for outcome in outcomes:
            self.failed(outcome, FailureKind.CANCELLED)

    def test_cancel_passes_over_tasks_that_are_not_here(self, plane: Invoker) -> None:
        """`cancel` must ignore a task that is not on this plane: it may have ended, or run on another machine. It must not
        stop what runs in the environment that the task had. Read: spi.Invoker.cancel."""
        plane.cancel([])
        done = lease("sleep", seconds=0.2)  # long enough that a plane which remembers a cancel stops it
        for _ in range(2):  # a redrive runs it again
            plane.cancel(["contract-not-here", done.task.id])
            outcome = self.run(plane, [done])[0]
            assert outcome.failure is None, (
                f"a task was cancelled while it was not on this plane; when it ran later, it was reported as {outcome.failure}"
            )
        size = min(plane.max_concurrency, self.most_threads)
        ended = [lease("count", seconds=0.2) for _ in range(size)]
        in_threads([lambda each=each: self.run(plane, [each]) for each in ended], 60 * self.wait_factor)  # type: ignore[misc]

        def cancel() -> None:
            time.sleep(0.3)
            plane.cancel(frozenset(each.task.id for each in ended))  # any collection

        running: list[Callable[[], object]] = [
            lambda: self.answer(self.call(plane, "sleep", seconds=0.5 + 0.3 * self.wait_factor))
        ] * size
        in_threads([*running, cancel], 60 * self.wait_factor)
        self.works(plane)

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_an_answer_that_comes_late_is_dropped(self, plane: Invoker) -> None:
        """An answer that comes after its task was stopped must be dropped. It must not become the answer of another
        task. Read: spi.Invoker.invoke."""
        # The longer where this machine was so busy that it saw too late that the time was up.
        for late_by in (0.7 * self.wait_factor, 1.5 * self.wait_factor):
            late = lease("sleep", seconds=self.short_timeout + late_by, value="late")
            outcome = self.run(plane, [late], self.short_timeout)[0]
            if outcome.failure is not None:
                break
        self.failed(outcome, FailureKind.TIMEOUT)
        deadline = time.monotonic() + late_by + 0.5
        while time.monotonic() < deadline:
            answer = self.answer(self.call(plane, "echo", value="mine"))
            assert answer == "mine", f"the answer of a task that had timed out was returned for another: {answer!r}"
            time.sleep(0.01)

    # --- the plane as a whole ---

    def test_a_plane_that_is_open_twice_serves_twice(self, plane: Invoker) -> None:
        """Two open planes with the same config must both work: two agents on one machine do not know of each other. Where one
        has all places of a service, what the other sends waits or is refused: it does not fail, and a refusal takes no slot.
        Read: spi.Plugin, spi.Throttled."""
        with self.again(plane) as other:
            outcomes = [self.call(each, "count") for each in (plane, other)]
            self._keeps_apart(plane, other)
            self._waits_or_is_refused_beside(plane, other)
            kept = partial(self.call, plane, "sleep", seconds=0.5, value="kept")
            close = threading.Timer(0.2, other.close)
            close.start()
            assert self.answer(kept()) == "kept"  # while the other is closed
            close.join()
        inside, outside = (
            {self.answer(each)["environment"] for each in outcomes},
            {each.environment for each in outcomes},
        )
        assert len(inside) == len(outside) or Capability.METERING not in plane.capabilities, (
            f"two planes have {len(inside)} environments, and their outcomes name {len(outside)}: {sorted(outside)}"
        )
        self.works(plane)

    def test_a_plane_that_went_away_is_unavailable(self, invoker: Invoker) -> None:
        """When the plane cannot be reached, `invoke` must raise Unavailable. The agent then waits and tries again,
        without counting an attempt: `begun` names only what may have been sent. Read: spi.Unavailable."""
        with self.again(invoker) as plane:
            self.works(plane)
            with self.away(plane):
                with self.one_try("invoke", plane):
                    list(plane.invoke([lease("echo", value=1)], plane.function.timeout))
                what = (
                    "a call whose Unavailable names no task in `begun`, since nothing was sent: a service that was silent is first "
                    "asked something else, or a long outage would use up the attempts of its tasks"
                )
                eventually(lambda: not self._begun(plane), (5 + self.away_seconds) * self.wait_factor, what)
                plane.close()  # also while it is away
                self.opens_or_says_why(plane)

    def test_a_plane_that_went_away_names_what_it_had_begun(self, invoker: Invoker) -> None:
        """Unavailable must name the tasks that had begun. Their attempt counts, since they may have run.
        Read: spi.Unavailable."""
        self.needs("take_away")
        with self.again(invoker) as plane:
            self.works(plane)
            asked = lease("sleep", seconds=4 * self.wait_factor)
            gone = threading.Timer(1.5 * self.wait_factor, self.take_away, [plane])
            gone.start()
            try:
                reports = list(plane.invoke([asked], plane.function.timeout))
            except Unavailable as error:
                assert asked.task.id in error.begun, (
                    f"the plane went away while {asked.task.id} ran, and Unavailable.begun names {sorted(error.begun)}"
                )
            else:
                assert isinstance(reports[0], Outcome), (
                    "a task that was running is reported as Unstarted: it may have run"
                )
            finally:
                gone.join()
                self.restore(plane)

    def test_a_plane_that_came_back_serves_again(self, invoker: Invoker) -> None:
        """When the plane can be reached again, `invoke` must work again: an outage must not end a run.
        Read: spi.Unavailable."""
        self.needs("bring_back")
        with self.again(invoker) as plane:
            self.works(plane)
            before = plane.max_concurrency
            size = min(before, 4)
            with self.away(plane):
                for _ in range(size):  # each error may take a slot
                    with self.unavailable("invoke", plane):
                        list(plane.invoke([lease("echo", value=1)], plane.function.timeout))
            in_threads([lambda: self.comes_back(lambda: self.works(plane), 60, "plane")], 90 * self.wait_factor)

            def has_all() -> bool:
                self.comes_back(lambda: self.works(plane), 60, "plane")
                return plane.max_concurrency >= before

            eventually(has_all, 30 * self.wait_factor, f"max_concurrency = {before} again, once the plane came back")
            self.all_slots_run(plane, "it was away")

    # --- helpers ---

    def _keeps_apart(self, plane: Invoker, other: Invoker) -> None:
        """Checks that two agents may run tasks of the same id: queues often number their tasks from 1."""
        mine, others = (lease("sleep", seconds=0.3, value=value) for value in ("mine", "another's"))
        others = replace(others, task=replace(others.task, id=mine.task.id))
        outcomes = in_threads(
            [lambda: self.run(plane, [mine])[0], lambda: self.run(other, [others])[0]], 60 * self.wait_factor
        )
        answers = [self.answer(outcome) for outcome in outcomes]
        assert answers == ["mine", "another's"], (
            f"two open planes ran tasks of the same id at the same time, and have the answers {answers}"
        )

    def _waits_or_is_refused_beside(self, plane: Invoker, other: Invoker) -> None:
        """Checks what an agent is told while handlers of another one have all places of their service, if it has few."""
        size = min(plane.max_concurrency, self.most_threads)
        has_ended = threading.Event()

        def ask() -> None:
            while not has_ended.wait(0.2 * self.wait_factor):  # the first may come before all places are taken
                ask_once()

        def ask_once() -> None:
            try:
                (report,) = other.invoke([lease("echo", value=1)], other.function.timeout)
            except Throttled as error:
                assert not error.begun, (
                    f"a call that was refused has not begun, and `begun` names {sorted(error.begun)}"
                )
            except Unavailable:
                return
            else:
                assert not isinstance(report, Outcome) or report.failure is None, (
                    f"handlers of another agent had all places, and a task that waited for one is reported as {report.failure}: "
                    f"raise Throttled"
                )

        def keep_busy() -> None:
            try:
                self.call(plane, "sleep", seconds=2 + 0.5 * self.wait_factor)
            finally:
                has_ended.set()

        in_threads([*[keep_busy] * size, *[ask] * size], 60 * self.wait_factor)
        self.all_slots_run(other, "another agent had all places of its service")

    def _begun(self, plane: Invoker) -> Collection[str]:
        """The tasks of a call that `Unavailable` names as begun."""
        try:
            list(plane.invoke([lease("echo", value=1)], plane.function.timeout))
        except Unavailable as error:
            return error.begun
        return ()

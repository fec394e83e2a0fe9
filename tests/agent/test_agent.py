from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import pytest

from htcgrid.agent.init_errors import FunctionBroken
from htcgrid.agent.options import AgentOptions
from htcgrid.builtin.memory import MemorySource
from htcgrid.spi import FailureKind, Lease, Outcome, Rejected, Result, Task, Unavailable

if TYPE_CHECKING:
    from conftest import Rig

    Make = Callable[..., Rig]
    Until = Callable[[Callable[[], object]], None]


def rules(**options: object) -> AgentOptions:
    return AgentOptions.model_validate({"linger": 0.001, **options})


def holds_one(job: Rig) -> None:
    """Whatever its policy says of tasks that hang, the agent holds one that waits."""
    prefetch = job.agent._leases.prefetch
    prefetch.size = lambda: 1  # type: ignore[method-assign]
    prefetch.most = lambda: None  # type: ignore[method-assign]


def cancels_after_two_errors(job: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plane is unavailable to its first two cancels."""
    cancel, tries = job.plane.cancel, itertools.count()

    def away(task_ids: Collection[str]) -> None:
        if next(tries) < 2:
            raise Unavailable("the plane is away")
        cancel(task_ids)

    monkeypatch.setattr(job.plane, "cancel", away)


# --- the common case ---------------------------------------------------------------------------------


def test_every_answer_is_stored_and_every_task_acked_after_it(rig: Make) -> None:
    job = rig(tasks=200, batch=16)
    summary = job.run()
    assert {task_id: result.outcome.payload for task_id, result in job.sink.results.items()} == {
        task_id: b'"%s"' % task_id.encode() for task_id in job.plans
    }
    assert sorted(job.diary.acked) == sorted(job.plans)
    assert job.diary.acked_early == []
    assert (summary.succeeded, summary.failed, summary.retried, summary.returned) == (200, 0, 0, 0)


def test_a_source_without_tasks_ends_the_run_at_once(rig: Make) -> None:
    assert rig(tasks=0).run().finished == 0


def test_what_has_a_result_already_is_acked_without_running(rig: Make) -> None:
    job = rig(tasks=5)
    earlier = [Result(Task(task_id, b"1"), job.plane._outcome(Lease(Task(task_id, b"1")), "ok")) for task_id in "13"]
    job.sink.put(earlier)
    summary = job.run()
    assert set(job.diary.invoked) == {"0", "2", "4"}
    assert (summary.already_stored, summary.succeeded) == (2, 3)
    assert sorted(job.diary.acked) == sorted("01234")


def test_a_lease_that_is_no_task_is_stored_as_failed_and_never_runs(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rig(tasks=3)
    receive = job.source.receive

    def spoilt(max_tasks: int, wait: float) -> Sequence[Lease]:
        return [
            Lease(lease.task, lease.attempt, lease.receipt, "line 1: not JSON" if lease.task.id == "1" else "")
            for lease in receive(max_tasks, wait)
        ]

    monkeypatch.setattr(job.source, "receive", spoilt)
    summary = job.run()
    assert job.failures() == {"0": None, "1": FailureKind.INVALID_EVENT, "2": None}
    assert b"line 1: not JSON" in job.sink.results["1"].outcome.payload
    assert "1" not in job.diary.invoked
    assert summary.failures == {"invalid_event": 1}


# --- retries -----------------------------------------------------------------------------------------


def test_a_process_that_ends_again_and_again_is_tried_three_times_and_set_aside_with_the_reason(rig: Make) -> None:
    job = rig(plans={"a": ["exit"] * 9, "b": []}, dead_letters=True)
    summary = job.run()
    assert job.diary.invoked["a"] == [1, 2, 3]
    assert re.match(r"exit at attempt 3: ", job.diary.dead["a"])
    assert job.failures() == {"a": FailureKind.EXIT, "b": None}
    assert job.diary.acked == ["b"]
    assert (summary.retried, summary.failures) == (2, {"exit": 1})


def test_a_hopeless_task_of_a_source_that_sets_none_aside_is_acked(rig: Make) -> None:
    job = rig(plans={"a": ["out_of_memory"] * 9})
    job.run()
    assert job.diary.invoked["a"] == [1, 2]
    assert job.diary.acked == ["a"]


def test_a_retry_that_answers_is_a_success_of_that_attempt(rig: Make) -> None:
    job = rig(plans={"a": ["exit", "exit", "ok"]})
    summary = job.run()
    assert job.sink.results["a"].attempt == 3
    assert job.failures() == {"a": None}
    assert summary.failed == 0


def test_attempts_are_set_by_kind(rig: Make) -> None:
    attempts = {FailureKind.HANDLER_ERROR: 2, FailureKind.EXIT: 1}
    job = rig(plans={"a": ["handler_error", "handler_error"], "b": ["exit"]}, rules=rules(attempts=attempts))
    job.run()
    assert dict(job.diary.invoked) == {"a": [1, 2], "b": [1]}


def test_a_retry_that_is_slow_to_reach_the_source_is_waited_for(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rig(plans={"a": ["exit", "ok"]})
    nack = job.source.nack

    def slow(leases: Sequence[Lease], delay: float = 0.0) -> None:
        time.sleep(0.1)
        nack(leases, delay)

    monkeypatch.setattr(job.source, "nack", slow)
    job.run()
    assert job.failures() == {"a": None}


# --- what is away for a while ------------------------------------------------------------------------


def test_a_plane_that_is_away_for_a_while_costs_no_attempt(rig: Make) -> None:
    job = rig(plans={"a": ["unavailable"] * 5})
    job.run()
    assert job.diary.invoked["a"] == [1]
    assert any("the plane is away" in message and "Trying again" in message for message in job.said)


def test_a_task_that_may_have_run_when_the_plane_went_away_counts_an_attempt(rig: Make) -> None:
    job = rig(plans={"a": ["begun", "ok"]})
    job.run()
    assert job.diary.invoked["a"] == [1, 2]


def test_a_task_under_which_the_plane_is_lost_each_time_fails_in_the_end_and_the_others_run(rig: Make) -> None:
    job = rig(plans={"a": ["begun"] * 1000, "b": []})
    job.run()
    assert job.diary.invoked["a"] == list(range(1, 11))
    assert job.sink.results["a"].outcome.failure is FailureKind.EXIT
    assert b"The plane was lost 10 times while this task ran" in job.sink.results["a"].outcome.payload
    assert job.sink.results["b"].outcome.failure is None


def test_tasks_behind_one_that_made_the_plane_unavailable_run_all_the_same(rig: Make) -> None:
    job = rig(plans={"a": [], "b": ["unavailable", "begun"], "c": [], "d": []}, slots=1, batch=4)
    job.run()
    assert set(job.sink.results) == set("abcd")


def test_a_plane_that_stays_away_ends_the_run_and_nothing_is_stored_or_kept(rig: Make) -> None:
    job = rig(plans={str(number): ["unavailable"] * 10_000 for number in range(6)}, rules=rules(unavailable_limit=0.1))
    with pytest.raises(Unavailable, match="the plane is away"):
        job.run()
    assert job.sink.results == {}
    assert job.waiting() == set(job.plans)


def test_a_source_that_stays_away_ends_the_run(rig: Make) -> None:
    job = rig(tasks=3, source_faults=["unavailable"] * 10_000, rules=rules(unavailable_limit=0.1))
    with pytest.raises(Unavailable, match="the queue is away"):
        job.run()


def test_a_sink_that_stays_away_ends_the_run_and_nothing_is_acked(rig: Make) -> None:
    job = rig(tasks=20, sink_faults=["unavailable"] * 10_000, rules=rules(unavailable_limit=0.1))
    with pytest.raises(Unavailable, match="the store is away"):
        job.run()
    assert job.diary.acked == []


def test_a_sink_that_cannot_say_for_a_moment_what_it_holds_is_asked_again(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(tasks=3)
    stored, away = job.sink.stored, [True, True]

    def flaky(tasks: Sequence[Task]) -> object:
        if away:
            away.pop()
            raise Unavailable("the store is away")
        return stored(tasks)

    monkeypatch.setattr(job.sink, "stored", flaky)
    assert job.run().succeeded == 3


# --- what will never be ------------------------------------------------------------------------------


def test_an_answer_that_the_sink_can_never_hold_is_stored_and_counted_as_a_failure(rig: Make) -> None:
    job = rig(tasks=10, refused={"3", "4"})
    summary = job.run()
    assert {task_id for task_id, kind in job.failures().items() if kind} == {"3", "4"}
    assert b"too large for this store" in job.sink.results["3"].outcome.payload
    assert (summary.succeeded, summary.failures) == (8, {"payload_too_large": 2})


def test_a_sink_that_refuses_everything_ends_the_run_and_nothing_is_acked(rig: Make) -> None:
    job = rig(tasks=20, sink_faults=["rejected"] * 100)
    with pytest.raises(Rejected, match="this store is not for you"):
        job.run()
    assert job.diary.acked == []


def test_a_plane_that_refuses_the_tasks_ends_the_run_and_gives_them_back(rig: Make) -> None:
    job = rig(plans={str(number): ["rejected"] for number in range(6)})
    with pytest.raises(Rejected, match="this plane is not for you"):
        job.run()
    assert job.sink.results == {}
    assert job.waiting() == set(job.plans)


def test_a_bug_of_the_plane_ends_the_run_as_itself_and_what_ran_is_returned(rig: Make) -> None:
    job = rig(plans={"a": ["broken"], "b": ["broken"]})
    with pytest.raises(ZeroDivisionError, match="a bug of the plane"):
        job.run()
    assert job.waiting() == {"a", "b"}


def test_a_sink_of_another_job_ends_the_run_and_what_was_received_is_returned(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(tasks=6)

    def refuse(_tasks: Sequence[Task]) -> object:
        raise Rejected("results of another job")

    monkeypatch.setattr(job.sink, "stored", refuse)
    with pytest.raises(Rejected, match="results of another job"):
        job.run()
    assert job.waiting() == set(job.plans)
    assert job.diary.invoked == {}


def test_a_plane_that_says_nothing_of_a_task_is_named_as_the_culprit(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(tasks=1)
    monkeypatch.setattr(job.plane, "invoke", lambda _batch, _timeout: iter(()))
    with pytest.raises(
        RuntimeError, match=r"Plane\.invoke ended without an outcome for 0\. This is a bug in the plugin"
    ):
        job.run()


# --- functions that do not load ----------------------------------------------------------------------


def test_a_function_that_cannot_be_loaded_stops_the_run_with_nothing_stored_and_all_returned(rig: Make) -> None:
    job = rig(plans={str(number): ["init_error"] * 50 for number in range(20)})
    with pytest.raises(FunctionBroken, match=r"cannot be initialised, so no task was run: \{.errorType"):
        job.run()
    assert job.sink.results == {}
    assert job.diary.acked == []
    assert job.waiting() == set(job.plans)


def test_fewer_tasks_than_the_limit_are_enough_to_find_a_function_broken(rig: Make) -> None:
    job = rig(plans={"a": ["init_error"]}, rules=rules(init_errors_limit=3))
    with pytest.raises(FunctionBroken):
        job.run()
    assert job.sink.results == {}
    assert job.waiting() == {"a"}


def test_an_initialisation_error_among_answers_is_that_tasks_failure(rig: Make) -> None:
    job = rig(plans={"a": ["init_error"], "b": [], "c": []}, slots=1)
    summary = job.run()
    assert job.failures() == {"a": FailureKind.INIT_ERROR, "b": None, "c": None}
    assert summary.failures == {"init_error": 1}


def test_an_initialisation_error_after_all_answers_is_that_tasks_failure_too(rig: Make) -> None:
    job = rig(plans={"a": [], "b": [], "c": ["init_error"]}, slots=1)
    job.run()
    assert job.failures() == {"a": None, "b": None, "c": FailureKind.INIT_ERROR}


def test_a_function_that_stops_loading_in_mid_run_stops_the_run(rig: Make) -> None:
    plans = {"a": [], **{str(number): ["init_error"] * 9 for number in range(20)}}
    job = rig(plans=plans, slots=1, rules=rules(init_errors_limit=3))
    with pytest.raises(FunctionBroken):
        job.run()
    assert job.failures() == {"a": None}
    assert job.waiting() == set(plans) - {"a"}


# --- leases ------------------------------------------------------------------------------------------


@pytest.mark.timing
def test_a_task_that_outlasts_its_lease_many_times_runs_once(rig: Make) -> None:
    job = rig(plans={"a": ["slow"], "b": ["slow"], "c": ["slow"], "d": ["slow"]}, slots=1, lease_seconds=0.03)
    job.run()
    assert {task_id: attempts for task_id, attempts in job.diary.invoked.items() if attempts != [1]} == {}


def test_leases_of_tasks_in_stock_are_kept_alive(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["hang"], "b": [], "c": []}, slots=1, lease_seconds=0.3)
    holds_one(job)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    until(lambda: job.source.stats(brief=True).states.leased == 2)  # one runs, one is in stock
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.7)  # more than two leases
    job.plane.free.set()
    job.finish()
    assert dict(job.diary.invoked) == {"a": [1], "b": [1], "c": [1]}


@pytest.mark.usefixtures("often_extended")
def test_a_running_task_that_is_cancelled_is_stopped_and_nothing_is_stored_of_it(rig: Make) -> None:
    job = rig(plans={"a": ["hang"], "b": []})
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.source.cancel(task_ids=["a"])
    job.finish()
    assert set(job.sink.results) == {"b"}
    assert "a" not in job.diary.acked


@pytest.mark.usefixtures("often_extended")
def test_a_task_is_cancelled_again_where_the_plane_was_unavailable(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rig(plans={"a": ["hang"], "b": []})
    cancels_after_two_errors(job, monkeypatch)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.source.cancel(task_ids=["a"])
    job.finish()
    assert set(job.sink.results) == {"b"}
    assert "a" not in job.diary.acked


@pytest.mark.usefixtures("often_extended")
def test_a_task_that_is_cancelled_in_stock_never_runs(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["hang"], "b": [], "c": []}, slots=1)
    holds_one(job)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    until(lambda: job.source.stats(brief=True).states.leased == 2)
    job.source.cancel(task_ids=["b"])
    until(lambda: "b" not in {lease.task.id for lease in job.agent._leases.held()})
    job.plane.free.set()
    job.finish()
    assert set(job.sink.results) == {"a", "c"}
    assert "b" not in job.diary.invoked


def test_a_task_whose_lease_was_lost_to_another_is_not_stored_here(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["hang"]}, slots=1, lease_seconds=0.2)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    with job.source._changed:  # another receiver has it, for long
        job.source._until["a"] = 0.0
        [theirs] = job.source._next_leases(1)
        job.source._until["a"] = time.monotonic() + 60
    job.finish()
    assert job.sink.results == {}
    MemorySource.ack(job.source, [theirs])
    assert job.source.stats(brief=True).states.leased == 0


def test_a_cancel_that_comes_late_makes_no_failure_of_the_next_run(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rig(plans={"a": ["until lost", "hang", "ok"]}, slots=1, lease_seconds=0.6)
    outcome, cancel, lost = job.plane._outcome, job.plane.cancel, threading.Event()
    theirs: list[Lease] = []

    def waiting(lease: Lease, step: str) -> Outcome:
        if step == "until lost":
            job.plane.hanging.release()
            lost.wait(10)
        return outcome(lease, step)

    def late(task_ids: Collection[str]) -> None:
        if not lost.is_set():
            MemorySource.nack(job.source, theirs)
            lost.set()
            job.plane.hanging.acquire(timeout=10)  # it was lent again and runs again
        cancel(task_ids)

    monkeypatch.setattr(job.plane, "_outcome", waiting)
    monkeypatch.setattr(job.plane, "cancel", late)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    with job.source._changed:  # another receiver has it for a while
        job.source._until["a"] = 0.0
        theirs += job.source._next_leases(1)
    job.finish()
    assert job.failures() == {"a": None}


def test_a_duplicate_delivery_runs_once_and_its_newest_lease_is_acked(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["hang"]}, slots=1, lease_seconds=30)
    holds_one(job)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    with job.source._changed:
        job.source._until["a"] = 0.0  # the queue hands it out again, and this agent receives it
        job.source._changed.notify_all()
    until(lambda: [lease.attempt for lease in job.agent._leases.held()] == [2])
    job.plane.free.set()
    job.finish()
    assert len(job.diary.invoked["a"]) == 1
    assert job.source.stats(brief=True).states.waiting == job.source.stats(brief=True).states.leased == 0


# --- drain -------------------------------------------------------------------------------------------


def test_a_drain_gives_back_what_has_not_begun_and_finishes_what_has(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["hang"], "b": [], "c": []}, slots=1)
    holds_one(job)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    until(lambda: job.source.stats(brief=True).states.leased == 2)
    job.agent.drain()
    until(lambda: "b" in job.diary.returned)
    job.plane.free.set()
    summary = job.finish()
    assert job.failures() == {"a": None}
    assert job.waiting() == {"b", "c"}
    assert (summary.succeeded, summary.returned) == (1, 1)


def test_a_drain_begins_no_task_any_more(rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("htcgrid.agent.receiver._WAIT_SECONDS", 0.5)
    job = rig(plans={"a": ["hang"], **{str(number): ["slow"] for number in range(50)}}, slots=1)
    holds_one(job)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    until(lambda: job.source.stats(brief=True).states.leased == 2)
    job.agent.drain()
    job.plane.free.set()
    job.finish()
    assert set(job.diary.invoked) == {"a"}


def test_past_the_grace_what_runs_is_stopped_and_returned(rig: Make) -> None:
    job = rig(plans={"a": ["hang"], "b": ["hang"]}, rules=rules(grace=0.1))
    job.start()
    for _ in "ab":
        job.plane.hanging.acquire(timeout=10)
    job.agent.drain()
    summary = job.finish()
    assert job.sink.results == {}
    assert job.waiting() == {"a", "b"}
    assert summary.returned == 2


def test_past_the_grace_what_runs_is_stopped_though_the_plane_is_unavailable_at_first(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(plans={"a": ["hang"]}, slots=1, rules=rules(grace=0.1))
    cancels_after_two_errors(job, monkeypatch)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.agent.drain()
    assert job.finish().returned == 1


@pytest.mark.timing
def test_many_that_run_past_the_grace_are_stopped_as_soon_as_one(rig: Make) -> None:
    job = rig(plans={str(number): ["hang"] for number in range(100)}, slots=100)
    job.start()
    for _ in job.plans:
        job.plane.hanging.acquire(timeout=10)
    began = time.monotonic()
    job.agent.drain(0)
    job.finish()
    assert time.monotonic() - began < 5
    assert job.waiting() == set(job.plans)


def test_a_second_drain_without_grace_stops_at_once(rig: Make) -> None:
    job = rig(plans={"a": ["hang"]}, slots=1, rules=rules(grace=1000))
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.agent.drain()
    job.agent.drain(0)
    job.finish()
    assert job.waiting() == {"a"}


def test_a_drain_does_not_wait_for_a_plane_that_is_away(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["unavailable"] * 100_000}, rules=rules(unavailable_limit=1000))
    job.start()
    until(lambda: job.said)
    job.agent.drain()
    summary = job.finish()
    assert summary.finished == 0
    assert job.waiting() == {"a"}


def test_a_failure_task_that_the_plane_never_began_is_returned_in_a_drain(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["hang"], "b": ["unstarted"] * 100_000}, slots=2)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.agent.drain()
    job.plane.free.set()
    job.finish()
    assert job.waiting() == {"b"}


def test_results_that_wait_are_stored_in_a_drain(rig: Make, until: Until) -> None:
    job = rig(plans={"a": [], "b": ["hang"]}, slots=2, rules=rules(linger=60))
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.agent.drain()
    job.plane.free.set()
    job.finish()
    assert "b" in job.sink.results
    assert job.diary.acked_early == []


# --- manners -----------------------------------------------------------------------------------------


def test_waiting_for_the_last_task_burns_no_processor(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that has nothing more answers at once; asking it without end would take a core from the handlers."""
    job = rig(plans={"a": ["hang"]}, slots=1)
    receive, calls = job.source.receive, []

    def at_once(max_tasks: int, wait: float) -> Sequence[Lease]:
        calls.append(threading.current_thread().name)
        return receive(max_tasks, 0)

    monkeypatch.setattr(job.source, "receive", at_once)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    calls.clear()
    time.sleep(0.3)
    asked = len(calls)
    job.plane.free.set()
    job.finish()
    assert asked < 300

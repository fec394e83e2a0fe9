"""What is bounded: waits, by the grace time; trouble with one task, by a count; a function that does not load, by time."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from htcgrid.agent import backoff, policy, slot
from htcgrid.agent.agent import Stuck
from htcgrid.agent.backoff import BackOff
from htcgrid.agent.init_errors import FunctionBroken
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.shutdown import Shutdown
from htcgrid.builtin.memory import MemorySource
from htcgrid.spi import FailureKind, Lease, Outcome, Rejected, Result, Task, Throttled, Unavailable, Unstarted

if TYPE_CHECKING:
    from conftest import Rig

    Make = Callable[..., Rig]
    Until = Callable[[Callable[[], object]], None]


def rules(**options: object) -> AgentOptions:
    return AgentOptions.model_validate({"linger": 0.001, **options})


def without_end(job: Rig) -> Rig:
    job.source.config = MemorySource.Config(endless=True, lease_seconds=20)
    return job


class Clock:
    """The clock of slots and of their back-off: the true one, `ahead` by as many seconds as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        told = SimpleNamespace(monotonic=self.monotonic, time=time.time, sleep=time.sleep)
        for module in (backoff, slot):
            monkeypatch.setattr(module, "time", told)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


# --- functions that do not load ----------------------------------------------------------------------


def test_a_function_that_cannot_be_loaded_ends_the_run_of_a_source_without_end_with_one_task(rig: Make) -> None:
    job = without_end(rig(plans={"a": ["init_error"]}, rules=rules(init_errors_quiet=0.05)))
    with pytest.raises(FunctionBroken):
        job.run()
    assert job.sink.results == {}
    assert job.waiting() == {"a"}


def test_no_verdict_on_the_function_while_a_task_still_runs(rig: Make, until: Until) -> None:
    job = without_end(rig(plans={"a": ["init_error"], "b": ["hang"]}, rules=rules(init_errors_quiet=0.02)))
    job.start()
    job.plane.hanging.acquire(timeout=10)
    until(lambda: job.agent._leases.not_loaded == 1)
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 0.2)
    job.plane.free.set()
    until(lambda: len(job.sink.results) == 2)
    job.agent.drain()
    job.finish()
    assert job.failures() == {"a": FailureKind.INIT_ERROR, "b": None}


def test_an_initialisation_error_after_answers_is_stored_though_the_source_has_no_end(rig: Make, until: Until) -> None:
    job = without_end(rig(plans={"a": [], "b": ["init_error"]}, slots=1, rules=rules(init_errors_quiet=0.02)))
    job.start()
    until(lambda: "b" in job.sink.results)
    job.agent.drain()
    job.finish()
    assert job.failures() == {"a": None, "b": FailureKind.INIT_ERROR}


def test_what_could_not_be_loaded_and_was_lost_meanwhile_runs_again_before_the_run_ends(
    rig: Make, until: Until
) -> None:
    job = without_end(rig(plans={"a": [], "b": ["init_error"]}, slots=1, rules=rules(init_errors_quiet=60.0)))
    job.start()
    leases = job.agent._leases
    until(lambda: leases.not_loaded == 1 and leases.under_way == 0)
    [held] = leases.held()
    leases.lose([held])
    job.source.nack([held])  # its time has run out
    until(lambda: leases.held()[0].attempt == 2)
    job.source.config = MemorySource.Config(lease_seconds=20)  # it ends
    job.finish()
    assert job.failures() == {"a": None, "b": None}


def test_a_plane_that_nobody_asks_for_a_long_time_between_two_refusals_is_not_held_unavailable(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    plans = {"a": ["unavailable"], "b": ["unavailable"]}
    job = without_end(rig(plans=plans, slots=1, rules=rules(unavailable_limit=60.0)))
    job.source.cancel(task_ids=["b"])
    leases = job.agent._leases
    # The task is cancelled meanwhile, so that it is not tried again.
    with monkeypatch.context() as patch:
        patch.setattr(leases, "put_back", lambda lease: leases.release([lease]))
        job.start()
        until(lambda: job.said and leases.idle_slots)
    clock.ahead += 3600
    job.source.put([Task("b", b'"b"')])
    until(lambda: "b" in job.sink.results)
    clock.ahead = 0.0
    job.agent.drain()
    job.finish()


def test_a_plane_that_answers_others_is_not_held_unavailable_by_one_that_it_refuses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    back_off = BackOff(Shutdown(), 60.0, lambda _message: None)
    for _ in range(10):
        clock.ahead += 30
        back_off.has_answered_others(clock.monotonic())
        back_off.delay(Unavailable("busy"))
    clock.ahead += 61
    with pytest.raises(Unavailable, match="busy"):
        back_off.delay(Unavailable("busy"))


def test_a_plane_that_runs_long_tasks_of_others_is_not_given_up_for_one_slot_that_it_refuses(
    rig: Make, until: Until
) -> None:
    plans = {"a": ["hang"], "b": ["unavailable"] * 60}
    job = without_end(rig(plans=plans, slots=2, rules=rules(unavailable_limit=0.02)))
    job.source.cancel(task_ids=["b"])
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.source.put([Task("b", b'"b"')])
    until(lambda: "b" in job.sink.results)
    job.plane.free.set()
    job.agent.drain()
    job.finish()
    assert job.failures() == {"a": None, "b": None}


def test_a_slot_that_is_throttled_for_a_minute_asks_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(backoff, "back_off", policy.back_off)  # not the faster one of these tests
    monkeypatch.setattr(backoff, "time", SimpleNamespace(monotonic=lambda: now, time=lambda: now))
    back_off = BackOff(Shutdown(), 3600, lambda _message: None)
    waits = []
    while now < 1060:
        waits.append(back_off.delay(Throttled("too many"), back_off.longest_of_throttle()))
        now += waits[-1]
    assert len(waits) < 25
    assert max(waits[:5]) <= 1.0
    assert max(waits) <= 15.0


@pytest.mark.usefixtures("often_extended")
def test_a_task_that_somebody_cancels_says_nothing_about_the_function(rig: Make, until: Until) -> None:
    job = rig(plans={"a": ["init_error"], "b": ["hang"]})
    job.start()
    job.plane.hanging.acquire(timeout=10)
    until(lambda: job.agent._leases.not_loaded == 1)
    job.source.cancel(task_ids=["b"])
    with pytest.raises(FunctionBroken):
        job.finish()
    assert job.sink.results == {}


# --- the end of a run --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FailureKind.EXIT, FailureKind.INIT_ERROR])
def test_an_environment_that_ends_while_the_agent_drains_is_no_attempt(
    rig: Make, monkeypatch: pytest.MonkeyPatch, kind: FailureKind
) -> None:
    job = rig(plans={"a": ["hang"]}, slots=1, rules=rules(attempts={FailureKind.EXIT: 1}))
    outcome = job.plane._outcome

    def ended(lease: Lease, step: str) -> Outcome:
        return Outcome(outcome(lease, step).task_id, b"{}", kind)

    monkeypatch.setattr(job.plane, "_outcome", ended)
    job.start()
    job.plane.hanging.acquire(timeout=10)
    job.agent.drain()
    job.plane.free.set()
    job.finish()
    assert job.sink.results == {}
    assert job.waiting() == {"a"}


def test_an_environment_that_a_signal_to_all_ends_before_the_agent_heeds_its_own_is_no_attempt_either(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.agent.outcomes._SIGNAL_SECONDS", 10.0)
    job = rig(plans={"a": ["exit"]}, slots=1, rules=rules(attempts={FailureKind.EXIT: 1}))
    job.start()
    until(lambda: job.diary.invoked["a"])
    job.agent.drain()
    job.finish()
    assert job.sink.results == {}
    assert job.waiting() == {"a"}


@pytest.mark.timing
@pytest.mark.parametrize("name", ["receive", "ack", "nack", "extend", "put", "stored", "invoke", "cancel"])
def test_a_call_that_never_returns_does_not_keep_the_agent_past_its_grace_and_is_named(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("htcgrid.agent.agent._STOP_SECONDS", 0.2)
    monkeypatch.setattr("htcgrid.agent.agent.STORE_SECONDS", 0.1)
    job = rig(plans={"a": ["exit", "ok"], "b": ["hang"]}, lease_seconds=0.3)
    for part in (job.source, job.sink, job.plane):
        if hasattr(part, name):
            owner = part
    called, release = threading.Event(), threading.Event()

    def hang(*_: Any) -> Any:
        called.set()
        release.wait(20)
        return ()

    hang.__name__ = name
    monkeypatch.setattr(type(owner), name, hang)
    job.start()
    if name == "cancel":
        job.plane.hanging.acquire(timeout=10)
    else:
        assert called.wait(10)
    began = time.monotonic()
    job.agent.drain(0.1)
    assert job._thread is not None
    job._thread.join(10)
    took = time.monotonic() - began
    release.set()
    job.plane.free.set()
    until(lambda: not any(thread.name.startswith("htcgrid-") for thread in threading.enumerate()))
    assert took < 5
    assert isinstance(job._error, Stuck)
    assert f"{type(owner).__name__}.{name}" in str(job._error)


def test_a_source_that_is_busy_as_the_grace_ends_takes_the_leases_back_all_the_same(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(plans={"a": ["hang"], "b": ["hang"]})
    nack, busy = job.source.nack, [True, True]

    def flaky(leases: Sequence[Lease], delay: float = 0.0) -> None:
        if busy:
            busy.pop()
            raise Unavailable("the queue is busy")
        nack(leases, delay)

    monkeypatch.setattr(job.source, "nack", flaky)
    job.start()
    for _ in "ab":
        job.plane.hanging.acquire(timeout=10)
    job.agent.drain(0)
    job.finish()
    assert job.waiting() == {"a", "b"}


def test_what_cannot_be_stored_any_more_goes_back_to_the_source(rig: Make) -> None:
    job = rig(tasks=20, sink_faults=["rejected"] * 100)
    with pytest.raises(Rejected):
        job.run()
    assert job.waiting() == set(job.plans)


@pytest.mark.usefixtures("often_extended")
def test_no_lease_is_extended_once_it_has_been_returned(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(plans={str(number): ["hang"] for number in range(12)}, slots=12)
    extend, nack = job.source.extend, job.source.nack
    extended = threading.Event()
    late: list[str] = []
    returned: set[str] = set()

    def slow(leases: Sequence[Lease], seconds: float) -> Collection[str]:
        extended.set()
        time.sleep(0.03)  # the request is under way
        late.extend(lease.task.id for lease in leases if lease.task.id in returned)
        return extend(leases, seconds)

    def noted(leases: Sequence[Lease], delay: float = 0.0) -> None:
        returned.update(lease.task.id for lease in leases)
        nack(leases, delay)

    monkeypatch.setattr(job.source, "extend", slow)
    monkeypatch.setattr(job.source, "nack", noted)
    job.start()
    for _ in job.plans:
        assert job.plane.hanging.acquire(timeout=10)
    extended.clear()
    assert extended.wait(10)
    job.agent.drain(0)
    job.finish()
    assert returned == set(job.plans)
    assert late == []


def test_an_outage_that_is_shorter_than_a_lease_loses_none(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.agent.backoff.back_off", lambda _failures, _chance: 30.0)
    job = rig(plans={"a": ["hang"]}, slots=1, lease_seconds=6)
    extend, answers = job.source.extend, iter([False])

    def away(leases: Sequence[Lease], seconds: float) -> Collection[str]:
        if next(answers, True):
            extended.set()
            return extend(leases, seconds)
        raise Unavailable("away")

    extended = threading.Event()
    monkeypatch.setattr(job.source, "extend", away)
    job.start()
    assert extended.wait(15)
    job.plane.free.set()
    job.finish()
    assert job.diary.invoked == {"a": [1]}


@pytest.mark.timing
def test_a_service_that_asks_for_a_day_is_asked_again_within_the_limit() -> None:
    back_off = BackOff(Shutdown(), 0.05, lambda _message: None)
    began = time.monotonic()

    def busy() -> None:
        raise Unavailable("busy", retry_after=86_400.0)

    with pytest.raises(Unavailable):
        back_off.call(busy)
    assert time.monotonic() - began < 5


@pytest.mark.timing
def test_a_run_does_not_wait_at_its_end_for_a_source_that_cannot_extend_now(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(plans={"a": ["hang"]}, slots=1, lease_seconds=0.3)
    extend = job.source.extend

    def busy(leases: Sequence[Lease], seconds: float) -> Collection[str]:
        extend(leases, 60)
        raise Unavailable("busy", retry_after=50.0)

    monkeypatch.setattr(job.source, "extend", busy)
    job.start()
    until(lambda: job.said)
    began = time.monotonic()
    job.plane.free.set()
    job.finish()
    assert time.monotonic() - began < 5
    assert job.failures() == {"a": None}


@pytest.mark.timing
def test_a_drain_ends_a_wait_that_a_service_asked_for(rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rig(plans={"a": []}, rules=rules(unavailable_limit=1000))

    def busy(_batch: Sequence[Lease], _timeout: float) -> Iterator[Outcome]:
        raise Unavailable("busy", retry_after=900.0)

    monkeypatch.setattr(job.plane, "invoke", busy)
    job.start()
    until(lambda: job.said)
    began = time.monotonic()
    job.agent.drain(500)
    job.finish()
    assert time.monotonic() - began < 5
    assert job.waiting() == {"a"}


# --- a task that is trouble --------------------------------------------------------------------------


def test_a_loss_of_the_plane_is_counted_by_the_source_for_every_agent(rig: Make) -> None:
    job = rig(plans={"a": ["begun", "ok"]})
    job.run()
    assert job.diary.returned == ["a"]
    assert job.sink.results["a"].attempt == 2


def test_a_task_that_ends_the_plane_each_time_fails_alone(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its neighbours are lost with it at first, and take longer than it does."""
    innocent = ["b", "c", "d"]
    job = rig(plans={"poison": [], **{name: [] for name in innocent}}, slots=4)
    running: set[str] = set()
    ended = threading.Condition()
    lives = [0]

    def invoke(batch: Sequence[Lease], _timeout: float) -> Iterator[Outcome]:
        [task_id] = [lease.task.id for lease in batch]
        with ended:
            life = lives[0]
            running.add(task_id)
        end = time.monotonic() + (0.02 if task_id == "poison" else 0.1)
        with ended:
            while time.monotonic() < end and lives[0] == life:
                ended.wait(0.02)
            running.discard(task_id)
            lost = lives[0] != life
            if task_id == "poison" and not lost:
                lives[0] += 1
                ended.notify_all()
                lost = True
        if lost:
            raise Unavailable("the plane was killed", begun=[task_id])
        yield Outcome(task_id, b"1")

    monkeypatch.setattr(job.plane, "invoke", invoke)
    job.run()
    assert job.failures() == {"poison": FailureKind.EXIT, **dict.fromkeys(innocent)}
    assert job.sink.results["poison"].attempt == 10


def test_a_plane_that_is_there_again_each_time_is_not_away(rig: Make) -> None:
    job = rig(plans={"a": ["begun"] * 1000}, slots=1, rules=rules(unavailable_limit=0.0))
    job.run()
    assert job.failures() == {"a": FailureKind.EXIT}


def test_no_task_is_blamed_for_an_outage_under_all_of_them(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of AWS Lambda, when it answers 503 for a minute: each try may have begun, and none is answered."""
    waits: list[int] = []

    def back_off(failures: int, _chance: float) -> float:
        waits.append(failures)
        return 0.001

    monkeypatch.setattr("htcgrid.agent.backoff.back_off", back_off)
    job = rig(plans={name: [] for name in "abcd"}, slots=4)
    invoke, calls = job.plane.invoke, itertools.count()

    def away_at_first(batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        if next(calls) < 100:
            raise Unavailable("503: the handler may have run", begun=[lease.task.id for lease in batch])
        return invoke(batch, timeout)

    monkeypatch.setattr(job.plane, "invoke", away_at_first)
    job.run()
    assert job.failures() == dict.fromkeys("abcd")
    assert max(waits) > 10, "the back-off does not grow"


def test_a_task_that_is_never_begun_is_counted_in_the_end(rig: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    job = rig(plans={"a": [], "b": []}, slots=2, rules=rules(unavailable_limit=0.005))
    invoke = job.plane.invoke

    def not_a(batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        return iter([Unstarted("a")]) if batch[0].task.id == "a" else invoke(batch, timeout)

    monkeypatch.setattr("htcgrid.agent.slot._PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(job.plane, "invoke", not_a)
    job.run()
    assert job.failures() == {"a": FailureKind.EXIT, "b": None}
    assert b"did not begin this task" in job.sink.results["a"].outcome.payload


def test_a_plane_that_stops_a_task_unasked_again_and_again_has_it_stored_as_failed(rig: Make) -> None:
    job = rig(plans={"a": ["cancelled"] * 1000, "b": []})
    job.run()
    assert job.diary.invoked["a"] == list(range(1, 11))
    assert job.failures() == {"a": FailureKind.EXIT, "b": None}
    assert b"though nobody cancelled it" in job.sink.results["a"].outcome.payload


# --- memory ------------------------------------------------------------------------------------------


def test_a_slow_sink_slows_the_slots_so_that_large_answers_do_not_pile_up(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(plans={str(number): [] for number in range(60)}, slots=2, rules=rules())
    outcome, put, stored = job.plane._outcome, job.sink.put, threading.Event()
    leases = job.agent._leases
    monkeypatch.setattr(leases.bytes, "_budget", 50_000)

    def large(lease: Lease, step: str) -> Outcome:
        return Outcome(outcome(lease, step).task_id, b'"' + b"x" * 10_000 + b'"')

    def slow(results: Sequence[Any]) -> None:
        assert stored.wait(20)
        put(results)

    monkeypatch.setattr(job.plane, "_outcome", large)
    monkeypatch.setattr(job.sink, "put", slow)
    job.start()
    until(lambda: leases.bytes._answers >= 0.75 * 50_000)  # from then on nothing is received
    assert leases.bytes._answers <= 50_000 + 2 * 10_002  # what each slot had under way
    stored.set()
    job.finish()
    assert len(job.sink.results) == 60
    assert leases.bytes._answers == 0


# --- a source that takes some calls and refuses others ------------------------------------------------


def test_what_came_beside_a_task_whose_ack_is_refused_goes_back_to_the_source(
    rig: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(tasks=5)
    job.sink.put([Result(Task("0", b""), Outcome("0", b"1"))])

    def refuse(_leases: object) -> None:
        raise Rejected("no right to delete")

    monkeypatch.setattr(job.source, "ack", refuse)
    with pytest.raises(Rejected, match="no right to delete"):
        job.run()
    assert job.diary.invoked == {}
    assert job.waiting() == set(job.plans)


def ends_once_it_is_refused(job: Rig, method: str, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the job with a source that refuses this call; what runs may end once it was refused."""
    refused = threading.Event()

    def refuse(*_: object) -> None:
        if not refused.is_set():  # what is to run on runs
            assert all(job.plane.hanging.acquire(timeout=20) for plan in job.plans.values() if "hang" in plan)
            refused.set()
        raise Rejected("no right to do this")

    monkeypatch.setattr(job.source, method, refuse)
    job.start()
    until(refused.is_set)
    job.plane.free.set()
    with pytest.raises(Rejected, match="no right to do this"):
        job.finish()


def test_a_source_that_takes_no_task_back_costs_no_result_of_what_runs(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(plans={"a": ["hang"], "b": ["exit"]}, slots=2)
    ends_once_it_is_refused(job, "nack", until, monkeypatch)
    assert job.failures() == {"a": None}
    assert job.diary.acked == ["a"]


def test_a_source_that_takes_no_ack_keeps_no_result_from_being_stored(
    rig: Make, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = rig(plans={"a": [], "b": ["hang"], "c": ["hang"]}, slots=3)
    ends_once_it_is_refused(job, "ack", until, monkeypatch)
    assert job.failures() == dict.fromkeys("abc")

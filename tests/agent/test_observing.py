"""Observers are told all that happens, and neither slow nor stop the agent."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from htcgrid.agent import observing
from htcgrid.agent.agent import Agent
from htcgrid.agent.observing import Observing
from htcgrid.spi import (
    Acked,
    AgentEnded,
    AgentStarted,
    AlreadyStored,
    DeadLettered,
    Ended,
    Extended,
    FailureKind,
    Function,
    Lost,
    Observation,
    Observer,
    PluginAvailable,
    PluginUnavailable,
    Received,
    Rejected,
    Retried,
    Returned,
    Started,
    Stored,
)


class Diarist(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(Observer.Config(), Function())
        self.told: list[Observation] = []
        self.calls: list[str] = []
        self.threads: set[threading.Thread] = set()

    def open(self) -> None:
        self.calls.append("open")

    def observe(self, observations: Sequence[Observation]) -> None:
        self.calls.append("observe")
        self.threads.add(threading.current_thread())
        self.told.extend(observations)

    def close(self) -> None:
        self.calls.append("close")
        self.threads.add(threading.current_thread())

    def of(self, kind: type[Any]) -> list[Any]:
        return [each for each in self.told if type(each) is kind]

    def tasks(self, kind: type[Any]) -> Counter[str]:
        return Counter(lease.task.id for each in self.of(kind) for lease in each.leases)


class Raising(Diarist):
    def observe(self, observations: Sequence[Observation]) -> None:
        super().observe(observations)
        raise ZeroDivisionError("a bug of the observer")


class Blocking(Diarist):
    """Does not return until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()
        self.is_in = threading.Event()

    def observe(self, observations: Sequence[Observation]) -> None:
        self.is_in.set()
        self.free.wait(60)
        super().observe(observations)


def observed(rig: Any, *observers: Observer) -> Any:
    """Run the rig's agent with these observers; returns its summary."""
    with Observing({str(number): observer for number, observer in enumerate(observers)}) as hub:
        rig.agent = Agent(rig.source, rig.plane, rig.sink, rig.rules, rig.said.append, observers=hub)
        return rig.run()


def test_each_task_is_told_of_as_it_is_received_started_ended_stored_and_acked(rig: Callable[..., Any]) -> None:
    diarist, run = Diarist(), rig(tasks=100, batch=4)
    summary = observed(run, diarist)
    once = Counter(dict.fromkeys(map(str, range(100)), 1))
    assert diarist.tasks(Received) == diarist.tasks(Started) == diarist.tasks(Ended) == diarist.tasks(Acked) == once
    assert Counter(result.task.id for each in diarist.of(Stored) for result in each.results) == once
    assert summary.succeeded == 100
    assert diarist.calls[0] == "open"
    assert diarist.calls[-1] == "close"
    assert (type(diarist.told[0]), type(diarist.told[-1])) == (AgentStarted, AgentEnded)
    assert diarist.dropped == 0


def test_where_nobody_is_told_nothing_is_made_for_tasks_that_run_well_but_one_observation_for_each_put(
    rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(*_: object) -> None:
        pytest.fail("an observation was made for nobody")

    for place in ("receiver.Received", "receiver.Acked", "slot.Started", "slot.Ended", "storer.Acked"):
        monkeypatch.setattr(f"htcgrid.agent.{place}", made)
    assert rig(tasks=200).run().succeeded == 200


def test_it_is_told_in_one_thread_of_its_own_which_ends_with_the_run(rig: Callable[..., Any]) -> None:
    diarist = Diarist()
    observed(rig(tasks=100), diarist)
    [thread] = diarist.threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_retries_dead_letters_and_returns_are_told_with_their_outcome_and_reason(rig: Callable[..., Any]) -> None:
    diarist = Diarist()
    plans = {"again": ["exit", "ok"], "dead": ["exit"] * 3, "bad": ["handler_error"], "lost": ["begun", "ok"]}
    summary = observed(rig(plans=plans, dead_letters=True), diarist)
    kinds = {(each.leases[0].task.id, each.outcome and each.outcome.failure) for each in diarist.of(Retried)}
    assert kinds == {("again", FailureKind.EXIT), ("dead", FailureKind.EXIT), ("lost", None)}
    assert sum(diarist.tasks(Retried).values()) == summary.retried == sum(diarist.tasks(Returned).values())
    [dead] = diarist.of(DeadLettered)
    assert dead.leases[0].task.id == "dead"
    assert dead.reason.startswith("exit at attempt 3")
    failures = Counter(
        r.outcome.failure.value for each in diarist.of(Stored) for r in each.results if r.outcome.failure
    )
    assert failures == summary.failures


def test_what_has_a_result_already_is_told_and_does_not_start(rig: Callable[..., Any]) -> None:
    run = rig(tasks=3)
    run.run()
    again, diarist = rig(tasks=3), Diarist()
    again.sink.results.update(run.sink.results)
    summary = observed(again, diarist)
    assert sum(diarist.tasks(AlreadyStored).values()) == summary.already_stored == 3
    assert diarist.tasks(Started) == Counter()
    assert diarist.tasks(Acked) == diarist.tasks(AlreadyStored)


@pytest.mark.usefixtures("often_extended")
def test_leases_that_are_extended_and_lost_are_told(rig: Callable[..., Any], until: Callable[..., None]) -> None:
    run, diarist = rig(plans={"slow": ["hang"], "gone": ["hang"]}), Diarist()
    with Observing({"diarist": diarist}) as hub:
        run.agent = Agent(run.source, run.plane, run.sink, run.rules, run.said.append, observers=hub)
        run.start()
        until(lambda: diarist.tasks(Extended)["slow"])
        run.source.cancel(task_ids=["gone"])
        until(lambda: diarist.tasks(Lost)["gone"])
        run.plane.free.set()
        run.finish()


@pytest.mark.usefixtures("often_extended")
def test_a_lease_is_told_as_lost_once_however_long_its_task_runs_on(
    rig: Callable[..., Any], until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, diarist = rig(plans={"slow": ["hang"], "gone": ["hang"]}), Diarist()
    monkeypatch.setattr(run.plane, "cancel", lambda _task_ids: None)
    with Observing({"diarist": diarist}) as hub:
        run.agent = Agent(run.source, run.plane, run.sink, run.rules, run.said.append, observers=hub)
        run.start()
        until(lambda: diarist.tasks(Extended)["gone"])
        run.source.cancel(task_ids=["gone"])
        until(lambda: diarist.tasks(Lost)["gone"])
        extended = diarist.tasks(Extended)["slow"]
        until(lambda: diarist.tasks(Extended)["slow"] > extended + 3)
        run.plane.free.set()
        run.finish()
    assert diarist.tasks(Lost) == {"gone": 1}


@pytest.mark.parametrize(
    ("faults", "part"),
    [
        ({"source_faults": ["unavailable"]}, "source"),
        ({"sink_faults": ["unavailable"]}, "sink"),
        ({"plans": {"a": ["unavailable"]}, "slots": 1}, "plane"),
    ],
    ids=["source", "sink", "plane"],
)
def test_what_is_unavailable_and_back_is_told_by_its_part(
    rig: Callable[..., Any], faults: dict[str, Any], part: str
) -> None:
    diarist = Diarist()
    observed(rig(**{"plans": {"a": []}, **faults}), diarist)
    away, back = diarist.of(PluginUnavailable), diarist.of(PluginAvailable)
    assert {each.part for each in away} == {each.part for each in back} == {part}
    assert "is away" in away[0].message


def test_the_agents_figures_can_be_asked_while_it_runs(rig: Callable[..., Any], until: Callable[..., None]) -> None:
    run, diarist = rig(plans={"a": ["hang"]}), Diarist()
    with Observing({"diarist": diarist}) as hub:
        run.agent = Agent(run.source, run.plane, run.sink, run.rules, run.said.append, observers=hub)
        run.start()
        until(lambda: run.agent.held == 1 and diarist.of(AgentStarted))
        [started] = diarist.of(AgentStarted)
        assert started.slots == started.figures.slots() == 2
        assert started.figures.held() == started.figures.busy() == 1
        assert started.figures.held_bytes() == len(b'"a"')
        assert started.figures.queue().states.leased == 1
        assert started.figures.usage() == []
        run.plane.free.set()
        run.finish()


def test_one_that_raises_is_reported_once_and_the_others_are_told_all_the_same(
    rig: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    raising, diarist = Raising(), Diarist()
    summary = observed(rig(tasks=50), raising, diarist)
    assert summary.succeeded == sum(len(each.results) for each in diarist.of(Stored)) == 50
    said = [record.getMessage() for record in caplog.records]
    assert sum("ZeroDivisionError" in text for text in said) == 1
    assert raising.calls[-1] == "close"
    assert raising.dropped > 0
    assert any("was not told of everything" in text for text in said)


def test_one_that_raises_again_and_again_is_told_nothing_more(
    monkeypatch: pytest.MonkeyPatch, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observing, "_LINGER_SECONDS", 0.0)
    raising = Raising()
    with Observing({"raising": raising}) as hub:
        for number in range(1, 11):
            hub.tell(Observation(0.0))
            until(lambda number=number: raising.calls.count("observe") == number)
        until(lambda: any("is told nothing more" in record.getMessage() for record in caplog.records))
        hub.tell(Observation(0.0))
    assert raising.calls.count("observe") == 10
    assert raising.dropped == 11


def test_one_that_blocks_holds_up_neither_the_run_nor_its_end(
    rig: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(observing, "_CLOSE_SECONDS", 0.05)
    blocking, diarist = Blocking(), Diarist()
    summary = observed(rig(tasks=50), blocking, diarist)
    assert summary.succeeded == 50
    assert diarist.calls[-1] == "close"
    assert any("was still busy" in record.getMessage() for record in caplog.records)
    assert blocking.dropped > 0
    blocking.free.set()


def test_what_does_not_fit_into_its_queue_is_dropped_and_counted(
    monkeypatch: pytest.MonkeyPatch, until: Callable[..., None]
) -> None:
    monkeypatch.setattr(observing, "MOST_TASKS", 10)
    blocking, diarist = Blocking(), Diarist()
    with Observing({"blocking": blocking, "diarist": diarist}) as hub:
        hub.tell(Observation(0.0))
        assert blocking.is_in.wait(30)
        for number in range(1, 31):
            hub.tell(Observation(float(number)))
            until(lambda number=number: len(diarist.told) == number + 1)
        assert blocking.dropped == 21
        blocking.free.set()
    assert [each.time for each in blocking.told] == [float(number) for number in range(10)]
    assert diarist.dropped == 0


def test_payloads_that_wait_are_bounded_by_their_bytes_and_one_that_is_alone_fits_always(
    monkeypatch: pytest.MonkeyPatch, rig: Callable[..., Any]
) -> None:
    monkeypatch.setattr(observing, "MOST_BYTES", 100)
    blocking = Blocking()
    lease = rig(tasks=1).source.receive(1, 0)[0]
    large = type(lease)(type(lease.task)("large", b"0" * 1000))
    with Observing({"blocking": blocking}) as hub:
        hub.tell(Received(1.0, [large], 0.0))
        assert blocking.is_in.wait(30)
        hub.tell(Received(2.0, [large], 0.0))
        blocking.free.set()
    assert [each.time for each in blocking.told] == [1.0]
    assert blocking.dropped == 1


def test_one_that_cannot_be_opened_stops_the_program_and_the_others_are_closed() -> None:
    class Refused(Diarist):
        def open(self) -> None:
            super().open()
            raise Rejected("the port is taken")

    diarist, refused = Diarist(), Refused()
    with pytest.raises(Rejected, match="the port is taken"), Observing({"diarist": diarist, "refused": refused}):
        pytest.fail("it was opened")
    assert diarist.calls == ["open", "close"]
    assert refused.calls == ["open", "close"]


def test_an_error_of_close_is_reported_and_no_more(rig: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    class Clumsy(Diarist):
        def close(self) -> None:
            raise OSError("the disk is full")

    caplog.set_level(logging.WARNING)
    assert observed(rig(tasks=3), Clumsy()).succeeded == 3
    assert any("the disk is full" in record.getMessage() for record in caplog.records)

"""What every observer must do: `spi.Observer`, rule by rule."""

import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from htcgrid.spi import (
    Acked,
    AgentEnded,
    AgentFigures,
    AgentStarted,
    AlreadyStored,
    Answered,
    DeadLettered,
    Ended,
    EnvironmentEnded,
    EnvironmentStarted,
    Extended,
    FailureKind,
    Lease,
    Lost,
    Observation,
    Observer,
    Outcome,
    PluginAvailable,
    PluginUnavailable,
    QueueStats,
    Received,
    Result,
    Retried,
    Returned,
    Sent,
    Started,
    States,
    Stored,
    Task,
    TraceContext,
    Usage,
)

from htcgrid_contracts.common import PluginContract, eventually, in_threads, not_asked, unique_id

CANARY = "canary-6f1e3b"
_BUSY_TASKS = 20_000
_BUSY_SECONDS = 10.0
"""Half a millisecond a task: what sends each by itself takes longer, and a busy machine makes it long for nobody else."""


@dataclass(frozen=True, slots=True)
class Unheard(Observation):
    """A kind of observation that a later version may have."""

    something: object


class KitFigures(AgentFigures):
    """An agent that holds three tasks."""

    def slots(self) -> int:
        return 4

    def busy(self) -> int:
        return 1

    def held(self) -> int:
        return 3

    def held_bytes(self) -> int:
        return 300

    def queue(self) -> QueueStats:
        return QueueStats(States(waiting=5, delayed=None, leased=3), oldest_seconds=1.5)

    def usage(self) -> Sequence[Usage]:
        return [Usage({"sqs.ReceiveMessage": 3}, dollars=0.25)]


class ObserverContract(PluginContract):
    """Subclass it, and give the fixture `observer`: an observer, not opened.

    `shown` is what it shows to others. See `PluginContract` for what else may be overridden.
    """

    # --- what a subclass gives ---

    @pytest.fixture
    def observer(self) -> Observer:
        """An observer, not opened."""
        pytest.fail("override the fixture `observer`: return an observer, not opened")

    def shown(self, observer: Observer) -> str:
        """All that this opened observer shows or sends to others by now, as text."""
        not_asked("override `shown(observer)`: read what the observer shows to others, without the plugin")

    # --- fixtures ---

    @pytest.fixture
    def plugin(self, observer: Observer) -> Observer:
        return observer

    def use(self, plugin: Observer) -> None:  # type: ignore[override]
        plugin.observe(run_of_an_agent())

    # --- rules ---

    def test_it_takes_every_observation(self, observer: Observer) -> None:
        """`observe` must accept every kind of observation. When it raises, all observations of the same call are lost.
        Read: spi.Observer.observe, spi.observations."""
        with observer:
            for each in run_of_an_agent():
                observer.observe([each])

    def test_it_takes_the_observations_of_a_run_in_one_call(self, observer: Observer) -> None:
        """One call of `observe` may have many observations, of any kind and of several agents.
        Read: spi.Observer.observe."""
        with observer:
            observer.observe([*run_of_an_agent(), *run_of_an_agent()])
            observer.observe([])

    def test_it_passes_over_what_it_does_not_know(self, observer: Observer) -> None:
        """`observe` must ignore a kind of observation that it does not know. New kinds come without a new version of
        the interface. Read: spi.Observer.observe, spi.observations."""
        with observer:
            observer.observe([Unheard(time.time(), {"any": "thing"}), *run_of_an_agent()])

    def test_it_takes_what_does_not_fit_together(self, observer: Observer) -> None:
        """`observe` must accept an end without its beginning: when an observer is slow, observations are dropped.
        Read: spi.Observer.dropped."""
        with observer:
            for each in reversed(run_of_an_agent()):
                observer.observe([each])

    def test_it_may_be_told_from_another_thread_each_time(self, observer: Observer) -> None:
        """`observe` must work in any thread. The agent opens the observer in one thread and calls it in another.
        Read: spi, rules for all; spi.Observer.observe."""
        with observer:
            for _ in range(3):
                in_threads([lambda: observer.observe(run_of_an_agent())], 20 * self.wait_factor)

    def test_it_keeps_up_with_a_fast_agent(self, observer: Observer) -> None:
        """`observe` must be fast enough for a fast agent. Observations that come too fast are dropped, and then the
        numbers are wrong. Read: spi.Observer, spi.Observer.dropped."""
        tasks = [Task(str(number), b"{}") for number in range(_BUSY_TASKS)]
        leases = [Lease(task) for task in tasks]
        results = [Result(task, Outcome(task.id, b"1", duration_ms=0.1, billed_ms=1)) for task in tasks]
        told = [
            Received(1.0, leases, 0.1),
            Started(1.0, leases, 0),
            Ended(2.0, leases, 0, 1.0),
            Stored(2.0, results, 0.1),
        ]
        with observer:
            began = time.monotonic()
            observer.observe([*told, Acked(2.0, leases)])
            took = time.monotonic() - began
        most = _BUSY_SECONDS * self.wait_factor
        assert took < most, f"{_BUSY_TASKS} tasks took it {took:.1f} s: an agent runs this many in a fifth of a second"

    def test_it_keeps_no_payload(self, observer: Observer) -> None:
        """An observer must not keep events and answers in memory: there may be millions, each of megabytes.
        Read: spi.Observer.observe, spi.observations."""
        payload = b'{"value": "%s"}' % unique_id().encode()
        before = sys.getrefcount(payload)
        with observer:
            observer.observe(run_of_an_agent(payload))
            eventually(
                lambda: (gc.collect(), sys.getrefcount(payload) == before)[1],
                5 * self.wait_factor,
                "the observer keeps the event or the answer of a task that is done; release it",
            )

    def test_what_it_shows_has_no_event_answer_or_log(self, observer: Observer) -> None:
        """What an observer shows must contain no event, answer or log. More people read metrics and traces than may see
        the data. Read: spi, rules for all; spi.Observer."""
        with observer:
            observer.observe(run_of_an_agent(b'"%s"' % CANARY.encode()))
            shown = self.shown(observer)
        assert CANARY not in shown, "it shows the event, the answer, or what the handler printed"

    def test_a_session_has_one_trace(self, observer: Observer) -> None:
        """`session_trace` must be the same each time for the same session. A `submit` that was interrupted is repeated
        with the same tasks. Read: spi.Observer.session_trace."""
        with observer:
            first, again, other = (observer.session_trace(session) for session in ("s-1", "s-1", "s-2"))
            run: object = observer.trace
        traces = [first, again, other, run]
        if not observer.makes_spans:
            assert traces == [None] * 4, "it has traces: say `makes_spans = True`, else nobody opens it to submit"
            return
        assert all(trace is None or isinstance(trace, TraceContext) for trace in traces), f"no TraceContext: {traces}"
        assert first == again, f"the tasks of one session get {first}, then {again}: a queue refuses the second ones"
        assert first is None or first != other, f"two sessions have the same trace, {first}"

    def test_it_says_where_it_can_be_scraped(self, observer: Observer) -> None:
        """`scrape_port` must be the port that the config names, or None, and known before `open`: a deployed plane
        opens this port first. Read: spi.Observer.scrape_port."""
        port: object = observer.scrape_port
        assert port is None or (isinstance(port, int) and 0 <= port < 65_536), (
            f"`scrape_port` is {port!r}: say which port `config` names, or None"
        )


def run_of_an_agent(payload: bytes = b'{"value": 1}') -> list[Observation]:
    """All kinds of observations, as an agent makes them that runs seven tasks."""
    figures, now = KitFigures(), time.time()
    tasks = [Task(unique_id(), payload, {"session_id": "s-1"}) for _ in range(7)]
    leases = [Lease(task, 1, receipt=number) for number, task in enumerate(tasks)]
    good, bad, again, returned, gone, done, dead = leases

    def outcome(lease: Lease, failure: FailureKind | None = None) -> Outcome:
        return Outcome(
            lease.task.id, payload, failure, now, 12.5, 13, 64, log_tail=payload, init_ms=7.5, environment="e-1"
        )

    def result(lease: Lease, failure: FailureKind | None = None) -> Result:
        return Result(lease.task, outcome(lease, failure), lease.attempt)

    begun = [good, bad, again, gone, dead]
    retried: Callable[[Outcome | None], Retried] = lambda found: Retried(now, [again], found, 0.2)  # noqa: E731
    return [
        Sent(now, "s-1", tasks, 0.01),
        Sent(now, "s-1", (), 0.0, is_last=True),
        EnvironmentStarted(now, "e-1"),
        AgentStarted(now, 2, figures),
        Received(now, leases, 0.01),
        AlreadyStored(now, [done]),
        PluginUnavailable(now, "plane", "The plane is away.", 0.2),
        PluginAvailable(now, "plane", 0.3),
        Started(now, begun, 0),
        Extended(now, [good, bad], 30.0),
        Lost(now, [gone]),
        retried(outcome(again, FailureKind.OUT_OF_MEMORY)),
        retried(None),
        Ended(now, begun, 0, 0.5),
        Stored(now, [result(good), *(result(bad, kind) for kind in FailureKind), result(dead, FailureKind.EXIT)], 0.01),
        Acked(now, [good, bad]),
        Answered(now, result(good), 0.02),
        DeadLettered(now, [dead], "exit at attempt 3"),
        Returned(now, [returned], 0.0),
        Returned(now, [again], 0.2),
        EnvironmentEnded(now, "e-1"),
        AgentEnded(now, figures),
    ]

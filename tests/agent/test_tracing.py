"""Where an observer makes spans, a handler has its attempt as its caller; else its task as it was sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from htcgrid.agent.agent import Agent
from htcgrid.agent.observing import Observing
from htcgrid.spi import Function, Lease, Observation, Observer, Outcome, Stored, Task, TraceContext, Unstarted
from htcgrid.spi.tracing import attempt_of, caller_of, within_attempt

RUN = TraceContext("a" * 32, "b" * 16)
CALLER = TraceContext("c" * 32, "d" * 16)
AWS = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"


class Tracer(Observer):
    makes_spans = True

    def __init__(self) -> None:
        super().__init__(Observer.Config(), Function())
        self.stored: dict[str, Task] = {}

    def open(self) -> None:
        self.trace = RUN

    def observe(self, observations: Sequence[Observation]) -> None:
        for each in observations:
            if isinstance(each, Stored):
                self.stored.update((result.task.id, result.task) for result in each.results)


def seen_by_the_plane(rig: Any, observers: Observing) -> dict[str, Lease]:
    seen: dict[str, Lease] = {}
    invoke = rig.plane.invoke

    def noting(batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        seen.update((lease.task.id, lease) for lease in batch)
        return list(invoke(batch, timeout))

    rig.plane.invoke = noting
    with observers:
        rig.agent = Agent(rig.source, rig.plane, rig.sink, rig.rules, rig.said.append, observers=observers)
        rig.run()
    return seen


def test_a_handler_has_its_attempt_as_its_caller_where_spans_are_made(rig: Callable[..., Any]) -> None:
    tracer = Tracer()
    seen = seen_by_the_plane(rig(tasks=3), Observing({"tracer": tracer}))
    assert len(seen) == 3
    for lease in seen.values():
        expected = attempt_of(lease, RUN)
        assert lease.task.attributes["traceparent"] == f"00-{RUN.trace_id}-{expected.span_id}-01"
        assert "traceparent" not in tracer.stored[lease.task.id].attributes


def test_without_spans_the_plane_gets_the_task_as_it_was(rig: Callable[..., Any]) -> None:
    seen = seen_by_the_plane(rig(tasks=3), Observing({}))
    assert [dict(lease.task.attributes) for lease in seen.values()] == [{}] * 3


def test_each_attempt_of_each_task_and_generation_has_a_span_of_its_own() -> None:
    leases = [
        Lease(Task(task_id, b"1", {"generation": generation}), attempt)
        for task_id in ("a", "b", "a\0001")
        for generation in ("0", "1")
        for attempt in (1, 2)
    ]
    assert len({attempt_of(lease, CALLER) for lease in leases}) == len(leases)
    assert attempt_of(leases[0], CALLER) == attempt_of(leases[0], CALLER)
    assert {attempt_of(lease, CALLER).trace_id for lease in leases} == {CALLER.trace_id}


@pytest.mark.parametrize(
    ("attributes", "trace_id"),
    [
        ({}, RUN.trace_id),
        ({"traceparent": CALLER.traceparent}, CALLER.trace_id),
        ({"AWSTraceHeader": AWS, "traceparent": CALLER.traceparent}, "5759e988bd862e3fe1be46a994272793"),
        ({"AWSTraceHeader": "none", "traceparent": "none"}, RUN.trace_id),
    ],
)
def test_an_attempt_stays_in_the_trace_of_its_caller(attributes: dict[str, str], trace_id: str) -> None:
    lease = Lease(Task("t", b"1", {**attributes, "session_id": "s"}))
    within = within_attempt(lease, RUN)
    found = caller_of(within.task.attributes)
    assert found is not None
    assert found.trace_id == trace_id
    assert found == attempt_of(lease, caller_of(attributes) or RUN)
    assert within.task.attributes["session_id"] == "s"


def test_where_a_trace_is_not_sampled_a_handler_has_its_own_caller() -> None:
    unsampled = TraceContext("c" * 32, "d" * 16, is_sampled=False)
    sent, unsent = Lease(Task("t", b"1", {"traceparent": unsampled.traceparent})), Lease(Task("u", b"1"))
    assert within_attempt(sent, RUN) is sent
    assert within_attempt(unsent, unsampled) is unsent

"""Every accepted task ends exactly once in the sink, whatever the plugins do meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from htcgrid.agent.options import AgentOptions
from htcgrid.spi import FAILURES, FailureKind

if TYPE_CHECKING:
    from conftest import Rig

KINDS = frozenset(FailureKind)
PLANE_STEPS = ["ok", "slow", "unavailable", "begun", "unstarted", *FailureKind]
plans = st.lists(st.lists(st.sampled_from(PLANE_STEPS), max_size=5), min_size=1, max_size=25)
source_faults = st.lists(st.sampled_from(["", "", "unavailable", "expire"]), max_size=40)
sink_faults = st.lists(st.sampled_from(["", "", "unavailable"]), max_size=10)
settled = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


HOPELESS = {kind for kind, failure in FAILURES.items() if failure.is_dead_letter}


@settled
@given(
    plans=plans,
    slots=st.integers(1, 4),
    batch=st.sampled_from([1, 2, 16]),
    source_faults=source_faults,
    sink_faults=sink_faults,
    refused=st.sets(st.sampled_from([str(number) for number in range(25)])),
    dead_letters=st.booleans(),
)
def test_every_accepted_task_ends_exactly_once_in_the_sink(
    rig: Callable[..., Rig], plans: list[list[str]], **options: Any
) -> None:
    # One task answers, or all of them might fail to initialise; that is a rule of its own.
    named = {str(number): plan for number, plan in enumerate(plans)} | {"sound": []}
    job = rig(plans=named, lease_seconds=0.25, rules=AgentOptions(init_errors_limit=10_000, linger=0.001), **options)

    job.run()

    assert set(job.sink.results) == set(named)
    assert job.diary.acked_early == []
    assert job.source.exhausted
    assert job.source.stats(brief=True).states.waiting == 0
    for task_id, result in job.sink.results.items():
        assert result.outcome.task_id == task_id
        plan = named[task_id]
        if result.outcome.failure is None:
            assert result.outcome.payload == b'"%s"' % task_id.encode()
        else:
            assert result.outcome.failure is not FailureKind.CANCELLED  # nobody has cancelled any
            assert result.outcome.failure in plan or result.outcome.failure is FailureKind.PAYLOAD_TOO_LARGE
    for task_id in job.diary.dead:
        assert job.sink.results[task_id].outcome.failure in HOPELESS


@settled
@given(
    plans=st.lists(
        st.lists(st.sampled_from(["ok", "unavailable", "unstarted", *FailureKind]), max_size=5), max_size=25
    ),
    slots=st.integers(1, 4),
    batch=st.sampled_from([1, 4]),
)
def test_attempts_are_counted_and_kept_to_the_rule_of_their_kind(
    rig: Callable[..., Rig], plans: list[list[str]], slots: int, batch: int
) -> None:
    named = {str(number): plan for number, plan in enumerate(plans)} | {"sound": []}
    job = rig(plans=named, slots=slots, batch=batch, rules=AgentOptions(init_errors_limit=10_000, linger=0.001))

    job.run()

    for task_id, plan in named.items():
        begun = [step for step in plan if step not in {"unavailable", "unstarted"}]
        expected = expected_of(begun)
        assert job.diary.invoked[task_id] == list(range(1, len(expected) + 1))
        result = job.sink.results[task_id]
        assert result.attempt == len(expected)
        assert result.outcome.failure == (None if expected[-1] == "ok" else expected[-1])


def expected_of(steps: list[str]) -> list[str]:
    """What is run of these steps, by the rules: tried again only where the kind is, and not too often."""
    ran: list[str] = []
    for step in [*steps, "ok"]:
        ran.append(step)
        if step == FailureKind.CANCELLED:
            continue  # but nobody has cancelled it
        tries = FAILURES[FailureKind(step)].attempts if step in KINDS else 1
        if len(ran) >= tries:
            break
    return ran

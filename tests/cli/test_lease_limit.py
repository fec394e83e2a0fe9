"""`htcgrid check` compares what all agents hold together with the most that their source hands out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import pytest

from htcgrid.agent.prefetch import most_held, wanted
from htcgrid.builtin.memory import MemorySource
from htcgrid.cli.lease_limit import advice
from htcgrid.spi import Function, Invoker, Lease, Outcome, TaskSource, Unstarted


class Limited(MemorySource):
    max_batch = 10
    most_leased = 120_000


class Plane(Invoker):
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterable[Outcome | Unstarted]:
        raise NotImplementedError


def plane(slots: int, standing: tuple[int, int] | None = None) -> Invoker:
    made = Plane(Plane.Config(), Function())
    made.max_concurrency, made.standing = slots, standing
    return made


def notes(invoker: Invoker, source: type[MemorySource] = Limited) -> list[str]:
    return list(advice(source(source.Config(), Function()), invoker, "cluster"))


def test_more_environments_than_tasks_that_are_handed_out_stay_idle() -> None:
    (note,) = notes(plane(16, (10_000, 16)))
    assert "planes.cluster: 10,000 agents of 16 environments run up to 160,000 tasks at a time" in note
    assert "120,000 at most" in note
    assert "40,000 environments stay idle" in note


def test_agents_that_hold_too_much_are_told_how_long_tasks_must_be() -> None:
    (note,) = notes(plane(1, (10_000, 1)))
    found = re.search(r"tasks take less than (\S+) s", note)
    assert found is not None
    shortest = float(found[1])
    assert 10_000 * most_held(1, shortest, 10) <= 120_000 < 10_000 * most_held(1, shortest * 0.9, 10)


@pytest.mark.parametrize(("slots", "standing"), [(100, None), (64, (100, 16)), (1, (200, 1))])
def test_a_grid_within_the_limit_is_not_warned(slots: int, standing: tuple[int, int] | None) -> None:
    assert notes(plane(slots, standing)) == []


def test_a_source_without_a_limit_is_not_warned_of() -> None:
    assert TaskSource.most_leased is None
    assert notes(plane(1, (10_000, 32)), MemorySource) == []


@pytest.mark.parametrize("mean", [0.001, 0.01, 0.1, 0.5, 10.0])
def test_no_agent_holds_more_than_its_slots_and_its_prefetch(mean: float) -> None:
    slots = 4
    assert most_held(slots, mean, 1_000_000) == slots + wanted(mean, 1, 0.5, [0.0] * slots)
    assert most_held(slots, mean, 10) <= slots + 500

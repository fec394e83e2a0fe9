from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htcgrid.agent.options import AgentOptions
from htcgrid.agent.policy import (
    RetryPolicy,
    Rules,
    Verdict,
    back_off,
    batch_size,
    extension_interval,
    prefetch_size,
    retry_delay,
    verdict,
)
from htcgrid.spi import FAILURES, FailureKind

chances = st.floats(0, 1)
means = st.floats(0, 1000, allow_nan=False)


def fates(options: AgentOptions, kind: FailureKind, attempts: int) -> list[Verdict]:
    return [verdict(options, kind, attempt) for attempt in range(1, attempts + 1)]


def test_an_answer_is_final_at_any_attempt() -> None:
    assert verdict(AgentOptions(), None, 1) is Verdict.DONE
    assert verdict(AgentOptions(), None, 99) is Verdict.DONE


def test_a_task_whose_process_ended_runs_twice_more_and_is_then_made_a_dead_letter() -> None:
    assert fates(AgentOptions(), FailureKind.EXIT, 4) == [Verdict.RETRY, Verdict.RETRY, Verdict.DEAD, Verdict.DEAD]


def test_a_task_out_of_memory_runs_once_more_and_is_then_made_a_dead_letter() -> None:
    assert fates(AgentOptions(), FailureKind.OUT_OF_MEMORY, 3) == [Verdict.RETRY, Verdict.DEAD, Verdict.DEAD]


@pytest.mark.parametrize("kind", sorted({kind for kind in FailureKind if FAILURES[kind].attempts == 1}))
def test_every_other_failure_is_final_at_once(kind: FailureKind) -> None:
    assert verdict(AgentOptions(), kind, 1) is Verdict.DONE


@given(st.sampled_from(FailureKind), st.integers(1, 10), st.integers(1, 20))
def test_a_kind_is_tried_as_often_as_it_is_set_and_never_more(kind: FailureKind, tries: int, attempt: int) -> None:
    options = AgentOptions.model_construct(attempts={kind: tries})
    assert (verdict(options, kind, attempt) is Verdict.RETRY) == (attempt < tries)


@given(st.integers(1, 10_000), chances)
def test_back_off_lies_between_half_and_all_of_a_doubling_limit(failures: int, chance: float) -> None:
    seconds = back_off(failures, chance, first=0.5, longest=8.0)
    limit = min(8.0, 0.5 * 2.0 ** min(failures - 1, 60))
    assert limit / 2 <= seconds <= limit


def test_back_off_has_jitter() -> None:
    assert back_off(3, 0.0) < back_off(3, 0.5) < back_off(3, 1.0)


def test_a_retry_waits_longer_after_each_attempt() -> None:
    options = AgentOptions(retry_delay=1.0, retry_delay_limit=6.0)
    delays = [retry_delay(options, attempt, 1.0) for attempt in (1, 2, 3, 4, 5)]
    assert delays == [1.0, 2.0, 4.0, 6.0, 6.0]


@given(st.integers(1, 512), means, st.integers(1, 512))
def test_a_batch_is_never_empty_nor_over_the_planes_limit_and_at_most_doubles(now: int, mean: float, most: int) -> None:
    assert 1 <= batch_size(now, mean, most) <= max(1, min(most, now * 2))


@given(st.integers(1, 512), st.floats(0.0251, 1000), st.integers(1, 512))
def test_no_task_of_over_25_ms_is_handed_over_with_another(now: int, mean: float, most: int) -> None:
    assert batch_size(now, mean, most) == 1


@given(st.integers(1, 512), st.floats(1e-6, 0.05), st.integers(1, 512))
def test_no_batch_holds_50_ms_of_work_but_a_single_task(now: int, mean: float, most: int) -> None:
    size = batch_size(now, mean, most)
    assert size == 1 or size * mean <= 0.05


def test_tasks_are_handed_over_singly_until_their_time_is_known() -> None:
    assert batch_size(64, None, 512) == 1


def test_tiny_tasks_come_to_full_batches_within_a_few_steps() -> None:
    size = 1
    for _ in range(10):
        size = batch_size(size, 5e-6, 512)
    assert size == 512


@given(st.integers(1, 64), st.none() | means, st.integers(1, 512))
def test_the_prefetch_is_bounded(slots: int, mean: float | None, batch: int) -> None:
    assert 0 <= prefetch_size(slots, mean, batch) <= 8192


@given(st.integers(1, 64), st.floats(60, 1e6), st.integers(1, 512))
def test_of_tasks_that_take_a_minute_none_is_prefetched(slots: int, mean: float, batch: int) -> None:
    assert prefetch_size(slots, mean, batch) == 0


@given(st.integers(1, 64), st.floats(1e-4, 59))
def test_the_prefetch_bridges_a_receive_of_half_a_second(slots: int, mean: float) -> None:
    size = prefetch_size(slots, mean, 1)
    assert size == 8192 or size * mean >= slots * 0.5 * 0.999
    assert size <= math.ceil(slots * 0.5 / mean) + 1


def test_a_lease_is_extended_early_enough_to_miss_one_call() -> None:
    assert 2 * extension_interval(30.0) < 30.0


def test_programs_that_name_the_options_as_in_the_first_version_go_on_working() -> None:
    rules = Rules(grace=1, retries=RetryPolicy({FailureKind.EXIT: 5}, first_delay=0.5, longest_delay=2.0))
    assert (rules.grace, rules.attempts_of(FailureKind.EXIT)) == (1, 5)
    assert [retry_delay(rules, attempt, 1.0) for attempt in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 2.0]

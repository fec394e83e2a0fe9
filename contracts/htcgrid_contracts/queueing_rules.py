"""A plane whose service has a queue: when the time of a task begins, and what must cost no request."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, Outcome

from htcgrid_contracts.common import in_threads, not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease

_LOOKS = 100


class QueueingRules(InvokerHelpers):
    """Asked of every plane."""

    def test_max_concurrency_costs_nothing_to_read(self, plane: Invoker) -> None:
        """`max_concurrency` must return at once, without a request to a service. The agent reads it ten times a second.
        Read: spi.Invoker.max_concurrency."""
        self.works(plane)
        took = float("inf")
        for _ in range(3):  # a busy machine may be late once
            began = time.monotonic()
            for _ in range(_LOOKS):
                assert plane.max_concurrency >= 1
            took = min(took, time.monotonic() - began)
        assert took < 0.05 * self.wait_factor, (
            f"max_concurrency was read {_LOOKS} times in {took:.2f} s: keep the number that was learnt last"
        )

    def test_what_waits_for_a_slot_is_timed_from_its_start(self, plane: Invoker) -> None:
        """Timeout and duration must count from when the task starts, not from when it began to wait for an environment.
        Read: spi.Invoker.invoke, spi.Outcome."""
        is_measured = Capability.METERING in plane.capabilities
        if not is_measured and Capability.TIMEOUT not in plane.capabilities:
            not_asked("the plane claims neither Capability.METERING nor Capability.TIMEOUT")
        size = min(plane.max_concurrency, self.most_threads)
        self.side_by_side(plane, size)
        wrong = ""
        for longer in (1, 2, 4) if self.keeps_any_timeout else (1, 1, 1):  # a busy machine may be late
            timeout = longer * self.short_timeout
            wrong = self._mistimed(plane, size, timeout, is_measured=is_measured)
            if not wrong:
                return
        assert not wrong, wrong

    @pytest.mark.capability(Capability.CANCEL)
    def test_a_task_of_any_id_is_cancelled(self, plane: Invoker) -> None:
        """`cancel` must work for any task id. An id must not be put into an address as it is.
        Read: spi.Invoker.cancel."""
        self.works(plane)
        for _ in range(3):  # a busy machine may be late once
            asked = lease("sleep", seconds=30 * self.wait_factor)
            asked = replace(asked, task=replace(asked.task, id=f"{asked.task.id} a/b?c#d%2F&é'"))
            outcome, took = self.cancelled(plane, asked)
            self.failed(outcome, FailureKind.CANCELLED)
            if took < 2 * self.wait_factor:
                break
        assert took < 2 * self.wait_factor, f"a task was stopped {took:.1f} s after cancel; 2 s at most"

    # --- helpers ---

    def _mistimed(self, plane: Invoker, size: int, timeout: float, *, is_measured: bool) -> str:
        """What is wrong with the times of twice as many tasks as there are slots, as a text."""
        seconds = 0.6 * timeout
        calls: list[Callable[[], Outcome]] = [lambda: self.call(plane, "count", timeout, seconds=seconds)] * (2 * size)
        invoked = f"{2 * size} tasks were invoked at once on {size} slots, each for {seconds:g} s"
        for outcome in in_threads(calls, 60 * self.wait_factor):
            if outcome.failure is FailureKind.TIMEOUT:
                return f"{invoked}: one of them timed out after {timeout:g} s, which count from its start"
            answer = self.answer(outcome)
            took = answer["ended"] - answer["began"]
            if is_measured and outcome.duration_ms / 1000 > took + 0.5 * seconds:
                return f"{invoked}: a handler that took {took:.2f} s has a duration_ms of {outcome.duration_ms:.0f}"
        return ""

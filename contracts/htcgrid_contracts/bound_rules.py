"""Limits of time, size and memory, tested below and above; and environments beside one that is stopped."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, Outcome

from htcgrid_contracts.common import in_threads, not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease
from htcgrid_contracts.packing import contract_function

_SLOW_IMPORT = 3.0
"""How long `contract_slow_import` takes to be loaded, in seconds."""
_EXACT: Any = {
    "z": 1.0,
    "a": [1e22, -0.0, 12345678901234567890123, 0.1],
    "m": {"b": None, "a": "\u0000é\u2028/"},
    "": [],
}


class BoundRules(InvokerHelpers):
    """Finds limits that are half or twice what was given, and what comes too late."""

    # --- time ---

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_a_timeout_is_neither_shorter_nor_longer_than_given(self, plane: Invoker) -> None:
        """A handler that ends before its timeout must answer; one that runs longer must be stopped at the timeout. A
        timeout of half or twice the seconds breaks this rule. Read: spi.Invoker.invoke."""
        self.works(plane)
        # No whole number, so that a plane that counts in whole seconds is seen.
        seconds = 1.4 if self.keeps_any_timeout else self.short_timeout
        for _ in range(3):  # a busy machine may be late once
            outcome = self.call(plane, "sleep", seconds, seconds=0.65 * seconds, value="in time")
            if outcome.failure is not FailureKind.TIMEOUT:
                break
        assert self.answer(outcome) == "in time"
        took = 0.0
        for _ in range(3):  # a busy machine may be late once
            began = time.monotonic()
            outcome = self.call(plane, "sleep", seconds, seconds=seconds + 30 * self.wait_factor)
            took = time.monotonic() - began
            self.failed(outcome, FailureKind.TIMEOUT)
            self.works(plane)  # an environment that was stopped is replaced
            if took < self._latest(seconds):
                break
        assert took >= 0.9 * seconds, f"the timeout was {seconds:g} s, and the handler was stopped after {took:.1f} s"
        assert took < self._latest(seconds), f"the timeout was {seconds:g} s; the outcome came after {took:.1f} s"

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_the_start_of_an_environment_is_not_in_the_timeout(self, invoker: Invoker) -> None:
        """The timeout must count from when the handler begins. A module may take longer than that to be loaded: on AWS
        Lambda an environment has 10 seconds for its start. Read: spi.Invoker.invoke, spi.Outcome.init_ms."""
        self.not_behind_the_emulator()
        seconds = 2.0 if self.keeps_any_timeout else self.short_timeout
        if seconds >= _SLOW_IMPORT:
            not_asked(
                f"`short_timeout` is {seconds:g} s, and the kit's slow module is loaded within {_SLOW_IMPORT:g} s"
            )
        slow = contract_function("contract_slow_import.handler", timeout=seconds)
        for _ in range(3):  # a busy machine may be late once
            with self.serving(invoker, slow) as plane:
                outcome = self.call(plane, "echo", seconds, value="loaded")
                if outcome.failure is None:
                    self._printed_while_loading(plane)
                    break
        assert outcome.failure is None, (
            f"a module takes {_SLOW_IMPORT:g} s to be loaded, its handler answers at once, the timeout is {seconds:g} s, and the "
            f"outcome is {outcome.failure}"
        )

    def _printed_while_loading(self, plane: Invoker) -> None:
        """Checks that what a module printed when it was loaded is in one log of its environment at most."""
        if Capability.LOGS not in plane.capabilities:
            return
        size = min(plane.max_concurrency, self.most_threads)
        tails = [self.call(plane, "echo", value=1).log_tail for _ in range(size + 1)]
        loaded = sum(b"is loaded" in tail for tail in tails)
        assert loaded <= size, (
            f"the module prints a line when it is loaded, and {loaded} of {size + 1} later tasks, which print nothing, have it in "
            f"their logs"
        )

    def test_the_context_tells_the_time_that_is_left(self, plane: Invoker) -> None:
        """The context must tell how much time is left until the timeout: handlers use it to stop in time.
        Read: spi.Function."""
        timeout = plane.function.timeout
        self._tells_the_time_that_is_left(plane, timeout, timeout)
        if self.keeps_any_timeout:
            # No whole number. Some runtimes, as AWS's emulator, know the function's timeout alone.
            self._tells_the_time_that_is_left(plane, 2.3 * self.wait_factor, timeout)

    def _tells_the_time_that_is_left(self, plane: Invoker, timeout: float, of_function: float) -> None:
        self.works(plane)
        seconds = 0.3
        for _ in range(3):  # a busy machine may be late once
            context = self.answer(self.call(plane, "describe", timeout, seconds=seconds))
            left = context["remaining_ms"] / 1000
            if left >= 0.7 * timeout:
                break
        rounded = 0.0 if timeout == of_function else 0.05  # a deadline is in whole milliseconds
        is_right = any(0.7 * known <= left <= known + rounded for known in (timeout, of_function))
        assert is_right, f"the timeout is {timeout:g} s, and at its start the handler has {left:g} s left"
        later = context["remaining_later_ms"] / 1000
        assert later <= left - 0.8 * seconds, f"a handler had {left:g} s left, and {seconds:g} s later {later:g} s"

    def test_a_timeout_may_be_as_long_as_a_month(self, plane: Invoker) -> None:
        """A timeout of a month must be accepted. In milliseconds it is larger than a 32-bit number.
        Read: spi.Invoker.invoke."""
        if not self.keeps_any_timeout:
            not_asked("the plane keeps to the timeout that it was deployed with")
        assert self.answer(self.call(plane, "echo", 2_592_000.0, value="a month")) == "a month"

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_each_task_of_a_batch_has_a_timeout_of_its_own(self, plane: Invoker) -> None:
        """The timeout must count for each task of a batch by itself, not once for the whole batch.
        Read: spi.Invoker.invoke."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: no task waits behind another")
        seconds = self.short_timeout
        size = 2
        for _ in range(3):  # a busy machine may be late once
            batch = [lease("sleep", seconds=0.6 * seconds, value=number) for number in range(size)]
            outcomes = self.run(plane, batch, seconds)
            if not any(outcome.failure is FailureKind.TIMEOUT for outcome in outcomes):
                break
        assert [self.answer(outcome) for outcome in outcomes] == list(range(size))
        # And of many short tasks, in each environment: behind a long one a task may go to an idle environment.
        size = min(plane.max_batch, 44)
        short = 1.3 * seconds / size
        stopped = 0
        for _ in range(3):  # a busy machine may be late once
            calls = [lambda: self.run(plane, [lease("sleep", seconds=short) for _ in range(size)], seconds)]
            several = in_threads(calls * min(plane.max_concurrency, self.most_threads), 60 * self.wait_factor)
            stopped = sum(outcome.failure is FailureKind.TIMEOUT for some in several for outcome in some)
            if not stopped:
                return
        assert not stopped, (
            f"of {size} tasks in a batch, each of {1000 * short:.0f} ms, {stopped} were stopped at a timeout of {seconds:g} s"
        )

    @pytest.mark.capability(Capability.EXIT)
    def test_the_end_of_a_process_is_seen_at_once(self, plane: Invoker) -> None:
        """When the handler ends its process, the outcome must come at once, not only at the timeout.
        Read: spi.Capability.EXIT."""
        self.works(plane)
        took = float("inf")
        for _ in range(3):
            began = time.monotonic()
            self.failed(self.call(plane, "end", status=3, at_once=True), FailureKind.EXIT)
            took = min(took, time.monotonic() - began)
            self.works(plane)
            if took < 3 * self.wait_factor:
                break
        assert took < 3 * self.wait_factor, f"a handler ended its process at once, and that was seen after {took:.1f} s"

    # --- sizes ---

    def test_answers_and_events_up_to_the_limit_pass_whole(self, plane: Invoker) -> None:
        """An event or an answer of exactly the largest size must pass complete.
        Read: spi.FailureKind.PAYLOAD_TOO_LARGE."""
        if self.largest_answer is not None:
            answer = self.call(plane, "big", bytes=self.largest_answer)
            assert answer.failure is None, f"an answer of exactly the limit is reported as {answer.failure}"
            expected = b'"' + b"x" * (self.largest_answer - 2) + b'"'
            assert len(answer.payload) == len(expected), (
                f"an answer of {len(expected)} bytes came with {len(answer.payload)}"
            )
            assert answer.payload == expected, "an answer of exactly the limit came with other bytes"
        if self.largest_event is not None:
            room = self.largest_event - len(lease("count", filler="").task.payload)
            event = lease("count", filler="x" * room)
            assert len(event.task.payload) == self.largest_event
            self.answer(self.run(plane, [event])[0])
        if plane.max_batch > 1:
            self._a_large_batch_passes(plane)

    def test_an_answer_keeps_its_numbers_and_the_order_of_its_keys(self, plane: Invoker) -> None:
        """The plane must pass on the answer as it is. A plane that parses JSON and writes it again changes numbers or
        the order of keys. Read: spi, rules for all three."""
        payload = self.call(plane, "echo", value=_EXACT).payload
        sent, came = _parsed(json.dumps(_EXACT)), _parsed(payload.decode())
        assert came == sent, f"the handler answered {json.dumps(_EXACT)}, and {payload[:300].decode()} came"
        payload = self.call(plane, "one_key_twice").payload
        assert _parsed(payload.decode()) == [("1", "first"), ("1", "second")], (
            f"the handler answered an object that has the key 1 twice, and {payload[:100].decode()} came: do not parse answers"
        )

    @pytest.mark.capability(Capability.MEMORY)
    def test_the_memory_limit_is_neither_lower_nor_higher_than_given(self, plane: Invoker) -> None:
        """A handler must be able to use half of its `memory`, and must be stopped when it uses one and a half times as
        much. Read: spi.Capability.MEMORY."""
        memory = plane.function.memory
        used = self.answer(self.call(plane, "eat", mb=memory // 2, seconds=0.5))
        assert used == memory // 2
        self.failed(self.call(plane, "eat", mb=memory + memory // 2), FailureKind.OUT_OF_MEMORY)
        self.works(plane)

    # --- neighbours ---

    @pytest.mark.capability(Capability.TIMEOUT, Capability.EXIT)
    def test_what_is_stopped_or_ends_harms_no_neighbour(self, plane: Invoker) -> None:
        """When one handler is stopped or ends its process, handlers in other environments must run on.
        Read: spi.Invoker.invoke."""
        if plane.max_concurrency == 1:
            not_asked("max_concurrency is 1: nothing runs beside it")
        seconds = self.short_timeout
        timeout = plane.function.timeout
        self._beside(
            plane,
            FailureKind.TIMEOUT,
            lambda: self.call(plane, "sleep", seconds, seconds=seconds + 30 * self.wait_factor),
            lambda past: self._later(plane, 0.5 * seconds, 0.5 * seconds + min(past, 0.25 * timeout)),
        )
        self._beside(
            plane,
            FailureKind.EXIT,
            lambda: self._later(plane, 0.3, 0, do="end", status=3, at_once=True),
            lambda past: self._later(plane, 0, min(0.3 + past, 0.6 * timeout)),
        )

    # --- helpers ---

    def _a_large_batch_passes(self, plane: Invoker) -> None:
        """Checks that the limit is one of each event and each answer, and not of a batch together."""
        count = min(plane.max_batch, 40)
        answer, event = ((limit or 0) * 3 // (2 * count) for limit in (self.largest_answer, self.largest_event))
        for size, batch in (
            (answer, [lease("big", bytes=answer) for _ in range(count)]),
            (event, [lease("count", filler="x" * event) for _ in range(count)]),
        ):
            wrong = [each.failure for each in self.run(plane, batch) if size and each.failure is not None]
            assert not wrong, (
                f"a batch of {count} tasks, each of {size} bytes and so below the limit: one failed as {wrong[0]}"
            )
        size = (self.largest_answer or 2_000_000) // 2
        expected = [size if number == count // 2 else 9 for number in range(count)]
        outcomes = self.run(plane, [lease("big", bytes=each) for each in expected])
        came = [len(each.payload) if each.failure is None else each.failure for each in outcomes]
        assert came == expected, (
            f"a batch of {count} tasks, one of which answers {size} bytes and the others 9; what came: {came}"
        )

    def _beside(
        self, plane: Invoker, kind: FailureKind, stop: Callable[[], Outcome], keep: Callable[[float], Outcome]
    ) -> None:
        """Stops one task while another runs, which runs longer where the plane is slow to stop one."""
        for past in (0.3 * self.wait_factor, 1.5 * self.wait_factor):
            self.side_by_side(plane, 2)
            (stopped, ended), (kept, kept_until) = in_threads(
                [lambda: (stop(), time.monotonic()), lambda past=past: (keep(past), time.monotonic())],  # type: ignore[misc]
                90 * self.wait_factor,
            )
            self.failed(stopped, kind)
            assert self.answer(kept) == "kept"
            if kept_until > ended:
                return

    def _later(self, plane: Invoker, delay: float, seconds: float, do: str = "sleep", **event: Any) -> Outcome:
        time.sleep(delay)
        return self.call(plane, do, seconds=seconds, value="kept", helper=True, **event)

    def _latest(self, seconds: float) -> float:
        """The latest time at which a task may be stopped; after it, the plane took twice the timeout."""
        return 1.9 * seconds if seconds >= 1 else seconds + 1


def _parsed(text: str) -> Any:
    """The JSON value, with numbers as they are written and objects as lists of pairs."""
    return json.loads(text, parse_float=str, parse_int=str, object_pairs_hook=list)

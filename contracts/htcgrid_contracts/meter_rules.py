"""What is measured of an invocation, and that each task has its own log and context."""

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, Outcome

from htcgrid_contracts.common import EAST, WEST, in_threads, in_time_zone
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease

_LONG_START_MS = 50.0
"""A shorter start is not told apart from the way to the handler and back."""


class MeterRules(InvokerHelpers):
    """Asked of planes that measure, keep logs, or fill the context."""

    # --- measures ---

    @pytest.mark.capability(Capability.METERING)
    def test_the_bill_is_the_duration_or_a_little_more(self, plane: Invoker) -> None:
        """`billed_ms` must be in milliseconds, rounded up, and equal to the duration or a little more, since the start
        may be billed too. Read: spi.Outcome."""
        self.works(plane)
        for outcome in (self.call(plane, "sleep", seconds=0.3), self.call(plane, "echo", value=1)):
            self._plausible(outcome)
        size = min(plane.max_batch, 8)
        (alone,) = self._sleeps(plane, 1)
        most = 3 * max(40.0, alone.duration_ms)
        least = float("inf")
        for _ in range(3):  # a busy machine may be late once
            # In each environment one, since what waits behind another goes to one that is idle.
            run = partial(self._sleeps, plane, size)
            outcomes = in_threads([run] * min(plane.max_concurrency, self.most_threads), 60 * self.wait_factor)
            least = min(least, max(outcome.duration_ms for some in outcomes for outcome in some))
            if least < most:
                return
        assert least < most, (
            f"of a batch of {size} tasks of 30 ms each one has a duration_ms of {least:g}, and alone one had {alone.duration_ms:g}"
        )

    @pytest.mark.capability(Capability.METERING)
    def test_failures_are_measured_and_billed(self, plane: Invoker) -> None:
        """Failed invocations must have times and billed time too: they cost as much as successful ones.
        Read: spi.Outcome."""
        self.works(plane)
        began = time.monotonic()
        failed = [self.call(plane, "fail")]
        most = (time.monotonic() - began) * 1000 + 50
        assert failed[0].duration_ms <= most, (
            f"a handler raised, within {most:.0f} ms of its call, and its duration_ms is {failed[0].duration_ms:g}"
        )
        if Capability.TIMEOUT in plane.capabilities:
            seconds = self.quick_timeout
            outcome = self.call(plane, "sleep", seconds, seconds=seconds + 30 * self.wait_factor)
            self.failed(outcome, FailureKind.TIMEOUT)
            assert outcome.duration_ms >= 900 * seconds, (
                f"a handler was stopped after {seconds:g} s, and its duration_ms is {outcome.duration_ms:g}"
            )
            assert outcome.billed_ms >= 900 * seconds, f"{seconds:g} s are billed as {outcome.billed_ms} ms"
            assert outcome.max_memory_mb > 0, (
                f"a handler was stopped after {seconds:g} s, and its max_memory_mb is {outcome.max_memory_mb}"
            )
            failed.append(outcome)
        if Capability.EXIT in plane.capabilities:
            failed.append(self.call(plane, "end", status=3))
        if Capability.CANCEL in plane.capabilities:
            for _ in range(3):  # on a busy machine it may not have begun
                self.works(plane)
                stopped = self.cancelled(plane, lease("sleep", seconds=30 * self.wait_factor))[0]
                billed = stopped.billed_ms
                if billed > 0:
                    break
            failed.append(stopped)
            assert billed > 0, f"a handler that ran was cancelled, and is billed {billed} ms"
        if self.largest_answer is not None:
            failed.append(self.call(plane, "big", bytes=self.largest_answer + 1))
        if Capability.MEMORY in plane.capabilities:
            failed.append(self.call(plane, "eat", mb=2 * plane.function.memory))
        for outcome in failed:
            self._plausible(outcome)
            assert outcome.environment, f"an outcome that failed as {outcome.failure} names no environment"

    @pytest.mark.capability(Capability.METERING)
    def test_started_is_when_the_handler_began(self, plane: Invoker) -> None:
        """`started` must be the time when the handler began: not when it ended, and not when it was called.
        Read: spi.Outcome."""
        self.works(plane)
        for seconds in (0.8 * self.wait_factor, 2.5 * self.wait_factor):  # a busy machine may be late by as much once
            outcome = self.call(plane, "count", seconds=seconds)
            began = self.answer(outcome)["began"]
            apart = abs(outcome.started - began)
            if apart < 0.7 * seconds:
                break
        assert apart < 0.7 * seconds, (
            f"by its own clock the handler began at {began:.2f}, ran for {seconds:g} s, and `started` is "
            f"{outcome.started:.2f}: {apart:.1f} s apart"
        )
        if Capability.TIMEOUT in plane.capabilities:
            self._began_before_its_end(plane)

    @pytest.mark.capability(Capability.METERING)
    def test_the_duration_is_the_handlers_own(self, invoker: Invoker) -> None:
        """`duration_ms` must be the handler's own time, without the start of its environment, which is `init_ms`.
        Read: spi.Outcome."""
        self.not_behind_the_emulator()
        wrong = ""
        for _ in range(4):  # a busy machine may be late once
            with self.again(invoker) as plane:
                outcome = self.call(plane, "count", seconds=0.1)
            answer = self.answer(outcome)
            more = outcome.duration_ms - 1000 * (answer["ended"] - answer["began"])
            init = outcome.init_ms or 0.0
            if init < _LONG_START_MS or more < 0.7 * init:
                return
            wrong = f"the start took {init:.0f} ms, and duration_ms has {more:.0f} ms more than the handler took"
        assert not wrong, wrong

    @pytest.mark.capability(Capability.METERING)
    def test_memory_is_in_megabytes(self, plane: Invoker) -> None:
        """`max_memory_mb` must be the most memory that the environment, and no other, has used so far, in MB.
        Read: spi.Outcome."""
        with self.again(plane) as new:  # one in which no rule has used all of it
            self._is_in_megabytes(new)

    def _is_in_megabytes(self, plane: Invoker) -> None:
        memory = plane.function.memory
        eaten = memory // 3
        self.works(plane)
        before = {each.environment: each.max_memory_mb for each in self._in_each(plane)}
        least = min(before.values())
        assert least < memory, f"a handler that took next to nothing of {memory} MiB has a max_memory_mb of {least}"
        most = self.call(plane, "eat", mb=eaten, seconds=0.3)
        used = most.max_memory_mb
        assert 0.8 * eaten <= used <= 1.1 * memory, (
            f"a handler took {eaten} MiB of {memory}, and max_memory_mb is {used}"
        )
        later = [self.call(plane, "echo", value=1) for _ in range(2 * plane.max_concurrency)]
        least = min((each.max_memory_mb for each in later if each.environment == most.environment), default=used)
        assert least >= 0.8 * eaten, (
            f"an environment has used {used} MB, and a later outcome of it says {least}: max_memory_mb is the most so far"
        )
        for each in self._in_each(plane):
            had = before.get(each.environment, each.max_memory_mb)
            is_own = each.environment == most.environment or each.max_memory_mb < had + eaten / 2
            assert is_own, (
                f"an environment had used {had} MB, another took {eaten} MiB, and it says {each.max_memory_mb} then"
            )

    @pytest.mark.capability(Capability.METERING)
    def test_each_environment_has_a_name_of_its_own(self, plane: Invoker) -> None:
        """`environment` must be different for each environment, and the same for all invocations in one. What replaces one that
        has ended is another one, though it is in the same place. Read: spi.Outcome."""
        size = min(plane.max_concurrency, self.most_threads)
        self.side_by_side(plane, size)
        calls = [lambda: self.call(plane, "count", seconds=0.3)] * size
        outcomes = in_threads(calls, 60 * self.wait_factor)
        if Capability.EXIT in plane.capabilities and not self.behind_emulator:
            self.failed(self.call(plane, "end", status=3, at_once=True), FailureKind.EXIT)
        outcomes += [*in_threads(calls, 60 * self.wait_factor), *(self.call(plane, "count") for _ in range(2))]
        pairs = {(self.answer(outcome)["environment"], outcome.environment) for outcome in outcomes}
        assert len(pairs) == len({inside for inside, _ in pairs}) == len({outside for _, outside in pairs}), (
            f"the handler saw {len({inside for inside, _ in pairs})} environments, and the outcomes name "
            f"{len({outside for _, outside in pairs})}"
        )

    def test_times_that_are_told_are_plausible(self, plane: Invoker) -> None:
        """Times must be in their units: milliseconds, and Unix seconds for `started`. A plane that does not measure may
        leave them at zero. Read: spi.Outcome."""
        self.works(plane)
        before = time.time()
        outcome = self.call(plane, "sleep", seconds=0.3)
        most = (time.time() - before) * 1000 + 50
        if outcome.duration_ms:
            assert 290 <= outcome.duration_ms <= most, (
                f"a handler of 300 ms, called in {most:.0f} ms, has a duration_ms of {outcome.duration_ms:g}"
            )
        if outcome.billed_ms:
            assert 290 <= outcome.billed_ms <= most + 10_000, f"a handler of 300 ms is billed {outcome.billed_ms} ms"
        if outcome.started:
            for zone in (EAST, WEST):
                with in_time_zone(zone):
                    started = self.call(plane, "echo", value=1).started
                apart = max(abs(outcome.started - before), abs(started - time.time()))
                assert apart < 60, (
                    f"`started` is {outcome.started:.0f}, and {started:.0f} in another time zone; it is in Unix seconds, which "
                    f"are the same everywhere, and it was called at {before:.0f}"
                )

    # --- the context ---

    @pytest.mark.capability(Capability.CONTEXT)
    def test_an_attribute_shadows_nothing_of_htcgrid(self, plane: Invoker) -> None:
        """An attribute of a task must not replace what htcgrid sets in the context, such as `task_id`. Otherwise a user
        could pretend to be another. Read: spi.Capability.CONTEXT."""
        asked = lease("describe", attributes={"attempt": "99", "task_id": "another", "city": "Bern"}, attempt=2)
        custom = self.answer(self.run(plane, [asked])[0])["custom"]
        assert custom["attempt"] == 2, (
            f"the attempt is 2, an attribute says 99, and the context has {custom['attempt']!r}"
        )
        assert custom["task_id"] == asked.task.id, (
            f"an attribute took the place of the task's id: {custom['task_id']!r}"
        )
        assert custom["session_id"] == "", (
            f"a task without session has session_id {custom['session_id']!r}; expected ''"
        )
        assert custom["city"] == "Bern"
        for _ in range(plane.max_concurrency):
            later = self.answer(self.call(plane, "describe"))["custom"]
            more = set(later) - {"task_id", "session_id", "attempt"}
            assert not more, f"a task without attributes has {sorted(more)} in its context, which an earlier task had"

    def test_each_invocation_has_a_request_id_of_its_own(self, plane: Invoker) -> None:
        """`aws_request_id` must be different for each invocation: handlers write it into their logs.
        Read: spi.Function."""
        found = [self.answer(self.call(plane, "describe"))["aws_request_id"] for _ in range(3)]
        assert len(set(found)) == 3, f"three tasks were invoked with the request ids {found}"

    # --- logs ---

    @pytest.mark.capability(Capability.LOGS)
    def test_a_silent_task_has_no_log(self, plane: Invoker) -> None:
        """A task that prints nothing must have an empty log, and no task of a batch may have the log of another.
        Read: spi.Outcome.log_tail."""
        texts = [f"of task {number}" for number in range(min(plane.max_batch, 3))]
        batch = [lease("say", text=text) for text in texts] + [lease("echo", value=1)]
        outcomes = (
            self.run(plane, batch) if plane.max_batch > len(texts) else [self.run(plane, [each])[0] for each in batch]
        )
        outcomes += [self.call(plane, "echo", value=1) for _ in range(plane.max_concurrency)]
        for number, outcome in enumerate(outcomes):
            seen = [text for text in texts if text.encode() in outcome.log_tail]
            expected = texts[number : number + 1]
            assert seen == expected, f"printed {expected}, and the log tail has {seen}: {outcome.log_tail!r}"

    @pytest.mark.capability(Capability.LOGS)
    def test_any_bytes_may_be_printed(self, plane: Invoker) -> None:
        """A handler may print any bytes, also such that are not text, and a last line without an end. They must be in
        the log. Read: spi.Outcome.log_tail."""
        outcome = self.call(plane, "say", hex="6265666f726520ff00fe", text=" behind", end="")
        assert self.answer(outcome) == len(" behind")
        for word in (b"before", b"behind"):
            assert word in outcome.log_tail, (
                f"a handler printed a line without an end, with bytes that are not text, and the log tail is "
                f"{outcome.log_tail!r}"
            )
        tail = self.call(plane, "say", hex="e9" * 5000, text=" behind").log_tail  # Latin-1
        assert b"behind" in tail
        assert len(tail) <= 4096, f"a handler printed 5 KB that are not UTF-8, and the log tail has {len(tail)} bytes"

    @pytest.mark.capability(Capability.LOGS)
    def test_each_thread_gets_the_logs_of_its_own_tasks(self, plane: Invoker) -> None:
        """When several threads call at the same time, each must get the logs of its own tasks.
        Read: spi.Outcome.log_tail."""
        size = min(plane.max_concurrency, self.most_threads)

        def work(thread: int) -> None:
            for number in range(10):
                text = f"thread {thread} task {number}."
                tail = self.call(plane, "say", text=text).log_tail.decode()
                said = [line for line in tail.splitlines() if line.startswith("thread ")]  # a runtime may say more
                assert said == [text], f"printed {text!r}, and the log tail is {tail!r}"

        in_threads([lambda thread=thread: work(thread) for thread in range(size)], 60 * self.wait_factor)  # type: ignore[misc]

    @pytest.mark.capability(Capability.LOGS, Capability.TIMEOUT)
    def test_the_log_of_every_kind_of_failure_is_kept(self, plane: Invoker) -> None:
        """The log must be kept for every kind of failure: users look there first. Read: spi.Outcome.log_tail."""
        seconds = self.short_timeout
        slow: dict[str, Any] = {"print": "last words", "seconds": seconds + 30 * self.wait_factor}
        outcomes = {
            FailureKind.HANDLER_ERROR: self.call(plane, "fail", print="last words"),
            FailureKind.TIMEOUT: self.call(plane, "sleep", seconds, **slow),
        }
        if self.largest_answer is not None:
            too_large = self.call(plane, "big", print="last words", bytes=self.largest_answer + 1)
            outcomes[FailureKind.PAYLOAD_TOO_LARGE] = too_large
        if Capability.CANCEL in plane.capabilities:
            for _ in range(3):  # on a busy machine it may not have begun
                self.works(plane)
                outcomes[FailureKind.CANCELLED] = self.cancelled(plane, lease("sleep", **slow))[0]
                if outcomes[FailureKind.CANCELLED].log_tail:
                    break
        for kind, outcome in outcomes.items():
            self.failed(outcome, kind)
            assert b"last words" in outcome.log_tail, f"the log of a task that ended as {kind} is {outcome.log_tail!r}"
            for _ in range(min(plane.max_concurrency, 2)):
                tail = self.call(plane, "echo", value=1).log_tail
                assert b"last words" not in tail, (
                    f"the log of a task that ended as {kind} is that of the next one: {tail!r}"
                )

    # --- helpers ---

    def _began_before_its_end(self, plane: Invoker) -> None:
        """Checks `started` of a task that was stopped: it is as long after the call as that of a task that answered."""
        seconds = self.quick_timeout
        late = seconds
        for _ in range(3):  # a busy machine may be late once
            self.works(plane)
            called = time.time()
            usual = self.call(plane, "echo", value=1).started - called
            called = time.time()
            outcome = self.call(plane, "sleep", seconds, seconds=seconds + 30 * self.wait_factor)
            self.failed(outcome, FailureKind.TIMEOUT)
            late = min(late, outcome.started - called - usual)
            if late < 0.7 * seconds:
                return
        pytest.fail(
            f"a handler was stopped after {seconds:g} s, and its `started` is {late:.1f} s later after the call than that of "
            f"a handler that answered: it is the time when the handler began"
        )

    def _in_each(self, plane: Invoker) -> Sequence[Outcome]:
        """Outcomes of calls that run at the same time, so that they are of several environments."""
        size = min(plane.max_concurrency, 2)
        return in_threads([lambda: self.call(plane, "count", seconds=0.1)] * size, 60 * self.wait_factor)

    def _sleeps(self, plane: Invoker, size: int) -> Sequence[Outcome]:
        return self.run(plane, [lease("sleep", seconds=0.03) for _ in range(size)])

    def _plausible(self, outcome: Outcome) -> None:
        """Checks that the times of an outcome agree with each other."""
        duration, billed, init = outcome.duration_ms, outcome.billed_ms, outcome.init_ms or 0.0
        assert duration >= 0
        assert billed >= duration, f"duration_ms is {duration:g}, and billed_ms is {billed}, which is less"
        assert billed <= duration + init + 1000, (
            f"duration_ms is {duration:g}, init_ms {init:g}, and billed_ms is {billed}, which is far more"
        )
        ended = outcome.started + duration / 1000
        now = time.time()
        assert now - 3600 < outcome.started, f"`started` is {outcome.started:g}; it is in Unix seconds, now {now:.0f}"
        assert ended < now + 5, f"by `started` and `duration_ms` it ended {ended - now:.0f} s from now"

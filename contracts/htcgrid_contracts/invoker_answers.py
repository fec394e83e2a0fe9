"""What an invocation reports when the handler answers: once, unchanged, with log and measures."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, limits

from htcgrid_contracts.common import not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease

ROUND_TRIP: Mapping[str, Any] = {
    "null": None,
    "true": True,
    "zero": 0,
    "negative": -17,
    "float": 0.1,
    "tiny float": 5e-324,
    "2**53 + 1": 2**53 + 1,
    "empty text": "",
    "not ASCII": "naïve 価格 Ω 😀",
    "control characters": "a\u0000b\n\t\u2028",
    "empty list": [],
    "empty object": {},
    "nested": {"a": [1, {"b": [None, False, {"c": "d"}]}], "": 0},
    "100 deep": json.loads("[" * 100 + "]" * 100),
    "1 MB": "x" * 1_000_000,
}


class AnswerRules(InvokerHelpers):
    """Answers, the context, logs and measures."""

    # --- answers ---

    @pytest.mark.parametrize("name", ROUND_TRIP)
    def test_an_event_comes_back_as_it_was_sent(self, plane: Invoker, name: str) -> None:
        """The event must reach the handler, and its answer must come back, as the same JSON value.
        Read: spi, rules for all three."""
        answer = self.answer(self.call(plane, "echo", value=ROUND_TRIP[name]))
        assert answer == ROUND_TRIP[name], f"sent {_short(ROUND_TRIP[name])}, it came back as {_short(answer)}"

    def test_each_task_of_a_batch_is_reported_once(self, plane: Invoker) -> None:
        """`invoke` must report each task of a batch exactly once. The agent cannot ack a task that is not reported.
        Read: spi.Invoker.invoke."""
        assert plane.max_batch >= 1, f"max_batch = {plane.max_batch}; it is 1 at least"
        batch = [lease("echo", value=number) for number in range(min(plane.max_batch, 120))]
        outcomes = self.run(plane, batch)
        answers = [self.answer(outcome) for outcome in outcomes]
        assert answers == list(range(len(batch))), "the outcomes of a batch are of other tasks than they say"

    def test_an_outcome_is_one_execution(self, plane: Invoker) -> None:
        """One call must run the handler once. A retry inside an SDK runs the task twice: turn it off.
        Read: spi, one attempt."""
        self.each_counted([self.answer(self.call(plane, "count")) for _ in range(6)])

    def test_a_slow_outcome_is_one_execution(self, plane: Invoker) -> None:
        """A slow handler must run once too. An SDK with a short read timeout sends the request again.
        Read: spi, one attempt."""
        slow = min(self.slow_seconds, 0.5 * plane.function.timeout)
        self.each_counted([self.answer(self.call(plane, "count", seconds=seconds)) for seconds in (0, slow, 0)])

    def test_a_failed_outcome_is_one_execution(self, plane: Invoker) -> None:
        """A handler that fails must run once. The agent decides about retries, for each kind of failure.
        Read: spi, one attempt."""
        executions = []
        for _ in range(4):
            document = self.failed(self.call(plane, "fail"), FailureKind.HANDLER_ERROR)
            *_, environment, execution = document["errorMessage"].split()
            executions.append({"environment": environment, "execution": int(execution)})
        self.each_counted(executions)

    def test_a_handler_that_ends_its_process_ran_once(self, plane: Invoker, tmp_path: Path) -> None:
        """A handler that ends its process must run once. It will probably end it again, so the agent counts the
        attempts. Read: spi, one attempt."""
        seen = self.marks(tmp_path)
        if seen is None:
            not_asked(
                "give --marks, or override `marks(folder)`: the path at which handlers see a folder of this machine"
            )
        self.call(plane, "end", status=3, mark=f"{seen}/marks")
        self.works(plane)
        lines = (tmp_path / "marks").read_text().splitlines()
        assert len(lines) == 1, f"one invocation of a handler that ends its process ran {len(lines)} times"

    @pytest.mark.capability(Capability.ERRORS)
    def test_a_document_that_looks_like_an_error_is_an_answer(self, plane: Invoker) -> None:
        """An answer that looks like an error document is still a success, as on Lambda: a handler may return anything.
        Read: spi.Capability.ERRORS."""
        answer = self.answer(self.call(plane, "looks_like_an_error"))
        assert answer["errorMessage"] == "an answer"

    # --- context ---

    def test_the_context_is_as_on_lambda(self, plane: Invoker) -> None:
        """The context must have the attributes that Lambda's has: handlers that were written for Lambda read them.
        Read: spi.Function."""
        context = self.answer(self.call(plane, "describe"))
        assert context["aws_request_id"], "context.aws_request_id is empty"
        assert context["function_name"], "context.function_name is empty"
        assert context["memory_limit_in_mb"] == str(plane.function.memory), (
            f"context.memory_limit_in_mb is the function's memory as a text, "
            f"{plane.function.memory}; it is {context['memory_limit_in_mb']!r}"
        )
        left = context["remaining_ms"]
        most = plane.function.timeout * 1000
        assert 0 < left <= most, f"context.get_remaining_time_in_millis() is {left} where the timeout is {most:.0f} ms"

    @pytest.mark.capability(Capability.CONTEXT)
    def test_the_context_tells_task_session_attempt_and_attributes(self, plane: Invoker) -> None:
        """`client_context.custom` must have the task, session, attempt and attributes, the same on every plane.
        Read: spi.Capability.CONTEXT."""
        attributes = {"session_id": "session-7", "city": "Zürich"}
        asked = lease("describe", attributes=attributes, attempt=3)
        custom = self.answer(self.run(plane, [asked])[0])["custom"]
        expected = {"task_id": asked.task.id, "session_id": "session-7", "attempt": 3, "city": "Zürich"}
        assert custom is not None, "context.client_context is None"
        differs = {name: custom.get(name) for name, value in expected.items() if custom.get(name) != value}
        assert not differs, f"client_context.custom should hold {expected}; it differs in {differs}"

    # --- logs and measures ---

    @pytest.mark.capability(Capability.LOGS)
    def test_what_the_handler_prints_is_in_the_log_tail(self, plane: Invoker) -> None:
        """What the handler prints must be in `log_tail`. Users need it to understand a failure on another machine.
        Read: spi.Capability.LOGS."""
        tail = self.call(plane, "say", text="printed: é").log_tail.decode()
        assert tail.count("printed: é") == 1, f"the handler printed a line once, and the log tail is {tail!r}"
        errors = self.call(plane, "say", text="printed on the standard error", stream="stderr").log_tail
        assert b"printed on the standard error" in errors, (
            f"the handler printed a line on its standard error, and the log tail is {errors!r}"
        )
        frames = [word for word in ("START RequestId", "END RequestId", "REPORT RequestId") if word in tail]
        assert not frames, f"the log tail holds {', '.join(frames)}, which is not the handler's"

    @pytest.mark.capability(Capability.LOGS)
    def test_a_log_tail_is_the_end_and_4_kb_at_most(self, plane: Invoker) -> None:
        """`log_tail` must be the last 4 KB at most, as on Lambda, so that results stay small.
        Read: spi.Outcome.log_tail."""
        text = "".join(f"line {number:05} é価\n" for number in range(1000))
        tail = self.call(plane, "say", text=text).log_tail
        assert len(tail) <= 4096, f"the log tail has {len(tail)} bytes, 4096 at most"
        assert b"line 00999" in tail, "the log tail is the end of the log; the last line is not in it"
        seconds = 0.6 * self.wait_factor  # a plane may read what long tasks print while they run
        first = ("of the first part\n" * 300).encode().hex()
        tail = self.call(plane, "say", hex=first, seconds=seconds, text=text).log_tail
        assert len(tail) <= 4096, (
            f"a handler printed 5 KB, and more {seconds:g} s later; the log tail has {len(tail)} bytes, 4096 at most"
        )
        tail = self.call(plane, "say", hex=first, seconds=seconds, text="of the second part").log_tail
        assert b"of the first part\nof the second part" in tail, (
            f"a handler printed 5 KB, and a line {seconds:g} s later; the log tail ends with {tail[-60:]!r}"
        )
        early = b"of the beginning\n".hex()
        for _ in range(2):
            tail = self.call(plane, "say", hex=early, seconds=seconds, text="of the end").log_tail
            assert (tail.count(b"of the beginning"), tail.count(b"of the end")) == (1, 1), (
                f"a handler printed a line, and another {seconds:g} s later; the log tail is {tail!r}"
            )

    @pytest.mark.capability(Capability.LOGS)
    def test_a_log_tail_is_of_one_invocation(self, plane: Invoker) -> None:
        """`log_tail` must contain what this invocation printed and nothing of others, which may be secrets of another
        user. Read: spi.Outcome.log_tail."""
        lines = min(120_000, (self.largest_event or limits.REQUEST_BYTES) // 20)  # more than a place keeps of a log
        self.call(plane, "say", text="of the first\n" * lines)
        for _ in range(plane.max_concurrency):
            tail = self.call(plane, "say", text="of the second").log_tail
            assert b"of the first" not in tail, f"the log tail has lines of an earlier invocation: {tail!r}"
            assert b"of the second" in tail, f"after one that printed {lines} lines, the log tail is {tail!r}"
            assert b"\0" not in tail, f"after one that printed {lines} lines, the log tail has NULs: {tail[:60]!r}"

    @pytest.mark.capability(Capability.LOGS, Capability.EXIT)
    def test_the_log_of_a_handler_that_failed_is_kept(self, plane: Invoker) -> None:
        """`log_tail` of a failure must contain the last line that was printed: it is the one that users look for.
        Read: spi.Outcome.log_tail."""
        tail = self.call(plane, "end", status=3, at_once=True).log_tail
        assert b"ending" in tail, f"the handler printed a line and ended its process; the log tail is {tail!r}"

    @pytest.mark.capability(Capability.METERING)
    def test_times_and_memory_are_measured(self, plane: Invoker) -> None:
        """Times and memory must be measured. The bill depends on them, and users choose `memory` and `timeout` by them.
        Read: spi.Outcome."""
        self.works(plane)
        before = time.time()
        outcome = self.call(plane, "sleep", seconds=0.3)
        after = time.time()
        # 299: a runtime whose timers count whole milliseconds, as Node's do, may wake up to one early.
        assert 299 <= outcome.duration_ms <= (after - before) * 1000 + 50, (
            f"a handler of 300 ms, called in {(after - before) * 1000:.0f} ms, has a duration_ms of {outcome.duration_ms}"
        )
        assert outcome.billed_ms >= 299, f"a handler of 300 ms is billed {outcome.billed_ms} ms"
        assert outcome.max_memory_mb > 0, f"max_memory_mb is {outcome.max_memory_mb}"
        assert before - 5 <= outcome.started <= after + 5, f"`started` is {outcome.started}; it is in Unix seconds, now"
        assert outcome.environment, "`environment` is empty: name the execution environment"

    @pytest.mark.capability(Capability.METERING)
    def test_init_ms_is_of_the_first_invocation_of_an_environment(self, invoker: Invoker) -> None:
        """`init_ms` must be set for the first invocation of an environment and for no other: cold starts are counted by
        it. Read: spi.Outcome."""
        with self.again(invoker) as plane:
            outcomes = [self.call(plane, "fail")]  # also where the first one fails
            outcomes += [self.call(plane, "count") for _ in range(2 * min(plane.max_concurrency, 8) + 2)]
        for outcome in outcomes:
            # By the handler's own count: an environment of a service may have run before this plane was opened.
            if outcome.failure is FailureKind.HANDLER_ERROR:
                first = json.loads(outcome.payload)["errorMessage"].endswith(" 1")
            else:
                first = self.answer(outcome)["execution"] == 1
            assert (outcome.init_ms is not None) is first, (
                f"init_ms is {outcome.init_ms} on {'the first' if first else 'a later'} invocation "
                f"of environment {outcome.environment}"
            )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 200 else f"{text[:100]}... ({len(text)} characters)"

"""What every compute plane must do: `spi.Invoker`, rule by rule."""

import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from htcgrid.runtime import limits
from htcgrid.spi import Capability, FailureKind, Function, HtcgridError, Invoker, Lease, Outcome, Task, Unstarted

from htcgrid_contracts.common import PluginContract, eventually, in_threads, not_asked, unique_id
from htcgrid_contracts.packing import contract_function

_OPENED = pytest.StashKey[Invoker | HtcgridError]()

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


class InvokerWords(PluginContract):
    """Fixtures and words that the rules about invokers are written in."""

    short_timeout: float = 1.0
    """Seconds given to `invoke` where a rule wants a timeout. Where the plane knows only the timeout that
    it was deployed with, that one."""

    largest_event: int | None = limits.REQUEST_BYTES
    """Bytes of the largest event that the plane takes; None: no limit is asked for."""

    largest_answer: int | None = limits.RESPONSE_BYTES
    """Bytes of the largest answer that the plane takes; None: no limit is asked for."""

    most_threads: int = 8
    """Of a plane that declares more environments, only so many are tried side by side."""

    # --- what a subclass gives ---

    @pytest.fixture
    def function(self) -> Function:
        """The kit's handler, from its folder on this machine. Override it where the plane deploys otherwise."""
        return contract_function()

    @pytest.fixture
    def invoker(self, function: Function) -> Invoker:
        """The plane, not opened, serving the kit's handler. One is opened, and serves all rules."""
        pytest.fail("override the fixture `invoker`: return the plane, not opened, serving `function`")

    def serving(self, invoker: Invoker, function: Function) -> Invoker:
        """A plane like this one, not opened, that serves another function of the kit."""
        return type(invoker)(invoker.config, function)

    def marks(self, folder: Path) -> str | None:
        """The path at which handlers see this folder of the test, where they share a disk with it."""
        return None

    # --- fixtures ---

    @pytest.fixture
    def plugin(self, invoker: Invoker) -> Invoker:
        return invoker

    @pytest.fixture
    def plane(self, invoker: Invoker, request: pytest.FixtureRequest) -> Invoker:
        """The plane, opened: the same one for all rules of a class, since opening may mean deploying."""
        rules = request.node.getparent(pytest.Class)
        if _OPENED not in rules.stash:
            try:
                invoker.open()
            except HtcgridError as error:
                rules.stash[_OPENED] = error
            else:
                rules.stash[_OPENED] = invoker
                rules.addfinalizer(invoker.close)
        opened: Invoker | HtcgridError = rules.stash[_OPENED]
        if isinstance(opened, HtcgridError):
            pytest.fail(f"the plane could not be opened: {type(opened).__name__}: {opened}", pytrace=False)
        return opened

    @pytest.fixture(autouse=True)
    def _only_what_is_claimed(self, invoker: Invoker, request: pytest.FixtureRequest) -> None:
        """Leave a rule out where the plane does not claim what it is about."""
        for mark in request.node.iter_markers("capability"):
            for capability in mark.args:
                if capability not in invoker.capabilities:
                    not_asked(f"the plane does not claim Capability.{capability.name}")

    # --- words ---

    def call(self, plane: Invoker, do: str, timeout: float | None = None, **event: Any) -> Outcome:
        """Invoke the handler once; returns its outcome."""
        return self.run(plane, [lease(do, **event)], timeout)[0]

    def run(self, plane: Invoker, batch: Sequence[Lease], timeout: float | None = None) -> list[Outcome]:
        """Invoke these until each has an outcome: what is reported as not started goes in again."""
        outcomes: dict[str, Outcome] = {}
        left = list(batch)
        for _ in range(20):
            for report in self.reports(plane, left, timeout):
                if isinstance(report, Outcome):
                    outcomes[report.task_id] = report
            left = [each for each in left if each.task.id not in outcomes]
            if not left:
                return [outcomes[each.task.id] for each in batch]
        pytest.fail(f"{left[0].task.id} was reported as Unstarted 20 times in a row, alone in its environment")

    def reports(
        self, plane: Invoker, batch: Sequence[Lease], timeout: float | None = None
    ) -> list[Outcome | Unstarted]:
        """Invoke these once; returns the reports, which must be one a task."""
        reports = list(plane.invoke(batch, timeout or plane.function.timeout))
        reported = [report.task_id for report in reports]
        expected = sorted(each.task.id for each in batch)
        assert sorted(reported) == expected, f"invoked {expected} and was told of {sorted(reported)}: one report a task"
        return reports

    def answer(self, outcome: Outcome) -> Any:
        """The handler's answer, parsed."""
        assert outcome.failure is None, f"the handler answered, and the outcome is {outcome.failure}: {_text(outcome)}"
        return json.loads(outcome.payload)

    def failed(self, outcome: Outcome, kind: FailureKind) -> Mapping[str, Any]:
        """The error document of a failure of this kind."""
        assert outcome.failure is kind, (
            f"this is a failure of kind {kind}, reported as {outcome.failure}: {_text(outcome)}"
        )
        try:
            document = json.loads(outcome.payload)
        except ValueError:
            pytest.fail(f"the payload of a failure is a JSON document; this is {_text(outcome)}")
        assert isinstance(document, dict), f"an error document is an object; this is {_text(outcome)}"
        missing = {"errorType", "errorMessage"} - document.keys()
        assert not missing, f"the error document lacks {', '.join(sorted(missing))}: {_text(outcome)}"
        return document

    def works(self, plane: Invoker) -> None:
        """The next call works."""
        assert self.answer(self.call(plane, "echo", value="next")) == "next"


class InvokerContract(InvokerWords):
    """Subclass it, and give the fixture `invoker`: the plane, not opened, serving `function`.

    One is opened, and serves all rules but those about opening. Its `capabilities` decide what is
    asked. See `InvokerWords` and `PluginContract` for what else may be overridden.
    """

    # --- answers ---

    @pytest.mark.parametrize("name", ROUND_TRIP)
    def test_an_event_comes_back_as_it_was_sent(self, plane: Invoker, name: str) -> None:
        """An event reaches the handler, and its answer comes back, as JSON has it. Read: spi, rules for all three."""
        answer = self.answer(self.call(plane, "echo", value=ROUND_TRIP[name]))
        assert answer == ROUND_TRIP[name], f"sent {_short(ROUND_TRIP[name])}, it came back as {_short(answer)}"

    def test_each_task_of_a_batch_is_reported_once(self, plane: Invoker) -> None:
        """A task that is not reported is never acked. Read: spi.Invoker.invoke."""
        assert plane.max_batch >= 1, f"max_batch = {plane.max_batch}; it is 1 at least"
        batch = [lease("echo", value=number) for number in range(min(plane.max_batch, 50))]
        outcomes = self.run(plane, batch)
        answers = [self.answer(outcome) for outcome in outcomes]
        assert answers == list(range(len(batch))), "the outcomes of a batch are of other tasks than they say"

    def test_an_outcome_is_one_execution(self, plane: Invoker) -> None:
        """Retries hidden in an SDK run a task twice. Read: spi, one attempt."""
        self._each_counted([self.answer(self.call(plane, "count")) for _ in range(6)])

    def test_a_slow_outcome_is_one_execution(self, plane: Invoker) -> None:
        """An SDK that gives up reading before the handler answers sends it again. Read: spi, one attempt."""
        slow = min(3 * self.patience, 0.5 * plane.function.timeout)
        self._each_counted([self.answer(self.call(plane, "count", seconds=seconds)) for seconds in (0, slow, 0)])

    def test_a_failed_outcome_is_one_execution(self, plane: Invoker) -> None:
        """The agent decides on retries, kind by kind. Read: spi, one attempt."""
        executions = []
        for _ in range(4):
            document = self.failed(self.call(plane, "fail"), FailureKind.HANDLER_ERROR)
            *_, environment, execution = document["errorMessage"].split()
            executions.append({"environment": environment, "execution": int(execution)})
        self._each_counted(executions)

    def test_a_handler_that_ends_its_process_ran_once(self, plane: Invoker, tmp_path: Path) -> None:
        """Such a task is likely to do it again: the agent counts. Read: spi, one attempt."""
        seen = self.marks(tmp_path)
        if seen is None:
            not_asked("override `marks(folder)`: the path at which handlers see that folder, where they can")
        self.call(plane, "end", status=3, mark=f"{seen}/marks")
        self.works(plane)
        lines = (tmp_path / "marks").read_text().splitlines()
        assert len(lines) == 1, f"one invocation of a handler that ends its process ran {len(lines)} times"

    @pytest.mark.capability(Capability.ERRORS)
    def test_a_document_that_looks_like_an_error_is_an_answer(self, plane: Invoker) -> None:
        """Handlers return what they like; on Lambda this is an answer. Read: spi.Capability.ERRORS."""
        answer = self.answer(self.call(plane, "looks_like_an_error"))
        assert answer["errorMessage"] == "an answer"

    # --- failures, and the call after them ---

    def test_a_handler_that_raises_is_a_handler_error(self, plane: Invoker) -> None:
        """Its document is the one that Lambda gives. Read: spi.FailureKind.HANDLER_ERROR."""
        document = self.failed(self.call(plane, "fail", message="told to ünicode"), FailureKind.HANDLER_ERROR)
        assert document["errorType"] == "ContractError", (
            f"errorType is the class's name; this is {document['errorType']}"
        )
        assert document["errorMessage"].startswith("told to ünicode ")
        assert isinstance(document.get("stackTrace"), list), "the document lacks its stackTrace, a list of texts"
        self.works(plane)

    def test_an_answer_that_json_cannot_hold_is_a_handler_error(self, plane: Invoker) -> None:
        """So it is on Lambda. Read: spi.FailureKind.HANDLER_ERROR."""
        document = self.failed(self.call(plane, "unserialisable"), FailureKind.HANDLER_ERROR)
        assert document["errorType"] == "Runtime.MarshalError", document
        self.works(plane)

    @pytest.mark.parametrize(
        "handler", ["contract_handler.missing", "no_such_module.handler", "contract_broken_import.handler"]
    )
    def test_a_handler_that_cannot_be_loaded_is_an_init_error(self, invoker: Invoker, handler: str) -> None:
        """It will not load for the next task either, which the agent must know. Read: spi.FailureKind.INIT_ERROR."""
        with self.serving(invoker, contract_function(handler)) as plane:
            self.failed(self.call(plane, "echo", value=1), FailureKind.INIT_ERROR)
            self.failed(self.call(plane, "echo", value=2), FailureKind.INIT_ERROR)

    @pytest.mark.capability(Capability.TIMEOUT)
    @pytest.mark.parametrize("do", ["sleep", "spin"])
    def test_a_handler_past_its_timeout_is_stopped(self, plane: Invoker, do: str) -> None:
        """Whether it waits or computes. Read: spi.FailureKind.TIMEOUT."""
        seconds = self.short_timeout
        began = time.monotonic()
        outcome = self.call(plane, do, seconds, seconds=seconds + 30 * self.patience)
        took = time.monotonic() - began
        document = self.failed(outcome, FailureKind.TIMEOUT)
        assert document["errorType"] == "Sandbox.Timedout", document
        assert took < seconds + 20 * self.patience, f"a timeout of {seconds:g} s was reported after {took:.0f} s"
        self.works(plane)

    @pytest.mark.capability(Capability.MEMORY)
    def test_a_handler_past_its_memory_is_stopped(self, plane: Invoker) -> None:
        """One task must not take the machine with it. Read: spi.FailureKind.OUT_OF_MEMORY."""
        outcome = self.call(plane, "eat", mb=2 * plane.function.memory)
        self.failed(outcome, FailureKind.OUT_OF_MEMORY)
        self.works(plane)

    @pytest.mark.capability(Capability.EXIT)
    @pytest.mark.parametrize(
        ("do", "event", "words"),
        [
            pytest.param("end", {"status": 0}, "without providing a reason", id="sys.exit(0)"),
            pytest.param("end", {"status": 3}, "exit status 3", id="sys.exit(3)"),
            pytest.param("end", {"status": 4, "at_once": True}, "exit status 4", id="os._exit(4)"),
            pytest.param("kill", {}, "signal: killed", id="killed"),
        ],
    )
    def test_the_end_of_the_process_is_an_exit(
        self, plane: Invoker, do: str, event: dict[str, Any], words: str
    ) -> None:
        """It is seen at once, not at the timeout. Read: spi.FailureKind.EXIT."""
        document = self.failed(self.call(plane, do, **event), FailureKind.EXIT)
        assert document["errorType"] == "Runtime.ExitError", document
        assert words in document["errorMessage"], f"Lambda says {words!r} of this end; the document: {document}"
        self.works(plane)

    def test_an_answer_of_a_megabyte_passes(self, plane: Invoker) -> None:
        """Limits start where they are said to. Read: spi.FailureKind.PAYLOAD_TOO_LARGE."""
        size = min(self.largest_answer or 1_000_000, 1_000_000)
        got = len(self.answer(self.call(plane, "big", bytes=size))) + 2
        assert got == size, f"the handler answered {size} bytes, and {got} came"

    def test_an_answer_past_the_limit_is_too_large(self, plane: Invoker) -> None:
        """It is the task's failure and no fault of the plane. Read: spi.FailureKind.PAYLOAD_TOO_LARGE."""
        if self.largest_answer is None:
            not_asked("`largest_answer` is None: answers have no limit")
        self.failed(self.call(plane, "big", bytes=self.largest_answer + 1), FailureKind.PAYLOAD_TOO_LARGE)
        self.works(plane)

    def test_an_event_past_the_limit_is_too_large(self, plane: Invoker) -> None:
        """It would never pass: an outcome, not an error of the plane. Read: spi.FailureKind.PAYLOAD_TOO_LARGE."""
        if self.largest_event is None:
            not_asked("`largest_event` is None: events have no limit")
        event = lease("echo", value="x" * (self.largest_event + 1))
        self.failed(self.run(plane, [event])[0], FailureKind.PAYLOAD_TOO_LARGE)
        self.works(plane)

    # --- batches ---

    def test_a_task_behind_a_slow_one_is_given_up_at_once(self, plane: Invoker) -> None:
        """Another environment can have it: it does not wait behind the slow one. Read: spi.Unstarted."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: no task stands behind another")
        batch = [
            lease("sleep", seconds=2 * self.patience),
            *(lease("count") for _ in range(min(plane.max_batch, 4) - 1)),
        ]
        order = [report.task_id for report in self.reports(plane, batch)]
        assert order[-1] == batch[0].task.id, "tasks behind a slow one were reported after it: report them as Unstarted"

    def test_a_task_given_up_was_not_run(self, plane: Invoker) -> None:
        """It runs elsewhere: here it would have run twice. Read: spi.Unstarted."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: no task stands behind another")
        batch = [lease("count", seconds=seconds) for seconds in (0, 1 * self.patience, 0, 0)[: plane.max_batch]]
        self._each_counted([self.answer(outcome) for outcome in self.run(plane, batch)])

    def test_a_task_that_ends_its_environment_takes_no_other_with_it(self, plane: Invoker) -> None:
        """The failure is its own; the others go to another environment. Read: spi.Invoker.invoke."""
        if plane.max_batch < 3:
            not_asked(f"max_batch is {plane.max_batch}: this rule takes batches of 3")
        before, culprit, after = lease("echo", value=1), lease("end", status=3), lease("echo", value=2)
        outcomes = self.run(plane, [before, culprit, after])
        assert outcomes[1].failure is not None, "the handler ended its process, and its outcome says it answered"
        others = [outcome.failure for outcome in outcomes[::2] if outcome.failure]
        assert not others, f"one task of the batch ended its process, and another was reported as {others[0]}"

    # --- concurrency ---

    def test_as_many_invocations_run_at_the_same_time_as_are_declared(self, plane: Invoker) -> None:
        """The agent runs that many threads, and no more. Read: spi.Invoker.max_concurrency."""
        assert plane.max_concurrency >= 1, f"max_concurrency = {plane.max_concurrency}; it is 1 at least"
        size = min(plane.max_concurrency, self.most_threads)
        if size == 1:
            not_asked("max_concurrency is 1; configure the fixture for 2 environments, if the plane can have them")
        in_threads([lambda: self.works(plane)] * size, 60 * self.patience)
        calls = [lambda: self.answer(self.call(plane, "count", seconds=2 * self.patience))] * size
        answers = in_threads(calls, 60 * self.patience)
        overlap = min(each["ended"] for each in answers) - max(each["began"] for each in answers)
        assert overlap > 0, f"{size} invocations were not under way at the same time, though max_concurrency says so"

    def test_an_environment_runs_one_invocation_at_a_time(self, plane: Invoker) -> None:
        """Handlers rely on it: module globals are theirs alone. Read: spi.Invoker.invoke."""
        size = min(plane.max_concurrency, self.most_threads)
        answers = in_threads(
            [lambda: self.answer(self.call(plane, "count", seconds=0.5))] * (2 * size), 60 * self.patience
        )
        for one in answers:
            for other in answers:
                if one is not other and one["environment"] == other["environment"]:
                    apart = one["ended"] <= other["began"] or other["ended"] <= one["began"]
                    assert apart, "two invocations were under way in one environment at the same time"

    def test_each_thread_gets_the_answers_to_its_own_tasks(self, plane: Invoker) -> None:
        """The agent calls from several threads at once. Read: spi, rules for all three."""
        size = min(plane.max_concurrency, self.most_threads)

        def work(thread: int) -> None:
            for number in range(10):
                answer = self.answer(self.call(plane, "echo", value=[thread, number]))
                assert answer == [thread, number], f"sent {[thread, number]} and got the answer to {answer}"

        in_threads([lambda thread=thread: work(thread) for thread in range(size)], 60 * self.patience)  # type: ignore[misc]

    # --- context ---

    def test_the_context_is_as_on_lambda(self, plane: Invoker) -> None:
        """Handlers written for Lambda read these. Read: spi.Function."""
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
        assert context["variable"] == plane.function.environment.get("CONTRACT_VARIABLE"), (
            "a variable of `[function] environment` does not reach the handler"
        )

    @pytest.mark.capability(Capability.CONTEXT)
    def test_the_context_tells_task_session_attempt_and_attributes(self, plane: Invoker) -> None:
        """In `client_context.custom`, the same on every plane. Read: spi.Capability.CONTEXT."""
        attributes = {"session_id": "session-7", "city": "Zürich"}
        asked = lease("describe", attributes=attributes, attempt=3)
        custom = self.answer(self.run(plane, [asked])[0])["custom"]
        expected = {"task_id": asked.task.id, "session_id": "session-7", "attempt": 3, "city": "Zürich"}
        assert custom is not None, "context.client_context is None"
        differs = {name: custom.get(name) for name, value in expected.items() if custom.get(name) != value}
        assert not differs, f"client_context.custom should hold {expected}; it differs in {differs}"

    # --- cancel ---

    @pytest.mark.capability(Capability.CANCEL)
    @pytest.mark.parametrize("do", ["sleep", "spin"])
    def test_cancel_stops_a_running_handler(self, plane: Invoker, do: str) -> None:
        """Within 2 s, from another thread, and its environment is free again. Read: spi.Invoker.cancel."""
        self.works(plane)
        outcome, took = self._cancelled(plane, lease(do, seconds=30 * self.patience))
        self.failed(outcome, FailureKind.CANCELLED)
        assert took < 2 * self.patience, f"a running handler was stopped {took:.1f} s after cancel; 2 s at most"
        self.works(plane)

    @pytest.mark.capability(Capability.CANCEL)
    def test_cancel_stops_the_tasks_it_names_and_no_other(self, plane: Invoker) -> None:
        """A user cancels one task of a session. Read: spi.Invoker.cancel."""
        if plane.max_concurrency == 1:
            not_asked("max_concurrency is 1: nothing runs beside the cancelled task")
        in_threads([lambda: self.works(plane)] * 2, 60 * self.patience)
        kept = lease("sleep", seconds=3 * self.patience, value="kept")
        stopped = lease("sleep", seconds=30 * self.patience)

        def run_kept() -> Outcome:
            return self.run(plane, [kept])[0]

        def run_stopped() -> Outcome:
            return self._cancelled(plane, stopped)[0]

        first, second = in_threads([run_kept, run_stopped], 90 * self.patience)
        assert self.answer(first) == "kept"
        self.failed(second, FailureKind.CANCELLED)

    def test_cancel_passes_over_tasks_that_are_not_here(self, plane: Invoker) -> None:
        """It may have ended, or run on another machine. Read: spi.Invoker.cancel."""
        plane.cancel(["contract-not-here"])
        done = lease("echo", value=1)
        self.run(plane, [done])
        plane.cancel([done.task.id])
        self.works(plane)

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_an_answer_that_comes_late_is_dropped(self, plane: Invoker) -> None:
        """A task that was stopped has its outcome; an answer after that is no other task's. Read: spi.Invoker.invoke."""
        late = lease("sleep", seconds=self.short_timeout + 0.3, value="late")
        self.failed(self.run(plane, [late], self.short_timeout)[0], FailureKind.TIMEOUT)
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            answer = self.answer(self.call(plane, "echo", value="mine"))
            assert answer == "mine", f"the answer of a task that had timed out came for another: {answer!r}"

    # --- logs and measures ---

    @pytest.mark.capability(Capability.LOGS)
    def test_what_the_handler_prints_is_in_the_log_tail(self, plane: Invoker) -> None:
        """It is how a failure on another machine is understood. Read: spi.Capability.LOGS."""
        tail = self.call(plane, "say", text="printed: é").log_tail.decode()
        assert "printed: é" in tail, f"the handler printed a line, and the log tail is {tail!r}"
        frames = [word for word in ("START RequestId", "END RequestId", "REPORT RequestId") if word in tail]
        assert not frames, f"the log tail holds {', '.join(frames)}, which is not the handler's"

    @pytest.mark.capability(Capability.LOGS)
    def test_a_log_tail_is_the_end_and_4_kb_at_most(self, plane: Invoker) -> None:
        """As on Lambda; results stay small. Read: spi.Outcome.log_tail."""
        text = "".join(f"line {number:05}\n" for number in range(1000))
        tail = self.call(plane, "say", text=text).log_tail
        assert len(tail) <= 4096, f"the log tail has {len(tail)} bytes, 4096 at most"
        assert b"line 00999" in tail, "the log tail is the end of the log; the last line is not in it"

    @pytest.mark.capability(Capability.LOGS)
    def test_a_log_tail_is_of_one_invocation(self, plane: Invoker) -> None:
        """What another task printed may be a secret of another user. Read: spi.Outcome.log_tail."""
        self.call(plane, "say", text="of the first")
        for _ in range(plane.max_concurrency):
            tail = self.call(plane, "say", text="of the second").log_tail
            assert b"of the first" not in tail, f"the log tail has lines of an earlier invocation: {tail!r}"

    @pytest.mark.capability(Capability.LOGS, Capability.EXIT)
    def test_the_log_of_a_handler_that_failed_is_kept(self, plane: Invoker) -> None:
        """The last line before the end is the one that is looked for. Read: spi.Outcome.log_tail."""
        tail = self.call(plane, "end", status=3, at_once=True).log_tail
        assert b"ending" in tail, f"the handler printed a line and ended its process; the log tail is {tail!r}"

    @pytest.mark.capability(Capability.METERING)
    def test_times_and_memory_are_measured(self, plane: Invoker) -> None:
        """The bill, and the choice of `memory` and `timeout`, stand on them. Read: spi.Outcome."""
        self.works(plane)
        before = time.time()
        outcome = self.call(plane, "sleep", seconds=0.3)
        after = time.time()
        assert 300 <= outcome.duration_ms <= (after - before) * 1000 + 50, (
            f"a handler of 300 ms, called in {(after - before) * 1000:.0f} ms, has a duration_ms of {outcome.duration_ms}"
        )
        assert outcome.billed_ms >= 300, f"a handler of 300 ms is billed {outcome.billed_ms} ms"
        assert outcome.max_memory_mb > 0, f"max_memory_mb is {outcome.max_memory_mb}"
        assert before - 5 <= outcome.started <= after + 5, f"`started` is {outcome.started}; it is in Unix seconds, now"
        assert outcome.environment, "`environment` is empty: name the execution environment"

    @pytest.mark.capability(Capability.METERING)
    def test_init_ms_is_of_the_first_invocation_of_an_environment(self, invoker: Invoker) -> None:
        """Cold starts are counted by it. Read: spi.Outcome."""
        with self.again(invoker) as plane:
            outcomes = [self.call(plane, "echo", value=1) for _ in range(2 * min(plane.max_concurrency, 8) + 2)]
        seen: set[str] = set()
        for outcome in outcomes:
            first = outcome.environment not in seen
            seen.add(outcome.environment)
            assert (outcome.init_ms is not None) is first, (
                f"init_ms is {outcome.init_ms} on {'the first' if first else 'a later'} invocation "
                f"of environment {outcome.environment}"
            )

    # --- the plane as a whole ---

    def test_a_plane_that_is_open_twice_serves_twice(self, plane: Invoker) -> None:
        """Two agents on a machine do not know of each other. Read: spi.Plugin."""
        with self.again(plane) as other:
            self.works(other)
        self.works(plane)

    def test_a_plane_that_went_away_is_unavailable(self, invoker: Invoker) -> None:
        """The agent waits with back-off and tries again, uncounted. Read: spi.Unavailable."""
        with self.again(invoker) as plane:
            self.works(plane)
            self.take_away(plane)
            with self.unavailable("invoke"):
                list(plane.invoke([lease("echo", value=1)], plane.function.timeout))

    # --- words ---

    def _each_counted(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Executions that were reported follow on each other: in no environment is there one in between."""
        last: dict[str, int] = {}
        for each in sorted(answers, key=lambda each: int(each["execution"])):
            expected = last.get(each["environment"], each["execution"] - 1) + 1
            assert each["execution"] == expected, (
                f"{each['execution'] - expected} executions in this environment were never reported: "
                f"the handler ran more often than it was invoked. Switch off the retries of the SDK"
            )
            last[each["environment"]] = each["execution"]

    def _cancelled(self, plane: Invoker, asked: Lease) -> tuple[Outcome, float]:
        """Invoke, let it get under way, cancel; returns the outcome and how many seconds after the cancel it came."""
        ended: list[tuple[Outcome, float]] = []

        def work() -> None:
            ended.append((self.run(plane, [asked], 6 * self.patience)[0], time.monotonic()))

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        time.sleep(1.0 * self.patience)
        assert thread.is_alive(), "the handler had ended before it was cancelled"
        cancelled = time.monotonic()
        plane.cancel([asked.task.id])
        eventually(lambda: bool(ended), plane.function.timeout + 30 * self.patience, "an outcome after `cancel`")
        return ended[0][0], ended[0][1] - cancelled


def lease(do: str, attributes: Mapping[str, str] | None = None, attempt: int = 1, **event: Any) -> Lease:
    """A task that tells the kit's handler what to do."""
    payload = json.dumps({"do": do, **event}).encode()
    return Lease(Task(unique_id(), payload, attributes or {}), attempt)


def _text(outcome: Outcome) -> str:
    return outcome.payload[:500].decode(errors="replace")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) < 200 else f"{text[:100]}... ({len(text)} characters)"

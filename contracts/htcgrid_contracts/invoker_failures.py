"""What an invocation reports when the handler fails, and what happens to the tasks of its batch."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, Outcome

from htcgrid_contracts.common import in_threads, not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease
from htcgrid_contracts.packing import contract_function


class FailureRules(InvokerHelpers):
    """Each kind of failure, the call after it, and batches."""

    # --- failures, and the call after them ---

    def test_a_handler_that_raises_is_a_handler_error(self, plane: Invoker) -> None:
        """When the handler raises, the failure must be HANDLER_ERROR with the error document that Lambda gives.
        Read: spi.FailureKind.HANDLER_ERROR."""
        document = self.failed(self.call(plane, "fail", message="told to ünicode"), FailureKind.HANDLER_ERROR)
        assert document["errorType"] == "ContractError", (
            f"errorType is the class's name; this is {document['errorType']}"
        )
        assert document["errorMessage"].startswith("told to ünicode ")
        assert isinstance(document.get("stackTrace"), list), "the document lacks its stackTrace, a list of texts"
        wrong = [line for line in document["stackTrace"] if not isinstance(line, str)]
        assert not wrong, f"stackTrace is a list of texts, and holds {wrong[0]!r}"
        trace = document["stackTrace"]
        is_whole = not trace or any("fail" in line for line in trace)  # not every language has one
        assert is_whole, f"the function `fail` raised, and stackTrace does not name it: {trace}"
        message = "line of a long message\n" * 150 + "its end"
        document = self.failed(self.call(plane, "fail", message=message), FailureKind.HANDLER_ERROR)
        assert document["errorMessage"].startswith(message), (
            f"an error's message of {len(message)} characters came with {len(document['errorMessage'])}"
        )
        self.works(plane)

    def test_an_answer_that_json_cannot_hold_is_a_handler_error(self, plane: Invoker) -> None:
        """When the answer cannot be written as JSON, the failure must be HANDLER_ERROR, as on Lambda.
        Read: spi.FailureKind.HANDLER_ERROR."""
        document = self.failed(self.call(plane, "unserialisable"), FailureKind.HANDLER_ERROR)
        assert document["errorType"] == "Runtime.MarshalError", document
        self.works(plane)

    @pytest.mark.parametrize(
        "handler", ["contract_handler.missing", "no_such_module.handler", "contract_broken_import.handler"]
    )
    def test_a_handler_that_cannot_be_loaded_is_an_init_error(self, invoker: Invoker, handler: str) -> None:
        """When the handler cannot be loaded, the failure must be INIT_ERROR. The agent must know, since the next task
        would fail too. Read: spi.FailureKind.INIT_ERROR."""
        with self.serving(invoker, contract_function(handler)) as plane:
            calls = [lambda: self.failed(self.call(plane, "echo", value=1), FailureKind.INIT_ERROR)]
            for _ in range(min(plane.max_concurrency, 4) + 1):  # each may take a slot
                in_threads(calls, 60 * self.wait_factor)
            if plane.max_batch > 1:
                reports = self.reports(plane, [lease("echo", value=1) for _ in range(min(plane.max_batch, 3))])
                failed = sum(isinstance(report, Outcome) for report in reports)
                assert failed <= 1, (
                    f"a handler cannot be loaded, and {failed} tasks of a batch failed by it: those that were not begun are "
                    f"Unstarted"
                )

    @pytest.mark.capability(Capability.TIMEOUT)
    @pytest.mark.parametrize("do", ["sleep", "spin"])
    def test_a_handler_past_its_timeout_is_stopped(self, plane: Invoker, do: str) -> None:
        """A handler that runs longer than its timeout must be stopped, whether it waits or computes.
        Read: spi.FailureKind.TIMEOUT."""
        seconds = self.quick_timeout
        began = time.monotonic()
        outcome = self.call(plane, do, seconds, seconds=seconds + 30 * self.wait_factor)
        took = time.monotonic() - began
        document = self.failed(outcome, FailureKind.TIMEOUT)
        assert document["errorType"] == "Sandbox.Timedout", document
        said = f"Task timed out after {seconds:.2f} seconds"
        assert said in document["errorMessage"], f"Lambda says {said!r} of this; the document: {document}"
        assert took < seconds + 20 * self.wait_factor, f"a timeout of {seconds:g} s was reported after {took:.0f} s"
        self.works(plane)

    @pytest.mark.capability(Capability.MEMORY)
    def test_a_handler_past_its_memory_is_stopped(self, plane: Invoker) -> None:
        """A handler that uses more than its memory must be stopped. One task must not make the whole machine fail.
        Read: spi.FailureKind.OUT_OF_MEMORY."""
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
            pytest.param("kill", {"signal": signal.SIGTERM}, "signal: terminated", id="terminated"),
        ],
    )
    def test_the_end_of_the_process_is_an_exit(
        self, plane: Invoker, do: str, event: dict[str, Any], words: str
    ) -> None:
        """When the handler ends its process, the failure must be EXIT, and it must come at once, not at the timeout.
        Read: spi.FailureKind.EXIT."""
        document = self.failed(self.call(plane, do, **event), FailureKind.EXIT)
        assert document["errorType"] == "Runtime.ExitError", document
        assert words in document["errorMessage"], f"Lambda says {words!r} of this end; the document: {document}"
        self.works(plane)

    @pytest.mark.capability(Capability.EXIT)
    def test_the_end_of_a_process_that_leaves_a_child_is_seen_at_once(self, plane: Invoker) -> None:
        """When the handler ends its process, the outcome must come at once, also if a program that it started runs on. Who
        waits for the end of the output waits for that program. Read: spi.Capability.EXIT."""
        self.works(plane)
        took = float("inf")
        for child in (3 + 4 * self.wait_factor, 4 + 4 * self.wait_factor):  # a busy machine may be late once
            began = time.monotonic()
            self.failed(self.call(plane, "end", status=3, at_once=True, child=child), FailureKind.EXIT)
            took = time.monotonic() - began
            if took < 3 * self.wait_factor:
                break
        assert took < 3 * self.wait_factor, (
            f"a handler ended its process and left a program that runs for {child:g} s; its end was seen after {took:.1f} s"
        )
        self.works(plane)

    @pytest.mark.capability(Capability.EXIT)
    def test_an_environment_that_ends_while_it_is_idle_fails_no_task(self, plane: Invoker) -> None:
        """An environment that ended between two tasks must be replaced before the next: the task has run no handler, and an EXIT
        would count as its attempt. Read: spi.FailureKind.EXIT."""
        if self.behind_emulator:
            not_asked("AWS's emulator sees the end of its runtime with the next task")
        size = min(plane.max_concurrency, self.most_threads)
        self.answer(self.call(plane, "end_later", seconds=0.3))
        time.sleep(0.3 + 1.0 * self.wait_factor)
        for _ in range(size + 1):
            outcome = self.call(plane, "echo", value=1)
            assert outcome.failure is None, (
                f"a handler answered, and its process ended later; a task that came a second after that is reported as "
                f"{outcome.failure}"
            )

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_a_handler_that_is_stopped_does_not_run_on(self, plane: Invoker, tmp_path: Path) -> None:
        """A handler that is reported as stopped must not run on behind that, nor a process that it has started: its retry
        runs meanwhile, and its work would be done twice. Read: spi.Capability.TIMEOUT."""
        seen = self.marks(tmp_path)
        if seen is None:
            not_asked(
                "give --marks, or override `marks(folder)`: the path at which handlers see a folder of this machine"
            )
        seconds = self.quick_timeout
        late = seconds + 1.5 * self.wait_factor
        ends = {}
        for do in ("sleep", "spawn"):
            ends[do] = time.monotonic() + late
            outcome = self.call(plane, do, seconds, seconds=late, mark=f"{seen}/began", after=f"{seen}/{do}")
            if outcome.failure is None:
                not_asked("this machine is too busy to stop a handler in time")
            self.failed(outcome, FailureKind.TIMEOUT)
        for do, what in {"sleep": "it", "spawn": "a process that it had started"}.items():
            time.sleep(max(0.0, ends[do] + 1.0 * self.wait_factor - time.monotonic()))
            assert not (tmp_path / do).exists(), (
                f"a handler was reported as stopped after {seconds:g} s, and {what} ran on to its end after {late:g} s"
            )

    def test_an_answer_of_a_megabyte_passes(self, plane: Invoker) -> None:
        """An answer of one megabyte must pass: it is below the limit. Read: spi.FailureKind.PAYLOAD_TOO_LARGE."""
        size = min(self.largest_answer or 1_000_000, 1_000_000)
        got = len(self.answer(self.call(plane, "big", bytes=size))) + 2
        assert got == size, f"the handler answered {size} bytes, and {got} came"

    def test_an_answer_past_the_limit_is_too_large(self, plane: Invoker) -> None:
        """An answer above the limit must be PAYLOAD_TOO_LARGE. It is a failure of the task, not an error of the plane.
        Read: spi.FailureKind.PAYLOAD_TOO_LARGE."""
        if self.largest_answer is None:
            not_asked("`largest_answer` is None: answers have no limit")
        document = self.failed(self.call(plane, "big", bytes=self.largest_answer + 1), FailureKind.PAYLOAD_TOO_LARGE)
        assert document["errorType"] == "Function.ResponseSizeTooLarge", (
            f"its errorType is Function.ResponseSizeTooLarge; the document: {document}"
        )
        self.works(plane)

    def test_an_event_past_the_limit_is_too_large(self, plane: Invoker) -> None:
        """An event above the limit must be PAYLOAD_TOO_LARGE. An error of the plane would be tried again for ever.
        Read: spi.FailureKind.PAYLOAD_TOO_LARGE."""
        if self.largest_event is None:
            not_asked("`largest_event` is None: events have no limit")
        for letter in ("x", "é"):  # the limit is in bytes
            asked = lease("echo")
            room = self.largest_event + 1 - len(b'{"do": "echo", "value": ""}')
            size = len(letter.encode())
            text = letter * (room // size) + "x" * (room % size)
            payload = json.dumps({"do": "echo", "value": text}, ensure_ascii=False).encode()
            asked = replace(asked, task=replace(asked.task, payload=payload))
            document = self.failed(self.run(plane, [asked])[0], FailureKind.PAYLOAD_TOO_LARGE)
            assert document["errorType"] == "RequestTooLargeException", (
                f"its errorType is RequestTooLargeException; the document: {document}"
            )
        self.works(plane)

    # --- batches ---

    def test_a_task_behind_a_slow_one_is_given_up_at_once(self, plane: Invoker) -> None:
        """A task that waits behind a slow one must be reported as Unstarted before the slow one ends. Another
        environment can then run it. Read: spi.Unstarted."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: no task waits behind another")
        last = slow = ""
        for seconds in (0.6 * self.wait_factor, 2 * self.wait_factor):
            others = [lease("count") for _ in range(min(plane.max_batch, 4) - 1)]
            batch = [lease("sleep", seconds=seconds), *others]
            slow, last = batch[0].task.id, self.reports(plane, batch)[-1].task_id
            if slow == last:
                break
        assert slow == last, "tasks behind a slow one were reported after it: report them as Unstarted"

    def test_a_task_given_up_was_not_run(self, plane: Invoker) -> None:
        """A task that is reported as Unstarted must not run here. It runs elsewhere, and would run twice.
        Read: spi.Unstarted."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: no task waits behind another")
        batch = [lease("count", seconds=seconds) for seconds in (0, 1 * self.wait_factor, 0, 0)[: plane.max_batch]]
        self.each_counted([self.answer(outcome) for outcome in self.run(plane, batch)])

    def test_a_task_that_ends_its_environment_takes_no_other_with_it(self, plane: Invoker) -> None:
        """When a task ends its environment, only this task must fail. The others of its batch go to another
        environment. Read: spi.Invoker.invoke."""
        if plane.max_batch < 3:
            not_asked(f"max_batch is {plane.max_batch}: this rule takes batches of 3")
        before, culprit, after = lease("echo", value=1), lease("end", status=3), lease("echo", value=2)
        outcomes = self.run(plane, [before, culprit, after])
        assert outcomes[1].failure is not None, "the handler ended its process, and its outcome says it answered"
        others = [outcome.failure for outcome in outcomes[::2] if outcome.failure]
        assert not others, f"one task of the batch ended its process, and another was reported as {others[0]}"

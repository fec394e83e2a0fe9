"""For every rule about invokers a plane that breaks it. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import json
import math
import os
import pickle
import signal
import tempfile
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from htcgrid_contracts import InvokerContract
from htcgrid_contracts.common import descendants
from htcgrid_contracts.invoker_identity import IssuedCredentials

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import (
    STDOUT_OR_STDERR,
    Capability,
    Credentials,
    CredentialSource,
    EnvironmentEnded,
    FailureKind,
    Function,
    HandlerOutput,
    HtcgridError,
    Invoker,
    Lease,
    Observation,
    Observers,
    Outcome,
    Rejected,
    Throttled,
    Unavailable,
    Unstarted,
)

Reports = Iterator[Outcome | Unstarted]


class Reference(ProcessInvoker):
    """A good plane: processes."""

    max_batch = 8
    away = False
    refused = 0

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        if self.refused:
            self.refused -= 1
            raise Throttled("The plane refuses this call: there are too many.")
        if self.away:
            raise self.unavailable()
        for report in super().invoke(batch, timeout):
            if self.away:
                raise self.lost(batch)
            yield report

    def lost(self, batch: Sequence[Lease]) -> Exception:
        return Unavailable("The plane went away.", begun=[lease.task.id for lease in batch])

    def unavailable(self) -> Exception:
        return Unavailable("The plane is away.")


class Case(InvokerContract):
    breaks = ""
    says = ""
    broken: type[Any] = Reference
    wait_factor = 0.5
    short_timeout = 0.5

    @pytest.fixture
    def invoker(self, function: Function) -> Invoker:
        invoker: Invoker = self.broken(self.broken.Config(workers=2), function)
        return invoker

    def marks(self, folder: Path) -> str:
        return str(folder)

    def take_away(self, plane: Reference) -> None:  # type: ignore[override]
        plane.away = True

    def bring_back(self, plane: Reference) -> None:  # type: ignore[override]
        plane.away = False

    def throttle(self, plane: Reference) -> None:  # type: ignore[override]
        plane.refused = 1


class TestReference(Case):
    """Holds every rule, on a busy machine too."""

    wait_factor = 1.0


class OfOneService(Reference):
    """Planes of one service: it is away, and throttles, for all of them."""

    is_away = False
    is_throttled = False
    running = 0
    lock = threading.Lock()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        with self.lock:
            if self.is_throttled or self.running == self.max_concurrency:
                raise Throttled("There are too many calls.")
            if self.is_away:
                raise self.unavailable()
            OfOneService.running += 1
        try:
            for report in super().invoke(batch, timeout):
                if self.is_away:
                    raise self.lost(batch)
                yield report
        finally:
            with self.lock:
                OfOneService.running -= 1


class TestOfOneServiceReference(Case):
    """It holds every rule, though it refuses what is more than its slots, and is away until it is brought back."""

    wait_factor = 1.0
    broken = OfOneService

    def take_away(self, plane: Reference) -> None:  # type: ignore[override]
        OfOneService.is_away = True

    def bring_back(self, plane: Reference) -> None:  # type: ignore[override]
        OfOneService.is_away = False

    def throttle(self, plane: Reference) -> None:  # type: ignore[override]
        OfOneService.is_throttled = True

    def end_throttle(self, plane: Reference) -> None:  # type: ignore[override]
        OfOneService.is_throttled = False


class Changed(Reference):
    """Reports another result than the handler's."""

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        for report in super().invoke(batch, timeout):
            yield self.changed(report) if isinstance(report, Outcome) else report

    def changed(self, outcome: Outcome) -> Outcome:
        raise NotImplementedError


def _is(failure: FailureKind, other: FailureKind | None) -> type[Reference]:
    """A plane that takes one kind of failure for another."""

    class Mistaken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, failure=other) if outcome.failure is failure else outcome

    return Mistaken


def _saying(text: bytes, in_place_of: bytes) -> type[Reference]:
    """A plane whose documents say this."""

    class Reworded(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, payload=outcome.payload.replace(in_place_of, text))

    return Reworded


def _with(**fields: Any) -> type[Reference]:
    """A plane whose outcomes have these fields."""

    class Fixed(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, **fields)

    return Fixed


# --- answers ---


class TestAsciiOnly(Case):
    breaks = "test_an_event_comes_back_as_it_was_sent"
    says = "it came back as"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            text = json.dumps(json.loads(outcome.payload), ensure_ascii=False).encode("ascii", "replace")
            return replace(outcome, payload=text)


class TestLosesTheLast(Case):
    breaks = "test_each_task_of_a_batch_is_reported_once"
    says = "one report a task"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            yield from super().invoke(batch[:7], timeout)


class RunsTwice(Reference):
    """What the hidden retry of an SDK comes to."""

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        list(super().invoke(batch, timeout))
        yield from super().invoke(batch, timeout)


class TestRunsTwice(Case):
    breaks = "test_an_outcome_is_one_execution"
    says = "ran more often than it was invoked"
    broken = RunsTwice


class TestRunsSlowOnesTwice(Case):
    breaks = "test_a_slow_outcome_is_one_execution"
    says = "ran more often than it was invoked"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            began = time.monotonic()
            reports = list(super().invoke(batch, timeout))
            yield from reports if time.monotonic() - began < 1 else super().invoke(batch, timeout)


class RunsFailedOnesTwice(Reference):
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        reports = list(super().invoke(batch, timeout))
        failed = any(isinstance(report, Outcome) and report.failure for report in reports)
        yield from super().invoke(batch, timeout) if failed else reports


class TestRunsFailedOnesTwice(Case):
    breaks = "test_a_failed_outcome_is_one_execution"
    says = "ran more often than it was invoked"
    broken = RunsFailedOnesTwice


class TestRunsEndedOnesTwice(Case):
    breaks = "test_a_handler_that_ends_its_process_ran_once"
    says = "ran 2 times"
    broken = RunsFailedOnesTwice


class TestReadsAnswers(Case):
    breaks = "test_a_document_that_looks_like_an_error_is_an_answer"
    says = "the handler answered, and the outcome is handler_error"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, failure=FailureKind.HANDLER_ERROR if b"errorType" in outcome.payload else None)


# --- failures ---


class TestErrorsAreAnswers(Case):
    breaks = "test_a_handler_that_raises_is_a_handler_error"
    says = "reported as None"
    broken = _is(FailureKind.HANDLER_ERROR, None)


class TestMarshalErrorsAreAnswers(Case):
    breaks = "test_an_answer_that_json_cannot_hold_is_a_handler_error"
    says = "reported as exit"
    broken = _is(FailureKind.HANDLER_ERROR, FailureKind.EXIT)


class TestInitErrorsAreHandlerErrors(Case):
    breaks = "test_a_handler_that_cannot_be_loaded_is_an_init_error"
    says = "reported as handler_error"
    broken = _is(FailureKind.INIT_ERROR, FailureKind.HANDLER_ERROR)


class TestTimeoutsAreExits(Case):
    breaks = "test_a_handler_past_its_timeout_is_stopped"
    says = "reported as exit"
    broken = _is(FailureKind.TIMEOUT, FailureKind.EXIT)


class TestMemoryIsExit(Case):
    breaks = "test_a_handler_past_its_memory_is_stopped"
    says = "reported as exit"
    broken = _is(FailureKind.OUT_OF_MEMORY, FailureKind.EXIT)


class TestExitsAreErrors(Case):
    breaks = "test_the_end_of_the_process_is_an_exit"
    says = "reported as handler_error"
    broken = _is(FailureKind.EXIT, FailureKind.HANDLER_ERROR)


class TestCutsAnswers(Case):
    breaks = "test_an_answer_of_a_megabyte_passes"
    says = "JSONDecodeError"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, payload=outcome.payload[:65536])


class TestLargeAnswersAreErrors(Case):
    breaks = "test_an_answer_past_the_limit_is_too_large"
    says = "reported as handler_error"
    broken = _is(FailureKind.PAYLOAD_TOO_LARGE, FailureKind.HANDLER_ERROR)


class TestLargeEventsAreRejected(Case):
    breaks = "test_an_event_past_the_limit_is_too_large"
    says = "Rejected"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if any(len(lease.task.payload) > 6_291_456 for lease in batch):
                raise Rejected("The event is too large for this plane.")
            yield from super().invoke(batch, timeout)


# --- batches ---


class TestUsesAnEnvironmentThatHasEnded(Case):
    breaks = "test_an_environment_that_ends_while_it_is_idle_fails_no_task"
    says = "a task that came a second after that is reported as"

    class broken(Reference):
        ended = False

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for report in super().invoke(batch, timeout):
                if self.ended and isinstance(report, Outcome):
                    self.ended = False
                    document = b'{"errorType": "Runtime.ExitError", "errorMessage": "it ended"}'
                    report = replace(report, payload=document, failure=FailureKind.EXIT)  # noqa: PLW2901
                self.ended = self.ended or any(b"end_later" in lease.task.payload for lease in batch)
                yield report


class TestSaysNotBegunAtClose(Case):
    breaks = "test_close_ends_what_runs"
    says = "its attempt counts"

    class broken(Reference):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True
            super().close()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            try:
                for report in super().invoke(batch, timeout):
                    if self.is_closed:
                        break
                    yield report
                else:
                    return
            except HtcgridError:
                if not self.is_closed:
                    raise
            raise Unavailable("The plane is closed.")


class TestTellsOfTheStartAgainAndAgain(Case):
    breaks = "test_the_start_of_an_environment_is_not_in_the_timeout"
    says = "have it in their logs"

    class broken(Reference):
        printed = b""

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome):
                    self.printed = self.printed or report.log_tail
                    report = replace(report, log_tail=self.printed)  # noqa: PLW2901
                yield report


class OneAfterTheOther(Reference):
    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        for lease in batch:
            yield from super().invoke([lease], timeout)


class TestQueuesBehindTheSlow(Case):
    breaks = "test_a_task_behind_a_slow_one_is_given_up_at_once"
    says = "report them as Unstarted"
    broken = OneAfterTheOther


class TestGivesUpWhatRan(Case):
    breaks = "test_a_task_given_up_was_not_run"
    says = "ran more often than it was invoked"

    class broken(OneAfterTheOther):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            first, *rest = super().invoke(batch, timeout)
            yield first
            yield from (Unstarted(report.task_id) for report in rest)


class TestTakesTheBatchWithIt(Case):
    breaks = "test_a_task_that_ends_its_environment_takes_no_other_with_it"
    says = "another was reported as exit"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            reports = list(super().invoke(batch, timeout))
            exits = [report for report in reports if isinstance(report, Outcome) and report.failure]
            yield from [replace(exits[0], task_id=lease.task.id) for lease in batch] if exits else reports


# --- concurrency ---


class TestSerialises(Case):
    breaks = "test_as_many_invocations_run_at_the_same_time_as_are_declared"
    says = "were not under way at the same time"

    class broken(Reference):
        def __init__(self, config: Any, function: Function) -> None:
            super().__init__(config, function)
            self.one = threading.Lock()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            with self.one:
                yield from super().invoke(batch, timeout)


class TestOneForAll(Case):
    breaks = "test_an_environment_runs_one_invocation_at_a_time"
    says = "in one environment at the same time"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            answer = json.loads(outcome.payload)
            if "environment" in answer:
                answer["environment"] = "the one and only"
            return replace(outcome, payload=json.dumps(answer).encode())


class TestMixesUp(Case):
    breaks = "test_each_thread_gets_the_answers_to_its_own_tasks"
    says = "got the answer to"

    class broken(Reference):
        latest: Outcome | None = None

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for report in super().invoke(batch, timeout):
                assert isinstance(report, Outcome)
                self.latest = report
                time.sleep(0.01)
                yield replace(self.latest, task_id=report.task_id)


# --- context ---


class OfAnotherFunction(Reference):
    """Serves the function as `served` changes it, and says that it is the one it was given."""

    def __init__(self, config: Any, function: Function) -> None:
        super().__init__(config, function.model_copy(update=self.served(function)))
        self.asked = function

    def served(self, function: Function) -> dict[str, Any]:
        raise NotImplementedError

    def open(self) -> None:
        super().open()
        self.function = self.asked


class TestTellsAnotherMemory(Case):
    breaks = "test_the_context_is_as_on_lambda"
    says = "context.memory_limit_in_mb is the function's memory as a text, 256"

    class broken(OfAnotherFunction):
        def served(self, function: Function) -> dict[str, Any]:
            return {"memory": 2 * function.memory}


class TestDropsVariables(Case):
    breaks = "test_a_handler_finds_the_variables_of_its_function"
    says = "do not reach the handler"

    class broken(OfAnotherFunction):
        def served(self, function: Function) -> dict[str, Any]:
            return {"environment": {}}


class TestDropsVariablesOfAws(Case):
    breaks = "test_a_handler_finds_the_variables_of_its_function"
    says = "the handler finds {'AWS_MAX_ATTEMPTS': None}"

    class broken(OfAnotherFunction):
        def served(self, function: Function) -> dict[str, Any]:
            own = {name: value for name, value in function.environment.items() if not name.startswith("AWS_")}
            return {"environment": own}


class TestPrefersItsOwnVariables(Case):
    breaks = "test_a_handler_finds_the_variables_of_its_function"
    says = "they are {'HOME': '/tmp'}"

    class broken(OfAnotherFunction):
        def served(self, function: Function) -> dict[str, Any]:
            return {"environment": {**function.environment, "HOME": "/home/of/the/worker"}}


class TestForgetsLayers(Case):
    breaks = "test_a_layer_is_on_the_path_of_the_handler_or_refused"
    says = "its handler cannot import what the layer holds"

    class broken(OfAnotherFunction):
        def served(self, function: Function) -> dict[str, Any]:
            return {"layers": ()}


class TestRefusesLayersInOtherWords(Case):
    breaks = "test_a_layer_is_on_the_path_of_the_handler_or_refused"
    says = "does not say so"

    class broken(Reference):
        def open(self) -> None:
            if self.function.layers:
                raise Rejected("This function does not fit.")
            super().open()


class TestNamesAFunctionInAnAddress(Case):
    breaks = "test_a_function_of_any_name_is_served_or_refused"
    says = "its context says 'contract/ü '"

    class broken(OfAnotherFunction):
        def served(self, function: Function) -> dict[str, Any]:
            return {"name": function.name.partition("#")[0]}


class TestRefusesANameInOtherWords(Case):
    breaks = "test_a_function_of_any_name_is_served_or_refused"
    says = "its message does not have the name"

    class broken(Reference):
        def open(self) -> None:
            if "/" in self.function.name:
                raise Rejected("404 Not Found")
            super().open()


class TestDropsAttempts(Case):
    breaks = "test_the_context_tells_task_session_attempt_and_attributes"
    says = "it differs in {'attempt': 1}"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            yield from super().invoke([Lease(lease.task) for lease in batch], timeout)


# --- cancel ---


class NeverCancels(Reference):
    def cancel(self, task_ids: Collection[str]) -> None:
        """Let it run on."""


class TestNeverCancels(Case):
    breaks = "test_cancel_stops_a_running_handler"
    says = "reported as timeout"
    wait_factor = 0.05

    class broken(NeverCancels):
        def __init__(self, config: Any, function: Function) -> None:
            super().__init__(config, function.model_copy(update={"timeout": 2.0}))


class TestCancelsAll(Case):
    breaks = "test_cancel_stops_the_tasks_it_names_and_no_other"
    says = "the outcome is cancelled"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            self.here = {*getattr(self, "here", ()), *(lease.task.id for lease in batch)}
            yield from super().invoke(batch, timeout)

        def cancel(self, task_ids: Collection[str]) -> None:
            super().cancel(self.here)


class TestCancelIsLoud(Case):
    breaks = "test_cancel_passes_over_tasks_that_are_not_here"
    says = "KeyError"

    class broken(Reference):
        def cancel(self, task_ids: Collection[str]) -> None:
            raise KeyError(*task_ids)


class TestLateAnswers(Case):
    breaks = "test_an_answer_that_comes_late_is_dropped"
    says = "of a task that had timed out"

    class broken(Reference):
        late: Outcome | None = None

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for report in super().invoke(batch, timeout):
                assert isinstance(report, Outcome)
                late, self.late = self.late, None
                if report.failure is FailureKind.TIMEOUT:
                    self.late = replace(report, failure=None, payload=b'"late"')
                yield replace(late, task_id=report.task_id) if late else report


# --- logs and measures ---


class TestNoLog(Case):
    breaks = "test_what_the_handler_prints_is_in_the_log_tail"
    says = "the log tail is ''"
    broken = _with(log_tail=b"")


class TestTwofoldLog(Case):
    breaks = "test_what_the_handler_prints_is_in_the_log_tail"
    says = "the handler printed a line once, and the log tail is"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, log_tail=2 * outcome.log_tail)


class TestRepeatsTheLogOfWhatRunsLong(Case):
    breaks = "test_a_log_tail_is_the_end_and_4_kb_at_most"
    says = "a handler printed a line, and another"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            is_long = outcome.duration_ms > 200 and len(outcome.log_tail) < 2000
            return replace(outcome, log_tail=(2 if is_long else 1) * outcome.log_tail)


class TestLongLog(Case):
    breaks = "test_a_log_tail_is_the_end_and_4_kb_at_most"
    says = "4096 at most"
    broken = _with(log_tail=b"line 00999\n" * 1000)


class TestLogOfAll(Case):
    breaks = "test_a_log_tail_is_of_one_invocation"
    says = "lines of an earlier invocation"

    class broken(Changed):
        log = b""

        def changed(self, outcome: Outcome) -> Outcome:
            self.log += outcome.log_tail
            return replace(outcome, log_tail=self.log)


class TestNoLogOfTheFailed(Case):
    breaks = "test_the_log_of_a_handler_that_failed_is_kept"
    says = "the log tail is b''"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, log_tail=b"") if outcome.failure else outcome


class TestNoMemory(Case):
    breaks = "test_times_and_memory_are_measured"
    says = "max_memory_mb is 0"
    broken = _with(max_memory_mb=0)


class TestAlwaysCold(Case):
    breaks = "test_init_ms_is_of_the_first_invocation_of_an_environment"
    says = "init_ms is 1.0 on a later invocation"
    broken = _with(init_ms=1.0)


# --- the plane as a whole ---


class TestOnlyOne(Case):
    breaks = "test_a_plane_that_is_open_twice_serves_twice"
    says = "another is open"

    class broken(Reference):
        opened = 0

        def open(self) -> None:
            if type(self).opened:
                raise Rejected("another is open")
            type(self).opened += 1
            super().open()

        def close(self) -> None:
            type(self).opened = 0
            super().close()


class TestCrashesWhenAway(Case):
    breaks = "test_a_plane_that_went_away_is_unavailable"
    says = "ConnectionError"

    class broken(Reference):
        def unavailable(self) -> Exception:
            return ConnectionError("connection refused")


class TestStaysAway(Case):
    breaks = "test_a_plane_that_came_back_serves_again"
    says = "it still says: The plane is away."
    wait_factor = 0.02

    class broken(Reference):
        has_been_away = False

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if self.has_been_away:
                raise self.unavailable()
            yield from super().invoke(batch, timeout)

        def unavailable(self) -> Exception:
            self.has_been_away = True
            return super().unavailable()


class TestHandsOutNoCredentials(Case):
    breaks = "test_a_handler_finds_the_credentials_of_its_function"
    says = "and the handler finds"

    class broken(Reference):
        def open(self) -> None:
            self.credentials = CredentialSource()
            super().open()


class TestLetsHandlersHaveTheAgentsCredentials(Case):
    breaks = "test_a_handler_finds_no_credentials_where_its_function_has_none"
    says = "the function has no credentials"

    class broken(Reference):
        def open(self) -> None:
            self.credentials = IssuedCredentials(3600)
            super().open()


class Kept(CredentialSource):
    """What was handed out first, as if it lived for ever."""

    def __init__(self, source: CredentialSource) -> None:
        self._first = replace(source.current(0.0), expires=math.inf)

    def current(self, timeout: float) -> Credentials:
        return self._first


class TestNeverRenewsCredentials(Case):
    breaks = "test_credentials_do_not_expire_under_an_invocation"
    says = "expired before its invocation had ended"

    class broken(Reference):
        def open(self) -> None:
            self.credentials = Kept(self.credentials)
            super().open()


class TestBeginsANewTrace(Case):
    breaks = "test_the_trace_of_the_caller_is_passed_on"
    says = "the task's traceparent says"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            own = {"AWSTraceHeader": "Root=1-00000000-000000000000000000000000;Parent=0000000000000001;Sampled=0"}
            traced = [
                replace(lease, task=replace(lease.task, attributes={**lease.task.attributes, **own})) for lease in batch
            ]
            yield from super().invoke(traced, timeout)


# --- bounds, neighbours, slots ---


class TestDoublesTimeouts(Case):
    breaks = "test_a_timeout_is_neither_shorter_nor_longer_than_given"
    says = "the outcome came after"
    short_timeout = 1.0

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            yield from super().invoke(batch, 2 * timeout)


class TestTellsHalfTheTime(Case):
    breaks = "test_the_context_tells_the_time_that_is_left"
    says = "at its start the handler has"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            yield from super().invoke(batch, timeout / 2)


class TestOneTimeoutForAll(Case):
    breaks = "test_each_task_of_a_batch_has_a_timeout_of_its_own"
    says = "the outcome is timeout"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            until = time.monotonic() + timeout
            for lease in batch:
                yield from super().invoke([lease], max(0.05, until - time.monotonic()))


class TestSeesEndsLate(Case):
    breaks = "test_the_end_of_a_process_is_seen_at_once"
    says = "and that was seen after"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            if outcome.failure is FailureKind.EXIT:
                time.sleep(1.6)
            return outcome


class TestLimitIsTooLarge(Case):
    breaks = "test_answers_and_events_up_to_the_limit_pass_whole"
    says = "an answer of exactly the limit is reported as payload_too_large"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            large = len(outcome.payload) > 6_000_000
            return replace(outcome, failure=FailureKind.PAYLOAD_TOO_LARGE) if large else outcome


class TestSortsKeys(Case):
    breaks = "test_an_answer_keeps_its_numbers_and_the_order_of_its_keys"
    says = "came"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, payload=json.dumps(json.loads(outcome.payload), sort_keys=True).encode())


class TestHalfTheMemory(Case):
    breaks = "test_the_memory_limit_is_neither_lower_nor_higher_than_given"
    says = "the outcome is out_of_memory"

    class broken(Reference):
        def environment(self, place: int) -> Any:
            asked, self.function = self.function, self.function.model_copy(update={"memory": 128})
            try:
                return super().environment(place)
            finally:
                self.function = asked


class TestEndsTheProgramsOfItsNeighbours(Case):
    breaks = "test_what_is_stopped_or_ends_harms_no_neighbour"
    says = "a program that this handler had started was ended"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            if outcome.failure is FailureKind.EXIT:
                for process in descendants(os.getpid()):
                    with suppress(OSError):
                        if Path(f"/proc/{process}/comm").read_text() == "sleep\n":
                            os.kill(process, signal.SIGKILL)
            return outcome


class TestLosesALargeOneAmongSmall(Case):
    breaks = "test_answers_and_events_up_to_the_limit_pass_whole"
    says = "one of which answers"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            reports = list(super().invoke(batch, timeout))
            sizes = [len(each.payload) for each in reports if isinstance(each, Outcome)]
            if max(sizes) < 1_000_000 or min(sizes) > 100 or len(sizes) == 1:
                return iter(reports)
            return (
                replace(each, failure=FailureKind.EXIT)
                if isinstance(each, Outcome) and len(each.payload) > 100
                else each
                for each in reports
            )


class TestEndsItsNeighbours(Case):
    breaks = "test_what_is_stopped_or_ends_harms_no_neighbour"
    says = "the outcome is exit"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            if outcome.failure is FailureKind.TIMEOUT:
                for environment in self._places:
                    with suppress(ProcessLookupError):
                        os.kill(environment._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
            return outcome


class Slots(Reference):
    """Counts its slots by itself."""

    def open(self) -> None:
        super().open()
        self.slots = threading.Semaphore(self.max_concurrency)


class TestErrorsLoseSlots(Case):
    breaks = "test_a_slot_outlives_failures"
    says = "handler_error"
    wait_factor = 0.05

    class broken(Slots):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if not self.slots.acquire(timeout=1):
                raise Unavailable("handler_error took the last slot")
            reports = list(super().invoke(batch, timeout))
            if not any(isinstance(report, Outcome) and report.failure for report in reports):
                self.slots.release()
            yield from reports


class TestUnreadReportsLoseSlots(Case):
    breaks = "test_a_slot_outlives_an_abandoned_call"
    says = "no slot is left"

    class broken(Slots):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if not self.slots.acquire(timeout=1):
                raise Unavailable("no slot is left")
            yield from super().invoke(batch, timeout)
            self.slots.release()


class TestRefusesOneMore(Case):
    breaks = "test_more_calls_than_slots_are_all_answered"
    says = "too many calls"

    class broken(Slots):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if not self.slots.acquire(blocking=False):
                raise Rejected("too many calls")
            try:
                time.sleep(0.2)
                yield from super().invoke(batch, timeout)
            finally:
                self.slots.release()


class Resizable(Reference):
    """Has places for four environments, of which it offers as many as it is told to."""

    def size(self) -> int:
        return 4

    def open(self) -> None:
        super().open()
        self.max_concurrency = 2

    def offer(self, size: int) -> None:
        self.max_concurrency = size


class ResizableCase(Case):
    broken = Resizable

    def resize(self, plane: Resizable, size: int = 1) -> None:  # type: ignore[override]
        plane.offer(size)


class TestResizableReference(ResizableCase):
    wait_factor = 1.0


class TestTellsItsFirstSize(ResizableCase):
    breaks = "test_a_plane_that_grows_says_so_while_it_is_open"
    says = "max_concurrency = 3 of a plane that has grown to that: not within"
    wait_factor = 0.1

    class broken(Resizable):
        def offer(self, size: int) -> None:
            pass


class ShrinksAtOnce(Resizable):
    def offer(self, size: int) -> None:
        super().offer(size)
        for place in range(size, 4):
            environment = self.at(place)
            if environment is not None:
                os.kill(environment._process.pid, signal.SIGKILL)  # type: ignore[attr-defined]


class TestShrinksAtOnce(ResizableCase):
    breaks = "test_a_plane_that_shrinks_says_so_and_ends_no_invocation"
    says = "the outcome is exit"
    broken = ShrinksAtOnce


class TestRunsAgainWhatItEnded(ResizableCase):
    breaks = "test_a_plane_that_shrinks_says_so_and_ends_no_invocation"
    says = "one invocation ran 2 times"

    class broken(ShrinksAtOnce):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
            for each in batch:
                (report,) = super().invoke([each], timeout)
                if isinstance(report, Outcome) and report.failure is FailureKind.EXIT:
                    (report,) = super().invoke([each], timeout)
                yield report


class TestThrottledIsAway(Case):
    breaks = "test_throttling_is_told_apart_from_what_is_away"
    says = "and not Throttled"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            try:
                yield from super().invoke(batch, timeout)
            except Throttled as error:
                raise Unavailable(str(error)) from error


class TestCancelsTheFirst(Case):
    breaks = "test_cancel_stops_every_task_that_it_is_given"
    says = "reported as timeout"
    wait_factor = 0.2

    class broken(Reference):
        def cancel(self, task_ids: Collection[str]) -> None:
            super().cancel(list(task_ids)[:1])


class TestLeavesFiles(Case):
    breaks = "test_close_leaves_no_file_and_no_process"
    says = "there are files left"

    class broken(Reference):
        def open(self) -> None:
            tempfile.mkdtemp(prefix="plane-")
            super().open()


class TestForgetsWhatItBegan(Case):
    breaks = "test_a_plane_that_went_away_names_what_it_had_begun"
    says = "Unavailable.begun names []"

    class broken(Reference):
        def lost(self, batch: Sequence[Lease]) -> Exception:
            return Unavailable("The plane went away.")


class TestThrottledIsAnError(Case):
    breaks = "test_throttling_is_unavailable"
    says = "raised nothing"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            try:
                yield from super().invoke(batch, timeout)
            except Unavailable as error:
                yield from (Outcome(lease.task.id, json.dumps(str(error)).encode()) for lease in batch)


# --- output ---


class _Passed(HandlerOutput):
    """Passes on what it is given, with a bug."""

    is_wanted = True

    def __init__(self, to: HandlerOutput) -> None:
        self.to = to

    def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
        self.to.write(lease, environment, text, stream)


def _handing_over(bug: type[_Passed]) -> type[Reference]:
    class HandingOver(Reference):
        def open(self) -> None:
            if self.output.is_wanted:
                self.output = bug(self.output)
            super().open()

    return HandingOver


class TestOutputOf4KB(Case):
    breaks = "test_all_that_handlers_print_is_handed_over_with_its_task"
    says = "are missing"

    class _bug(_Passed):
        def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
            super().write(lease, environment, text[-4096:], stream)

    broken = _handing_over(_bug)


class TestOutputTwice(Case):
    breaks = "test_all_that_handlers_print_is_handed_over_with_its_task"
    says = "are too many"

    class _bug(_Passed):
        def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
            super().write(lease, environment, text, stream)
            super().write(lease, environment, text, stream)

    broken = _handing_over(_bug)


class TestOutputOfTheTaskBefore(Case):
    breaks = "test_all_that_handlers_print_is_handed_over_with_its_task"
    says = "another task's"

    class _bug(_Passed):
        before: Lease | None = None

        def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
            super().write(self.before or lease, environment, text, stream)
            self.before = lease

    broken = _handing_over(_bug)


class TestOutputOfNobody(Case):
    breaks = "test_all_that_handlers_print_is_handed_over_with_its_task"
    says = "given 0 with it"

    class _bug(_Passed):
        def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
            super().write(None, environment, text, stream)

    broken = _handing_over(_bug)


class TestOutputOfAnotherEnvironment(Case):
    breaks = "test_all_that_handlers_print_is_handed_over_with_its_task"
    says = "the outcome"

    class _bug(_Passed):
        def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
            super().write(lease, f"{environment}-1", text, stream)

    broken = _handing_over(_bug)


class TestNoLastOutput(Case):
    breaks = "test_what_a_handler_printed_before_it_ended_its_process_is_handed_over"
    says = "was given []"

    class _bug(_Passed):
        def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
            if text != b"ending\n":
                super().write(lease, environment, text, stream)

    broken = _handing_over(_bug)


class TestNoOutputOfWhatIsStopped(Case):
    breaks = "test_what_a_handler_printed_before_its_timeout_is_handed_over"
    says = "the handler printed 'before its timeout' and failed; `output.write` was given []"

    class _bug(_Passed):
        def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
            if text != b"before its timeout\n":
                super().write(lease, environment, text, stream)

    broken = _handing_over(_bug)


# --- metering, context, logs ---


class TestBillsInSeconds(Case):
    breaks = "test_the_bill_is_the_duration_or_a_little_more"
    says = "which is less"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, billed_ms=outcome.billed_ms // 1000)


class TestFailuresAreFree(Case):
    breaks = "test_failures_are_measured_and_billed"
    says = "billed as 0 ms"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, billed_ms=0) if outcome.failure is FailureKind.TIMEOUT else outcome


class TestStartsAtTheEnd(Case):
    breaks = "test_started_is_when_the_handler_began"
    says = "s apart"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, started=outcome.started + outcome.duration_ms / 1000)


class TestKilobytes(Case):
    breaks = "test_memory_is_in_megabytes"
    says = "has a max_memory_mb of"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, max_memory_mb=1024 * outcome.max_memory_mb)


class TestOneName(Case):
    breaks = "test_each_environment_has_a_name_of_its_own"
    says = "the outcomes name 1"
    broken = _with(environment="worker")


class TestAttributesShadow(Case):
    breaks = "test_an_attribute_shadows_nothing_of_htcgrid"
    says = "an attribute says 99"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            shown = [
                replace(lease, attempt=int(lease.task.attributes.get("attempt", lease.attempt))) for lease in batch
            ]
            yield from super().invoke(shown, timeout)


class TestOneRequest(Case):
    breaks = "test_each_invocation_has_a_request_id_of_its_own"
    says = "were invoked with the request ids"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            answer = json.loads(outcome.payload)
            return replace(outcome, payload=json.dumps({**answer, "aws_request_id": "1"}).encode())


class TestSilentTasksTalk(Case):
    breaks = "test_a_silent_task_has_no_log"
    says = "and the log tail has"

    class broken(Changed):
        log = b""

        def changed(self, outcome: Outcome) -> Outcome:
            self.log = outcome.log_tail or self.log
            return replace(outcome, log_tail=self.log)


class TestOneLogForAll(Case):
    breaks = "test_each_thread_gets_the_logs_of_its_own_tasks"
    says = "and the log tail is"

    class broken(Changed):
        latest = b""

        def changed(self, outcome: Outcome) -> Outcome:
            self.latest = outcome.log_tail
            time.sleep(0.01)
            return replace(outcome, log_tail=self.latest)


class TestTimeoutsAreSilent(Case):
    breaks = "test_the_log_of_every_kind_of_failure_is_kept"
    says = "ended as timeout is b''"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, log_tail=b"") if outcome.failure is FailureKind.TIMEOUT else outcome


# --- tasks that are odd but allowed, and batches ---


class TestIdsAreFiles(Case):
    breaks = "test_a_task_of_any_id_is_run"
    says = "No such file or directory"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for each in batch:
                with tempfile.TemporaryDirectory() as folder:
                    (Path(folder) / each.task.id).write_bytes(each.task.payload)
            yield from super().invoke(batch, timeout)


class TestAttributesAreAHeader(Case):
    breaks = "test_attributes_reach_the_handler_as_they_are"
    says = "and the context has"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            yield from super().invoke([self.sent(each) for each in batch], timeout)

        def sent(self, lease: Lease) -> Lease:
            attributes = {name: " ".join(text.split()) for name, text in lease.task.attributes.items()}
            return replace(lease, task=replace(lease.task, attributes=attributes))


class TestTakesAWaitForACancel(Case):
    breaks = "test_a_plane_that_is_open_twice_serves_twice"
    says = "a task that waited for one is reported as cancelled"

    class broken(OfOneService):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            try:
                yield from super().invoke(batch, timeout)
            except Throttled:
                document = b'{"errorType": "Htcgrid.Cancelled", "errorMessage": "It was revoked."}'
                yield from (Outcome(each.task.id, document, FailureKind.CANCELLED) for each in batch)


class TestARefusalBesideAnotherAgentTakesASlot(Case):
    breaks = "test_a_plane_that_is_open_twice_serves_twice"
    says = "after another agent had all places of its service, the plane's 2 slots do not all work"

    class broken(OfOneService):
        def open(self) -> None:
            super().open()
            self.slots = threading.Semaphore(self.max_concurrency)

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if not self.slots.acquire(timeout=1):
                raise Unavailable("No slot is left.")
            yield from super().invoke(batch, timeout)
            self.slots.release()


class TestNamesThePlace(Case):
    breaks = "test_each_environment_has_a_name_of_its_own"
    says = "the handler saw 3 environments, and the outcomes name 2"

    class broken(Changed):
        def open(self) -> None:
            self.names: dict[str, str] = {}
            self.left: list[str] = []
            super().open()

        def changed(self, outcome: Outcome) -> Outcome:
            if outcome.environment not in self.names:
                self.names[outcome.environment] = self.left.pop() if self.left else outcome.environment
            name = self.names[outcome.environment]
            if outcome.failure is FailureKind.EXIT:
                self.left.append(name)
            return replace(outcome, environment=name)


class TestTakesNegativeSeconds(Case):
    breaks = "test_a_negative_number_of_seconds_is_refused"
    says = "Config accepted answer_seconds = -1"

    class broken(Reference):
        class Config(Reference.Config):
            answer_seconds: float = 3.0


class TestTakesAPasswordInAnAddress(Case):
    breaks = "test_its_errors_and_repr_keep_secrets"
    says = "`url` takes an address with a user and a password"

    class broken(Reference):
        class Config(Reference.Config):
            url: str = "http://127.0.0.1:8000"


class TestLooksForAnswersNowAndThen(Case):
    breaks = "test_outcomes_come_as_they_are_ready"
    says = "do not look for it now and then"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            began = time.monotonic()
            for report in super().invoke(batch, timeout):
                time.sleep(0.5 - (time.monotonic() - began) % 0.5)  # until the next look
                yield report


class TestReportsAtTheEnd(Case):
    breaks = "test_outcomes_come_as_they_are_ready"
    says = "report each as it is ready"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            yield from list(super().invoke(batch, timeout))


class TestCancelsTheBatch(Case):
    breaks = "test_cancel_of_a_task_behind_leaves_the_one_that_runs"
    says = "the handler answered, and the outcome is cancelled"

    class broken(Reference):
        batch: Sequence[Lease] = ()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            self.batch = batch
            yield from super().invoke(batch, timeout)

        def cancel(self, task_ids: Collection[str]) -> None:
            super().cancel([each.task.id for each in self.batch])


class TestTellsSeconds(Case):
    breaks = "test_times_that_are_told_are_plausible"
    says = "has a duration_ms of 0.3"

    class broken(Changed):
        capabilities = Reference.capabilities - {Capability.METERING}

        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, duration_ms=outcome.duration_ms / 1000)


class TestAsksForItsSize(Case):
    breaks = "test_max_concurrency_costs_nothing_to_read"
    says = "max_concurrency was read 100 times in"

    class broken(Reference):
        @property
        def max_concurrency(self) -> int:
            time.sleep(0.001)
            return 2

        @max_concurrency.setter
        def max_concurrency(self, size: int) -> None: ...


class Queueing(Reference):
    """As behind an engine that queues what it has no environment for."""

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        called = time.time()
        for report in super().invoke(batch, timeout):
            yield self.late(report, called) if isinstance(report, Outcome) else report

    def late(self, outcome: Outcome, called: float) -> Outcome:
        return outcome


class TestTimesTheQueue(Case):
    breaks = "test_what_waits_for_a_slot_is_timed_from_its_start"
    says = "has a duration_ms of"

    class broken(Queueing):
        def late(self, outcome: Outcome, called: float) -> Outcome:
            return replace(outcome, duration_ms=(time.time() - called) * 1000)


class TestCancelsPlainIds(Case):
    breaks = "test_a_task_of_any_id_is_cancelled"
    says = "reported as timeout"

    class broken(Reference):
        def cancel(self, task_ids: Collection[str]) -> None:
            super().cancel([task_id for task_id in task_ids if task_id.isascii()])


class TestThrottledHasBegun(Case):
    breaks = "test_throttling_is_told_apart_from_what_is_away"
    says = "a call that was refused has not begun"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if self.refused:
                self.refused -= 1
                raise Throttled("There are too many.", begun=[each.task.id for each in batch])
            yield from super().invoke(batch, timeout)


class TestWaitsBeforeItSaysThrottled(Case):
    breaks = "test_throttling_is_told_apart_from_what_is_away"
    says = "before it raised Throttled: try once"

    class broken(Reference):
        """It tries again by itself, and is refused again."""

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if self.refused:
                time.sleep(0.2)
            yield from super().invoke(batch, timeout)


class TestARefusalTakesASlot(Case):
    breaks = "test_throttling_is_told_apart_from_what_is_away"
    says = "after calls were refused, the plane's 2 slots do not all work"
    wait_factor = 0.1

    class broken(Reference):
        def open(self) -> None:
            super().open()
            self.slots = threading.Semaphore(self.max_concurrency)

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            self.slots.acquire()
            yield from super().invoke(batch, timeout)
            self.slots.release()


class TestNamesWhatWasNeverSent(Case):
    breaks = "test_a_plane_that_went_away_is_unavailable"
    says = "whose Unavailable names no task in `begun`, since nothing was sent"
    wait_factor = 0.1

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if self.away:
                raise self.lost(batch)
            yield from super().invoke(batch, timeout)


class TestFailsToOpenInAnOutage(Case):
    breaks = "test_a_plane_that_went_away_is_unavailable"
    says = "`open` while the service is away raised ConnectionRefusedError"

    class broken(Reference):
        is_gone = False

        def open(self) -> None:
            if self.is_gone:
                raise ConnectionRefusedError
            super().open()

    def take_away(self, plane: Reference) -> None:  # type: ignore[override]
        super().take_away(plane)
        type(self).broken.is_gone = True

    def bring_back(self, plane: Reference) -> None:  # type: ignore[override]
        super().bring_back(plane)
        type(self).broken.is_gone = False


class TestAnOutageTakesASlot(Case):
    breaks = "test_a_plane_that_came_back_serves_again"
    says = "1 of 1 calls side by side had not returned after"
    wait_factor = 0.1

    class broken(Reference):
        def open(self) -> None:
            super().open()
            self.slots = threading.Semaphore(self.max_concurrency)

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            self.slots.acquire()
            yield from super().invoke(batch, timeout)
            self.slots.release()


class TestAnOutageTakesOneSlotOfSeveral(Case):
    breaks = "test_a_plane_that_came_back_serves_again"
    says = "after it was away, the plane's 2 slots do not all work"
    wait_factor = 0.1

    class broken(Reference):
        has_taken_one = False

        def open(self) -> None:
            super().open()
            self.slots = threading.Semaphore(self.max_concurrency)

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            with self.slots:
                try:
                    yield from super().invoke(batch, timeout)
                except Unavailable:
                    if not self.has_taken_one:
                        self.has_taken_one = True
                        self.slots.acquire()
                    raise


class TestTellsATimeoutInMilliseconds(Case):
    breaks = "test_a_handler_past_its_timeout_is_stopped"
    says = "Lambda says 'Task timed out after 0.50 seconds' of this"
    broken = _saying(b"after 600.00 seconds", in_place_of=b"after 0.50 seconds")


class TestCancelledIsAnExit(Case):
    breaks = "test_cancel_stops_a_running_handler"
    says = "'errorType': 'Runtime.ExitError'"
    broken = _saying(b"Runtime.ExitError", in_place_of=b"Htcgrid.Cancelled")


class TestTooLargeIsAnError(Case):
    breaks = "test_an_answer_past_the_limit_is_too_large"
    says = "'errorType': 'Error'"
    broken = _saying(b"Error", in_place_of=b"Function.ResponseSizeTooLarge")


class TestARequestIsTooLarge(Case):
    breaks = "test_an_event_past_the_limit_is_too_large"
    says = "'errorType': 'Error'"
    broken = _saying(b"Error", in_place_of=b"RequestTooLargeException")


class TestWaitsForMilliseconds(Case):
    breaks = "test_throttling_is_told_apart_from_what_is_away"
    says = "retry_after is in seconds, and is 1000"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if self.refused:
                self.refused -= 1
                raise Throttled("There are too many.", 1000.0)
            yield from super().invoke(batch, timeout)


class TestLosesTheStandardError(Case):
    breaks = "test_what_the_handler_prints_is_in_the_log_tail"
    says = "printed a line on its standard error"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, log_tail=b"") if b"standard error" in outcome.log_tail else outcome


class TestTellsItsToken(Case):
    breaks = "test_a_plane_that_went_away_is_unavailable"
    says = "a secret is in the error of invoke"
    secrets = ("a-token-of-the-service",)

    class broken(Reference):
        def unavailable(self) -> Exception:
            return Unavailable("The plane is away: Authorization: Bearer a-token-of-the-service")


# --- tasks of one batch that differ, and what is seldom ---


class TestTheFirstSpeaksForAll(Case):
    breaks = "test_each_task_of_a_batch_has_a_context_of_its_own"
    says = "of a batch the context of task"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            first = batch[0].task.attributes
            return super().invoke([replace(each, task=replace(each.task, attributes=first)) for each in batch], timeout)


class TestAllAreLate(Case):
    breaks = "test_a_task_behind_one_that_is_stopped_is_not_stopped"
    says = "the outcome is timeout"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            reports = list(super().invoke(batch, timeout))
            failed = [each for each in reports if isinstance(each, Outcome) and each.failure is FailureKind.TIMEOUT]
            late = failed[0] if failed else None
            for report in reports:
                yield replace(late, task_id=report.task_id) if late is not None else report


class TestMillisecondsOf31Bits(Case):
    breaks = "test_a_timeout_may_be_as_long_as_a_month"
    says = "timeout is too large"
    short_timeout = 1.0

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if timeout * 1000 >= 2**31:
                raise OverflowError("timeout is too large")
            yield from super().invoke(batch, timeout)


class TestLogsAreWholeLines(Case):
    breaks = "test_any_bytes_may_be_printed"
    says = "a handler printed a line without an end"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            log = outcome.log_tail
            return replace(outcome, log_tail=log[: log.rfind(b"\n") + 1])


# --- tasks that come again, what is printed, and types ---


class TestKeepsAnswersById(Case):
    breaks = "test_a_task_that_comes_again_runs_again"
    says = "and the handler ran 1 times"

    class broken(Reference):
        def open(self) -> None:
            self.kept: dict[str, Outcome] = {}
            super().open()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            yield from (self.kept[each.task.id] for each in batch if each.task.id in self.kept)
            new = [each for each in batch if each.task.id not in self.kept]
            for report in super().invoke(new, timeout) if new else ():
                if isinstance(report, Outcome):
                    self.kept[report.task_id] = report
                yield report


class TestAnswersWithWhatIsPrinted(Case):
    breaks = "test_what_a_handler_prints_is_not_its_answer"
    says = "a handler printed"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            printed = outcome.log_tail.strip()
            return replace(outcome, payload=printed) if printed.startswith(b'{"errorType"') else outcome


class TestBillsWithAFraction(Case):
    breaks = "test_outcomes_have_the_types_of_the_interface"
    says = "Outcome.billed_ms is a builtins.float, and should be int"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, billed_ms=float(outcome.billed_ms))  # type: ignore[arg-type]


class TestForgetsThePeak(Case):
    breaks = "test_memory_is_in_megabytes"
    says = "max_memory_mb is the most so far"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, max_memory_mb=9) if outcome.duration_ms < 100 else outcome


class TestSendsLatin1(Case):
    breaks = "test_an_event_that_is_not_ascii_arrives"
    says = "the handler was given 'na\u00c3\u00afve"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            sent = [
                replace(each, task=replace(each.task, payload=each.task.payload.decode("latin-1").encode()))
                for each in batch
            ]
            return super().invoke(sent, timeout)


class TestTakesAnEarlyEndForAFailedStart(Case):
    breaks = "test_the_end_of_a_new_environment_is_an_exit"
    says = "reported as init_error"

    class broken(Changed):
        def open(self) -> None:
            self.known: set[str] = set()
            super().open()

        def changed(self, outcome: Outcome) -> Outcome:
            is_first = outcome.environment not in self.known
            self.known.add(outcome.environment)
            is_early = is_first and outcome.failure is FailureKind.EXIT
            return replace(outcome, failure=FailureKind.INIT_ERROR) if is_early else outcome


class TestWaitsForTheEndOfTheOutput(Case):
    breaks = "test_the_end_of_a_process_that_leaves_a_child_is_seen_at_once"
    says = "its end was seen after"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for report in super().invoke(batch, timeout):
                if isinstance(report, Outcome) and report.failure is FailureKind.EXIT:
                    time.sleep(json.loads(batch[0].task.payload).get("child", 0))
                yield report


class TestStopsToWaitOnly(Case):
    breaks = "test_a_handler_that_is_stopped_does_not_run_on"
    says = "and it ran on to its end"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for report in super().invoke(batch, timeout):
                mark = json.loads(batch[0].task.payload).get("after")
                if mark and isinstance(report, Outcome) and report.failure is FailureKind.TIMEOUT:
                    threading.Timer(0.2, Path(mark).touch).start()
                yield report


class TestLosesTheSlotsOfWhatIsStopped(Case):
    breaks = "test_a_slot_outlives_what_is_stopped"
    says = "slots do not all work"

    class broken(Reference):
        def open(self) -> None:
            self.slots = threading.Semaphore(3)
            super().open()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            if not self.slots.acquire(timeout=2):
                raise Unavailable("No slot is free.")
            is_lost = False
            try:
                for report in super().invoke(batch, timeout):
                    is_lost |= isinstance(report, Outcome) and report.failure is FailureKind.CANCELLED
                    yield report
            finally:
                if not is_lost:
                    self.slots.release()


class TestClosesOnceAllHasEnded(Case):
    breaks = "test_close_ends_what_runs"
    says = "while a task ran: it waited for the task"

    class broken(Reference):
        running = 0

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            self.running += 1
            try:
                yield from super().invoke(batch, timeout)
            finally:
                self.running -= 1

        def close(self) -> None:
            while self.running:
                time.sleep(0.02)
            super().close()


class RunsOn(Reference):
    """The mark of this action comes in its time, whatever becomes of the handler."""

    action = "sleep"

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
        for event in (json.loads(each.task.payload) for each in batch):
            if isinstance(event, dict) and event.get("do") == self.action and "after" in event:
                engine = threading.Timer(event["seconds"], Path(event["after"]).touch)
                engine.daemon = True
                engine.start()
        yield from super().invoke(batch, timeout)


class TestItsEngineRunsOn(Case):
    breaks = "test_close_ends_what_runs"
    says = "and it ran to its end"
    broken = RunsOn


class TestStopsTheHandlerAlone(Case):
    breaks = "test_a_handler_that_is_stopped_does_not_run_on"
    says = "and a process that it had started ran on to its end"

    class broken(RunsOn):
        action = "spawn"


class TestPassesItsKeysOn(Case):
    breaks = "test_a_handler_does_not_find_the_keys_of_its_agent"
    says = "the handler finds AWS_SECRET_ACCESS_KEY"

    @pytest.fixture
    def invoker(self, function: Function) -> Invoker:
        return ProcessInvoker(ProcessInvoker.Config(inherit=("AWS_SECRET_ACCESS_KEY",)), function)


class TestTakesObjectsAlone(Case):
    breaks = "test_an_event_may_be_any_json"
    says = "reported as payload_too_large"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            others = [each for each in batch if not isinstance(json.loads(each.task.payload), dict)]
            for each in others:
                document = b'{"errorType": "RequestTooLargeException", "errorMessage": "not an object"}'
                yield Outcome(each.task.id, document, FailureKind.PAYLOAD_TOO_LARGE)
            left = [each for each in batch if each not in others]
            if left:
                yield from super().invoke(left, timeout)


class OfStartsAlone(Observers):
    """Passes on when environments start, and not when they end by themselves."""

    def __init__(self, observers: Observers, plane: "TestTellsOfNoEndButThatOfClose.broken") -> None:
        self._observers = observers
        self._plane = plane

    def tell(self, observation: Observation) -> None:
        if self._plane.is_closing or not isinstance(observation, EnvironmentEnded):
            self._observers.tell(observation)


class TestTellsOfNoEndButThatOfClose(Case):
    breaks = "test_observers_are_told_of_each_environment"
    says = "and of the end of"

    class broken(Reference):
        is_closing = False

        def open(self) -> None:
            self.observers = OfStartsAlone(self.observers, self)
            super().open()

        def close(self) -> None:
            self.is_closing = True
            super().close()


class TestCountsTheStartAsTheHandlers(Case):
    breaks = "test_the_duration_is_the_handlers_own"
    says = "more than the handler took"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            if outcome.init_ms is None:
                return outcome
            init = outcome.init_ms + 500
            duration = outcome.duration_ms + init
            return replace(outcome, init_ms=init, duration_ms=duration, billed_ms=math.ceil(duration + init))


class TestKnowsACallByItsTask(Case):
    breaks = "test_a_task_that_runs_twice_is_cancelled_twice"
    says = "reported as timeout"

    class broken(Reference):
        def __init__(self, config: Reference.Config, function: Function) -> None:
            super().__init__(config, function)
            self.here: set[str] = set()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            ids = {lease.task.id for lease in batch}
            again = ids & self.here  # `cancel` finds the first of them alone
            self.here |= ids
            sent = [
                replace(each, task=replace(each.task, id=f"{each.task.id}'")) if each.task.id in again else each
                for each in batch
            ]
            names = {new.task.id: old.task.id for new, old in zip(sent, batch, strict=True)}
            try:
                for report in super().invoke(sent, timeout):
                    yield replace(report, task_id=names[report.task_id])
            finally:
                self.here -= ids - again


class TestAddsTwoTails(Case):
    breaks = "test_a_log_tail_is_the_end_and_4_kb_at_most"
    says = "the log tail has 8"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            is_long = outcome.duration_ms > 200
            return replace(outcome, log_tail=2 * outcome.log_tail) if is_long else outcome


class TestForgetsTheFirstPart(Case):
    breaks = "test_a_log_tail_is_the_end_and_4_kb_at_most"
    says = "and a line 0.3 s later; the log tail ends with"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            at = outcome.log_tail.find(b"of the second part")
            return replace(outcome, log_tail=outcome.log_tail[at:]) if at > 0 else outcome


class TestNumbersABatchByItsFirst(Case):
    breaks = "test_each_task_of_a_batch_has_a_context_of_its_own"
    says = "differ in their attempts"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            is_alike = all(each.task.attributes == batch[0].task.attributes for each in batch)
            return super().invoke(
                [replace(each, attempt=batch[0].attempt) for each in batch] if is_alike else batch, timeout
            )


class TestRemembersWhatWasCancelled(Case):
    breaks = "test_cancel_stops_the_tasks_it_names_and_no_other"
    says = "began again while another ran"

    class broken(Reference):
        """Until nothing runs."""

        def open(self) -> None:
            self.running = 0
            self.names: set[str] = set()
            super().open()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            self.running += 1
            try:
                for report in super().invoke(batch, timeout):
                    is_named = isinstance(report, Outcome) and report.task_id in self.names
                    yield replace(report, failure=FailureKind.CANCELLED) if is_named else report  # type: ignore[arg-type]
            finally:
                self.running -= 1
                if not self.running:
                    self.names.clear()

        def cancel(self, task_ids: Collection[str]) -> None:
            if self.running:
                self.names.update(task_ids)
            super().cancel(task_ids)


class TestKeepsCredentialsToTheirEnd(Case):
    breaks = "test_credentials_last_as_long_as_the_next_invocation_may_take"
    says = "an invocation was given them that may take 20 s"

    class broken(Reference):
        def open(self) -> None:
            self.credentials = Kept(self.credentials)
            super().open()


class TestCountsTheStart(Case):
    breaks = "test_the_start_of_an_environment_is_not_in_the_timeout"
    says = "the outcome is timeout"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            is_late = (outcome.init_ms or 0) + outcome.duration_ms > 2000
            return replace(outcome, failure=FailureKind.TIMEOUT) if is_late else outcome


class TestNamesOfAllPlanes(Case):
    breaks = "test_a_plane_that_is_open_twice_serves_twice"
    says = "ran tasks of the same id at the same time"

    class broken(Reference):
        """As an engine that knows a call by the id of its task, and has it once."""

        calls: ClassVar[dict[str, Outcome]] = {}
        one = threading.Lock()

        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            for lease in batch:
                with self.one:
                    if lease.task.id not in self.calls:
                        (outcome,) = super().invoke([lease], timeout)
                        assert isinstance(outcome, Outcome)
                        self.calls[lease.task.id] = outcome
                yield self.calls[lease.task.id]


class TestKeepsAMegabyte(Case):
    breaks = "test_a_log_tail_is_of_one_invocation"
    says = "after one that printed 120000 lines, the log tail is"

    class broken(Changed):
        printed = 0

        def changed(self, outcome: Outcome) -> Outcome:
            self.printed += 1_000_000 if len(outcome.log_tail) > 4000 else 0
            return replace(outcome, log_tail=b"") if self.printed else outcome


class TestALogOfCharacters(Case):
    breaks = "test_any_bytes_may_be_printed"
    says = "5 KB that are not UTF-8, and the log tail has"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, log_tail=outcome.log_tail.decode(errors="replace").encode())


class TestSendsTheReceipt(Case):
    breaks = "test_an_event_comes_back_as_it_was_sent"
    says = "cannot pickle"

    class broken(Reference):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Reports:
            return super().invoke(pickle.loads(pickle.dumps(batch)), timeout)


class TestParsesAnswers(Case):
    breaks = "test_an_answer_keeps_its_numbers_and_the_order_of_its_keys"
    says = "do not parse answers"

    class broken(Changed):
        def changed(self, outcome: Outcome) -> Outcome:
            return replace(outcome, payload=json.dumps(json.loads(outcome.payload)).encode())

"""Odd tasks that are allowed, and the tasks of one batch."""

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, Lease, Outcome

from htcgrid_contracts.common import in_threads, not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease
from htcgrid_contracts.payloads import AWKWARD_ATTRIBUTES, AWKWARD_IDS
from htcgrid_contracts.typed import misfits

_SOON_SECONDS = 0.7
"""How long the way to a handler and back may take. A plane that looks for answers once a second takes longer."""


class TaskRules(InvokerHelpers):
    """Asked of every plane."""

    def test_a_task_of_any_id_is_run(self, plane: Invoker) -> None:
        """A task with any id of up to 200 characters must run. An id must not be used as a file name or a part of an
        address as it is. Read: spi.Task."""
        for end in AWKWARD_IDS:
            asked = lease("describe")
            asked = replace(asked, task=replace(asked.task, id=asked.task.id + end))
            answer = self.answer(self.run(plane, [asked])[0])
            if Capability.CONTEXT in plane.capabilities:
                found = answer["custom"]["task_id"]
                assert found == asked.task.id, f"the task is {asked.task.id!r}, and its context says {found!r}"

    def test_a_task_that_comes_again_runs_again(self, plane: Invoker) -> None:
        """A task that comes a second time must run a second time: it is tried again, or was redriven. An id must not be
        used as the key of an earlier answer. Read: spi.Invoker.invoke."""
        asked = lease("count")
        again = [asked, replace(asked, attempt=2), replace(asked, attempt=2)]
        answers = [self.answer(self.run(plane, [each])[0]) for each in again]
        found = {(each["environment"], each["execution"]) for each in answers}
        assert len(found) == len(again), (
            f"a task was invoked {len(again)} times, at attempts 1, 2 and 2, and the handler ran {len(found)} times"
        )
        failing = lease("fail")
        self.failed(self.run(plane, [failing])[0], FailureKind.HANDLER_ERROR)
        mended = replace(asked, task=replace(asked.task, id=failing.task.id), attempt=2)
        self.answer(self.run(plane, [mended])[0])

    def test_an_event_that_is_not_ascii_arrives(self, plane: Invoker) -> None:
        """An event of UTF-8 must reach the handler as it is. JSON need not be ASCII, and a client that is given a text may
        send it as Latin-1. Read: spi, rules for all three."""
        value = "naïve 価格 Ω 😀 \u2028"
        asked = lease("echo")
        payload = json.dumps({"do": "echo", "value": value}, ensure_ascii=False).encode()
        answer = self.answer(self.run(plane, [replace(asked, task=replace(asked.task, payload=payload))])[0])
        assert answer == value, f"sent {value!r}, written as UTF-8, and the handler was given {answer!r}"

    def test_an_event_may_be_any_json(self, plane: Invoker) -> None:
        """An event may be any JSON document, in any layout: a list, a text, a number, null, or an object of several lines. A
        plane must not look into it. Read: spi, rules for all three."""
        for payload in (b"[1]", b'"text"', b"1", b"null"):
            asked = lease("echo")
            outcome = self.run(plane, [replace(asked, task=replace(asked.task, payload=payload))])[0]
            if outcome.failure is None:
                continue  # a handler in another language may take it
            document = self.failed(outcome, FailureKind.HANDLER_ERROR)  # the kit's own takes objects alone
            assert document["errorType"] == "TypeError", (
                f"the event {payload.decode()} should reach the handler, which raises TypeError; the document: {document}"
            )
        asked = lease("echo")
        payload = b'\r\n{\n\t"value":\r\n [1,\n2] ,\n\n"do": "sleep", "seconds":\n0}\n'
        answer = self.answer(self.run(plane, [replace(asked, task=replace(asked.task, payload=payload))])[0])
        assert answer == [1, 2], f"the value of an event of several lines was returned as {answer!r}"

    @pytest.mark.capability(Capability.EXIT)
    def test_the_end_of_a_new_environment_is_an_exit(self, plane: Invoker) -> None:
        """When the first handler of an environment ends its process, the failure must be EXIT as well: the function was
        loaded, and INIT_ERROR may end the run. Read: spi.FailureKind.EXIT, spi.FailureKind.INIT_ERROR."""
        for _ in range(min(plane.max_concurrency, self.most_threads) + 1):  # the last one runs in a new one
            self.failed(self.call(plane, "end", status=3, at_once=True), FailureKind.EXIT)
        self.works(plane)

    @pytest.mark.parametrize("stream", ["stdout", "stderr"])
    def test_what_a_handler_prints_is_not_its_answer(self, plane: Invoker, stream: str) -> None:
        """What a handler prints must not change its answer, whatever it is: a plane that reads answers from the standard
        output must keep the two apart. Read: spi.Outcome."""
        for text, end in (('{"errorType": "Printed"}', "\n"), ("1", "")):
            answer = self.answer(self.call(plane, "say", text=text, stream=stream, end=end))
            assert answer == len(text), (
                f"a handler printed {text!r} and answered {len(text)}; the outcome has {answer!r}"
            )
        self.works(plane)

    def test_outcomes_have_the_types_of_the_interface(self, plane: Invoker) -> None:
        """The fields of an outcome must have the types that the interface names: bytes, numbers, a text for the environment.
        Others may be equal to the right values, and still cannot be stored or printed. Read: spi.Outcome."""
        for asked in (lease("say", text="printed"), lease("fail")):
            wrong = misfits(self.run(plane, [asked])[0])
            assert not wrong, wrong

    @pytest.mark.capability(Capability.CONTEXT)
    @pytest.mark.parametrize("name", AWKWARD_ATTRIBUTES)
    def test_attributes_reach_the_handler_as_they_are(self, plane: Invoker, name: str) -> None:
        """Attributes must reach the handler unchanged, also where they pass through a header or a command line.
        Read: spi.Capability.CONTEXT."""
        attributes = AWKWARD_ATTRIBUTES[name]
        custom = self.answer(self.run(plane, [lease("describe", attributes)])[0])["custom"]
        found = {each: custom.get(each) for each in attributes}
        assert found == dict(attributes), f"the attributes are {dict(attributes)}, and the context has {found}"

    def test_outcomes_come_as_they_are_ready(self, plane: Invoker) -> None:
        """`invoke` must report each outcome as soon as it is ready. A plane that looks for answers once a second runs one task
        a second in each environment. Of a batch, the result is then stored while the next task runs.
        Read: spi.Invoker.invoke."""
        self.works(plane)
        self._answers_soon(plane)
        if plane.max_batch == 1:
            return  # every call has one task
        apart = None
        for seconds in (0.5 * self.wait_factor, 3 * self.wait_factor):  # a busy machine may be late once
            batch = [lease("echo", value=1), lease("sleep", seconds=seconds)]
            times: dict[str, float] = {}
            for report in plane.invoke(batch, plane.function.timeout):
                if isinstance(report, Outcome):
                    times[report.task_id] = time.monotonic()
            if len(times) < len(batch):
                continue  # one was returned, since another environment is idle
            apart = times[batch[1].task.id] - times[batch[0].task.id]
            if apart > seconds / 2:
                break
        if apart is None:
            not_asked("another environment gets the tasks behind the first task of a batch")
        assert apart > seconds / 3, (
            f"of a batch the first task answered at once and the second after {seconds:g} s, and their outcomes came "
            f"{apart:.2f} s apart: report each as it is ready"
        )

    def _answers_soon(self, plane: Invoker) -> None:
        most, took = _SOON_SECONDS * self.wait_factor, float("inf")
        for _ in range(5):  # a busy machine may be late
            began = time.monotonic()
            answer = self.answer(self.call(plane, "count"))
            took = min(took, time.monotonic() - began - (answer["ended"] - answer["began"]))
            if took < most:
                return
        pytest.fail(
            f"the quickest of five calls took {took:.1f} s besides the handler's own time, and {most:g} s are allowed: wait for "
            f"the answer, and do not look for it now and then"
        )

    @pytest.mark.capability(Capability.CONTEXT)
    def test_each_task_of_a_batch_has_a_context_of_its_own(self, plane: Invoker) -> None:
        """Each task of a batch must have its own context: the tasks may belong to several users.
        Read: spi.Capability.CONTEXT."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: every call has one task")
        batch = [
            lease("describe", {"session_id": f"s-{number}", f"of-{number}": "mine"}, attempt=number + 1)
            for number in range(min(plane.max_batch, 3))
        ]
        answers = [self.answer(outcome) for outcome in self.run(plane, batch)]
        for number, (asked, answer) in enumerate(zip(batch, answers, strict=True)):
            custom = answer["custom"]
            found = {name: custom.get(name) for name in ("task_id", "session_id", "attempt", f"of-{number}")}
            expected = {
                "task_id": asked.task.id,
                "session_id": f"s-{number}",
                "attempt": number + 1,
                f"of-{number}": "mine",
            }
            assert found == expected, f"of a batch the context of task {number} has {found}; expected {expected}"
            others = [name for name in custom if name.startswith("of-") and name != f"of-{number}"]
            assert not others, f"of a batch the context of task {number} has the attributes {others} of another"
        ids = {answer["aws_request_id"] for answer in answers}
        assert len(ids) == len(batch), f"{len(batch)} tasks of a batch have {len(ids)} request ids"
        attempts = [1, 2, 1, 3][: plane.max_batch]
        alike = self.run(plane, [lease("describe", attempt=number) for number in attempts])
        told = [self.answer(outcome)["custom"]["attempt"] for outcome in alike]
        assert told == attempts, (
            f"the tasks of a batch differ in their attempts, {attempts}, and their contexts say {told}"
        )

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_a_task_behind_one_that_is_stopped_is_not_stopped(self, plane: Invoker) -> None:
        """When a task is stopped, at its timeout or by `cancel`, the tasks behind it in the batch must still run.
        Read: spi.Unstarted."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: no task waits behind another")
        self.works(plane)
        seconds = self.short_timeout
        for cancels in (False, True) if Capability.CANCEL in plane.capabilities else (False,):
            self.works(plane)
            batch = [lease("sleep", seconds=seconds + 30 * self.wait_factor), lease("echo", value="behind")]
            has_ended = threading.Event()

            def stop(asked: Lease = batch[0], has_ended: threading.Event = has_ended) -> Sequence[Outcome]:
                while not has_ended.wait(0.5 * seconds):  # again, where it had not begun
                    plane.cancel([asked.task.id])
                return ()

            def run(
                batch: Sequence[Lease] = batch, cancels: bool = cancels, has_ended: threading.Event = has_ended
            ) -> Sequence[Outcome]:
                try:
                    return self.run(plane, batch, 60 * self.wait_factor if cancels else seconds)
                finally:
                    has_ended.set()

            (first, behind), *_ = in_threads([run, stop] if cancels else [run], 90 * self.wait_factor)
            assert first.failure is not None, (
                "the first of two tasks was stopped, and its outcome says that it answered"
            )
            # On a busy machine even an echo may be late once.
            if behind.failure is FailureKind.TIMEOUT and self.call(plane, "echo", seconds, value=1).failure is not None:
                not_asked(f"this machine is too busy to run an echo within {seconds:g} s")
            assert self.answer(behind) == "behind"

    @pytest.mark.capability(Capability.CANCEL)
    def test_cancel_of_a_task_behind_leaves_the_one_that_runs(self, plane: Invoker) -> None:
        """`cancel` of a task that waits in a batch must not stop the one that runs: they may belong to two users.
        Read: spi.Invoker.cancel."""
        if plane.max_batch == 1:
            not_asked("max_batch is 1: no task waits behind another")
        self.works(plane)
        batch = [lease("sleep", seconds=0.8 * self.wait_factor, value="kept"), lease("echo", value=1)]
        cancel = threading.Timer(0.3 * self.wait_factor, plane.cancel, [[batch[1].task.id]])
        cancel.start()
        reports = {report.task_id: report for report in self.reports(plane, batch)}
        cancel.join()
        kept = reports[batch[0].task.id]
        assert isinstance(kept, Outcome), "a task that was running is reported as Unstarted"
        assert self.answer(kept) == "kept"

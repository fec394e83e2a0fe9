"""The helpers of the rules about invokers."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from htcgrid.spi import (
    FailureKind,
    Function,
    HtcgridError,
    Invoker,
    Lease,
    Outcome,
    Task,
    Throttled,
    Unavailable,
    Unstarted,
    limits,
)

from htcgrid_contracts.common import PluginContract, in_threads, not_asked, unique_id
from htcgrid_contracts.packing import contract_function

_OPENED = pytest.StashKey[Invoker | HtcgridError]()


class InvokerHelpers(PluginContract):
    """The fixtures and helper methods of the rules about invokers."""

    short_timeout: float = 1.0
    """The timeout, in seconds, that rules about timeouts give to `invoke`. Where the plane knows only the timeout that
    it was deployed with, set it to that one."""

    behind_emulator: bool = False
    """Whether AWS's Runtime Interface Emulator runs the handlers. It loads the function within its first invocation, so that the
    start counts in the duration and the timeout of that invocation, and it passes no trace on."""

    largest_event: int | None = limits.REQUEST_BYTES
    """Bytes of the largest event that the plane accepts; with None no rule asks for a limit."""

    largest_answer: int | None = limits.RESPONSE_BYTES
    """Bytes of the largest answer that the plane accepts; with None no rule asks for a limit."""

    slow_seconds: float = 5.5
    """How long a slow handler takes: longer than a common HTTP client reads by default."""

    most_threads: int = 8
    """The most environments that a rule uses at the same time, where the plane declares more."""

    # --- what a subclass gives ---

    @pytest.fixture
    def function(self) -> Function:
        """The kit's handler, from its folder on this machine. Override it where the plane is deployed in another way."""
        return contract_function()

    @pytest.fixture
    def invoker(self, function: Function) -> Invoker:
        """The plane, not opened, with the kit's handler. One is opened for all rules."""
        pytest.fail("override the fixture `invoker`: return the plane, not opened, serving `function`")

    def serving(self, invoker: Invoker, function: Function) -> Invoker:
        """A plane with the same config for another function of the kit, not opened."""
        return type(invoker)(invoker.config, function)

    def resize(self, plane: Invoker, size: int = 1) -> None:
        """Change the number of environments that the opened plane has."""
        not_asked("override `resize(plane, size)`: give the opened plane this many environments")

    def marks(self, folder: Path) -> str | None:
        """The path at which handlers see the test's folder, where they share a disk with the test."""
        return None

    # --- fixtures ---

    @pytest.fixture
    def plugin(self, invoker: Invoker) -> Invoker:
        return invoker

    @pytest.fixture
    def plane(self, invoker: Invoker, request: pytest.FixtureRequest) -> Invoker:
        """The plane, opened. It is the same one for all rules of a class, since to open it may mean to deploy."""
        rules = request.node.getparent(pytest.Class)
        if _OPENED not in rules.stash:
            try:
                invoker.open()
            except HtcgridError as error:
                rules.stash[_OPENED] = error
            else:
                rules.stash[_OPENED] = invoker
                # pytest may leave a class and come back to it (as xdist's `worksteal` does): open it then again.
                rules.addfinalizer(lambda: rules.stash.__delitem__(_OPENED))
                rules.addfinalizer(invoker.close)
        opened: Invoker | HtcgridError = rules.stash[_OPENED]
        if isinstance(opened, HtcgridError):
            pytest.fail(f"the plane could not be opened: {type(opened).__name__}: {opened}", pytrace=False)
        return opened

    @pytest.fixture(autouse=True)
    def _only_what_is_claimed(self, invoker: Invoker, request: pytest.FixtureRequest) -> None:
        """Leaves a rule out where the opened plane does not claim the capability that the rule is about."""
        for mark in request.node.iter_markers("capability"):
            claimed = request.getfixturevalue("plane") if "plane" in request.fixturenames else invoker
            for capability in mark.args:
                if capability not in claimed.capabilities:
                    not_asked(f"the plane does not claim Capability.{capability.name}")

    # --- helpers ---

    def not_behind_the_emulator(self) -> None:
        """Leave a rule out behind AWS's emulator."""
        if self.behind_emulator:
            not_asked("AWS's emulator loads the function within its first invocation, and passes no trace on")

    @property
    def quick_timeout(self) -> float:
        """A timeout for a handler that never ends. It is shorter where the plane accepts any timeout, since no handler
        has to end in time."""
        return 0.6 if self.keeps_any_timeout else self.short_timeout

    @property
    def keeps_any_timeout(self) -> bool:
        """Whether the plane uses the timeout that `invoke` is given, and not one that it was deployed with."""
        return self.short_timeout == InvokerHelpers.short_timeout

    def call(self, plane: Invoker, do: str, timeout: float | None = None, **event: Any) -> Outcome:
        """Invoke the handler once; returns its outcome."""
        return self.run(plane, [lease(do, **event)], timeout)[0]

    def run(self, plane: Invoker, batch: Sequence[Lease], timeout: float | None = None) -> list[Outcome]:
        """Invoke these until each has an outcome; those that were not started, or were throttled, are invoked again."""
        outcomes: dict[str, Outcome] = {}
        left = list(batch)
        in_vain = 0
        deadline = time.monotonic() + 20 * self.wait_factor
        while left and in_vain < 20:
            try:
                reports = self.reports(plane, left, timeout)
            except Throttled as error:
                if error.begun or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
                continue
            begun = [report for report in reports if isinstance(report, Outcome)]
            outcomes |= {report.task_id: report for report in begun}
            left = [each for each in left if each.task.id not in outcomes]
            in_vain = 0 if begun else in_vain + 1
        assert not left, f"{left[0].task.id} was reported as Unstarted 20 times in a row, and nothing else was run"
        return [outcomes[each.task.id] for each in batch]

    def reports(
        self, plane: Invoker, batch: Sequence[Lease], timeout: float | None = None
    ) -> list[Outcome | Unstarted]:
        """Invoke these once; returns the reports and checks that there is one for each task."""
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
        """Checks that the outcome is a failure of this kind; returns its error document."""
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
        """Checks that the next call succeeds."""
        assert self.answer(self.call(plane, "echo", value="next")) == "next"

    def side_by_side(self, plane: Invoker, size: int) -> None:
        """Have so many environments ready. A plane may start one only for a call that finds none idle, so these calls
        run at the same time."""
        for seconds in (0.1, 0.5):
            calls = [lambda seconds=seconds: self.answer(self.call(plane, "count", seconds=seconds))] * size
            answers = in_threads(calls, 60 * self.wait_factor)
            if len({each["environment"] for each in answers}) == size:
                return

    def overlap(self, plane: Invoker, size: int) -> None:
        """Checks that so many invocations run at the same time."""
        self.side_by_side(plane, size)
        overlap = 0.0
        # The longer where this machine was too busy to begin them all within the shorter.
        for seconds in (
            0.2 * self.wait_factor,
            0.5 * self.wait_factor,
            min(8 * self.wait_factor, 0.8 * plane.function.timeout),
        ):
            calls = [lambda seconds=seconds: self.answer(self.call(plane, "count", seconds=seconds))] * size
            answers = in_threads(calls, 60 * self.wait_factor)
            overlap = min(each["ended"] for each in answers) - max(each["began"] for each in answers)
            if overlap > 0:
                break
        assert overlap > 0, f"{size} invocations were not under way at the same time, though max_concurrency says so"

    def all_slots_run(self, plane: Invoker, after: str) -> None:
        """Checks that as many invocations run at the same time as are declared, after what may have taken a slot."""
        size = min(plane.max_concurrency, self.most_threads)
        try:
            in_threads([lambda: self.overlap(plane, size)], 90 * self.wait_factor)
        except (AssertionError, Unavailable) as error:
            pytest.fail(f"after {after}, the plane's {size} slots do not all work: {error}")

    def each_counted(self, answers: Sequence[Mapping[str, Any]]) -> None:
        """Checks that the handler counted no execution that was not reported."""
        last: dict[str, int] = {}
        for each in sorted(answers, key=lambda each: int(each["execution"])):
            expected = last.get(each["environment"], each["execution"] - 1) + 1
            assert each["execution"] == expected, (
                f"{each['execution'] - expected} executions in this environment were never reported: "
                f"the handler ran more often than it was invoked. Switch off the retries of the SDK"
            )
            last[each["environment"]] = each["execution"]

    def cancelled(
        self, plane: Invoker, asked: Lease, first: Callable[[], None] = lambda: None
    ) -> tuple[Outcome, float]:
        """Invoke, wait until it runs, call `first`, cancel. Returns the outcome, and how many seconds after the cancel it came."""
        ended: list[tuple[Outcome, float]] = []
        errors: list[Exception] = []

        def work() -> None:
            try:
                ended.append((self.run(plane, [asked], 6 * self.wait_factor)[0], time.monotonic()))
            except Exception as error:  # noqa: BLE001 - it is the verdict
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        time.sleep(0.5 * self.wait_factor)
        assert thread.is_alive(), "the handler had ended before it was cancelled"
        first()
        cancelled = time.monotonic()
        deadline = cancelled + plane.function.timeout + 30 * self.wait_factor
        while thread.is_alive():
            assert time.monotonic() < deadline, (
                f"there is no outcome {time.monotonic() - cancelled:.0f} s after `cancel`"
            )
            # Again, since on a busy machine the handler may not have begun at the first time.
            plane.cancel(["contract-not-here", asked.task.id])
            thread.join(1.0)
        assert not errors, f"`invoke` raised {errors[0]!r}, and gave no outcome, when its task was cancelled"
        return ended[0][0], ended[0][1] - cancelled


def lease(do: str, attributes: Mapping[str, str] | None = None, attempt: int = 1, **event: Any) -> Lease:
    """A task whose event tells the kit's handler what to do. No other process can be sent its receipt, as those of some sources."""
    payload = json.dumps({"do": do, **event}).encode()
    return Lease(Task(unique_id(), payload, attributes or {}), attempt, threading.Lock())


def _text(outcome: Outcome) -> str:
    return outcome.payload[:500].decode(errors="replace")

"""What a plane keeps after errors, calls that were not read to the end, and `close`."""

import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from htcgrid.spi import Capability, FailureKind, Invoker, Outcome, Rejected, Throttled, Unavailable, Unstarted

from htcgrid_contracts import sleeps
from htcgrid_contracts.common import children, descendants, eventually, in_threads, not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease


class SlotRules(InvokerHelpers):
    """A slot is an environment that can be called again."""

    def test_a_slot_outlives_failures(self, plane: Invoker) -> None:
        """After failures the plane must have as many environments as before. Otherwise each error takes one, until none
        is left. Read: spi.Invoker.max_concurrency."""
        size = min(plane.max_concurrency, self.most_threads)
        for _ in range(2 * size):
            self.failed(self.call(plane, "fail"), FailureKind.HANDLER_ERROR)
        if Capability.EXIT in plane.capabilities:
            for _ in range(size):
                self.failed(self.call(plane, "end", status=3), FailureKind.EXIT)
        self._all_slots_work(plane, "handlers failed")
        if self.largest_answer is not None:
            large = self.largest_answer + 1
            for _ in range(min(size, 4)):
                self.failed(self.call(plane, "big", bytes=large), FailureKind.PAYLOAD_TOO_LARGE)
        if self.largest_event is not None:
            event = lease("echo", value="x" * self.largest_event)
            for _ in range(min(size, 4)):
                self.failed(self.run(plane, [event])[0], FailureKind.PAYLOAD_TOO_LARGE)
        self.all_slots_run(plane, "answers and events were too large")

    @pytest.mark.capability(Capability.TIMEOUT)
    def test_a_slot_outlives_what_is_stopped(self, plane: Invoker) -> None:
        """After tasks that were stopped, at their timeout or by `cancel`, the plane must have as many environments as before.
        Read: spi.Invoker.max_concurrency."""
        size = min(plane.max_concurrency, self.most_threads)
        seconds = self.quick_timeout
        late = seconds + 30 * self.wait_factor
        calls = [lambda: self.failed(self.call(plane, "sleep", seconds, seconds=late), FailureKind.TIMEOUT)] * size
        in_threads(calls, 60 * self.wait_factor)
        if Capability.CANCEL in plane.capabilities:
            for _ in range(min(size, 4)):
                self.works(plane)
                asked = lease("sleep", seconds=30 * self.wait_factor)
                self.failed(self.cancelled(plane, asked)[0], FailureKind.CANCELLED)
        self.all_slots_run(plane, "tasks were stopped")

    def test_a_slot_outlives_an_abandoned_call(self, plane: Invoker) -> None:
        """When a caller does not read all reports of `invoke`, the environment must be free again. A thread of the
        agent may end in the middle of a call. Read: spi.Invoker.invoke."""
        size = min(plane.max_concurrency, self.most_threads)
        for _ in range(size + 1):
            batch = [lease("echo", value=number) for number in range(min(plane.max_batch, 2))]
            reports = iter(plane.invoke(batch, plane.function.timeout))
            next(reports)
            del reports
        if plane.max_batch > 1:
            seconds = 6 * self.wait_factor
            reports = iter(plane.invoke([lease("echo", value=1), lease("sleep", seconds=seconds)], 2 * seconds))
            next(reports)
            del reports
            for _ in range(size):  # it is free once that task has ended, or was stopped
                self.answer(self.call(plane, "echo", self.short_timeout, value=1))
        self._all_slots_work(plane, "reports were left unread")

    def test_more_calls_than_slots_are_all_answered(self, plane: Invoker) -> None:
        """When there are more calls than `max_concurrency` at the same time, all must be answered.
        Read: spi.Invoker.max_concurrency."""
        size = min(plane.max_concurrency, self.most_threads)
        calls = [
            lambda number=number: self.answer(self.call(plane, "echo", value=number)) for number in range(3 * size)
        ]
        assert in_threads(calls, 60 * self.wait_factor) == list(range(3 * size))

    @pytest.mark.capability(Capability.CANCEL)
    def test_cancel_stops_every_task_that_it_is_given(self, plane: Invoker) -> None:
        """`cancel` must stop every task that it is given, not only the first: a user cancels a whole session.
        Read: spi.Invoker.cancel."""
        size = min(plane.max_concurrency, 2)
        if size == 1:
            not_asked("max_concurrency is 1: nothing runs beside the cancelled task")
        self.side_by_side(plane, size)
        asked = [lease("sleep", seconds=30 * self.wait_factor) for _ in range(size)]
        ended: list[Outcome] = []

        def run(number: int) -> None:
            ended.append(self.run(plane, [asked[number]], 6 * self.wait_factor)[0])

        def cancel() -> None:
            time.sleep(0.5 * self.wait_factor)
            others = [f"contract-not-here-{number}" for number in range(120)]  # a session has many, elsewhere
            plane.cancel([*others, *(each.task.id for each in asked)])

        calls: list[Callable[[], None]] = [lambda number=number: run(number) for number in range(size)]  # type: ignore[misc]
        in_threads([*calls, cancel], plane.function.timeout + 60 * self.wait_factor)
        for outcome in ended:
            self.failed(outcome, FailureKind.CANCELLED)

    # --- more, fewer, too many ---

    def test_a_plane_that_grows_says_so_while_it_is_open(self, invoker: Invoker) -> None:
        """When the plane gets more environments, `max_concurrency` must grow. The agent then starts more threads.
        Read: spi.Invoker.max_concurrency."""
        self.needs("resize")
        with self.again(invoker) as plane:
            self.works(plane)
            size = plane.max_concurrency + 1
            self.resize(plane, size)
            self._learns(plane, size, "grown")
            self.overlap(plane, size)

    def test_a_plane_that_shrinks_says_so_and_ends_no_invocation(self, invoker: Invoker, tmp_path: Path) -> None:
        """When the plane loses environments, `max_concurrency` must fall. Invocations that run must not be ended, nor
        run again elsewhere. Read: spi.Invoker.max_concurrency."""
        self.needs("resize")
        with self.again(invoker) as plane:
            size = min(plane.max_concurrency, self.most_threads)
            if size == 1:
                not_asked(
                    "give the plane 2 environments, by an option or in the fixture: max_concurrency is 1, and cannot fall"
                )
            self.side_by_side(plane, size)
            seen = self.marks(tmp_path)

            def shrink() -> None:
                time.sleep(0.5 * self.wait_factor)
                self.resize(plane, 1)

            def run(number: int) -> None:
                event: dict[str, Any] = {"seconds": 3 * self.wait_factor, "value": "kept"}
                if seen is not None:
                    event["mark"] = f"{seen}/{number}"
                assert self.answer(self.call(plane, "sleep", **event)) == "kept"

            try:
                calls: list[Callable[[], None]] = [partial(run, number) for number in range(size)]
                in_threads([*calls, shrink], 60 * self.wait_factor)
                self._learns(plane, 1, "shrunk")
            finally:
                self.resize(plane, size)  # the other rules need the environments
            for number in range(size if seen is not None else 0):
                times = len((tmp_path / str(number)).read_text().splitlines())
                assert times == 1, f"one invocation ran {times} times: when its environment is to go, let it end there"

    def test_throttling_is_told_apart_from_what_is_away(self, invoker: Invoker) -> None:
        """When the service refuses a call because there are too many, the plane must raise Throttled. The agent then
        makes fewer calls at the same time; after another Unavailable it does not. Read: spi.Throttled."""
        self.needs("throttle")
        refused = "a call that was refused, since there were too many, raised"
        with self.again(invoker) as plane:
            self.use(plane)
            for _ in range(min(plane.max_concurrency, 4)):  # each refusal may take a slot
                with self.throttled(plane), sleeps.noted() as slept:
                    try:
                        self.use(plane)
                    except Throttled as error:
                        assert not error.begun, (
                            f"a call that was refused has not begun, and `begun` names {sorted(error.begun)}"
                        )
                        wait = error.retry_after
                        assert wait is None or 0 <= wait <= 600, f"retry_after is in seconds, and is {wait:g}"
                    except Unavailable as error:
                        pytest.fail(f"{refused} Unavailable ({error}), and not Throttled")
                    else:
                        pytest.fail(f"{refused} nothing: raise Throttled")
                assert not slept, (
                    f"a call that was refused slept {sum(slept):.1f} s before it raised Throttled: try once, the agent waits"
                )
            self._all_slots_work(plane, "calls were refused")

    # --- the end ---

    def test_close_leaves_no_file_and_no_process(
        self, invoker: Invoker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`close` must leave no temporary file and no process of a handler, also after failures.
        Read: spi.Plugin.close."""
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        monkeypatch.setattr(tempfile, "tempdir", None)
        before = children(os.getpid())
        with self.again(invoker) as plane:
            self.works(plane)
            self.call(plane, "fail")
            pid = self.answer(self.call(plane, "count")).get("pid", 0)
            is_ours = any(pid == child or pid in descendants(child) for child in children(os.getpid()) - before)
        left = sorted(path.name for path in tmp_path.iterdir())
        assert not left, f"after close there are files left in the folder for temporary files: {left}"
        if is_ours:
            process = Path(f"/proc/{pid}")
            gone = 5 * self.wait_factor
            eventually(lambda: not process.exists(), gone, f"the end of the handler's process {pid} after close")

    @pytest.mark.capability(Capability.CANCEL)
    def test_close_ends_what_runs(self, invoker: Invoker, tmp_path: Path) -> None:
        """`close` must end what runs while `invoke` waits in another thread, and not wait for it: afterwards nothing of this
        agent may run there. Read: spi.Plugin.close."""
        seconds = min(30 * self.wait_factor, 0.9 * invoker.function.timeout)
        short = min(4 * self.wait_factor, seconds)
        seen = self.marks(tmp_path)
        reports: list[Outcome | Unstarted] = []
        uncounted: set[str] = set()
        """Which of the tasks did not count as an attempt."""
        with self.again(invoker) as plane:
            self.works(plane)

            def run(name: str, event: dict[str, Any]) -> None:
                asked = lease("sleep", **event)
                with suppress(Exception):  # the plane is closed
                    try:
                        found = list(plane.invoke([asked], plane.function.timeout))
                    except (Unavailable, Rejected) as error:
                        if asked.task.id not in getattr(error, "begun", ()):
                            uncounted.add(name)
                        raise
                    reports.extend(found)
                    if any(isinstance(each, Unstarted) for each in found):
                        uncounted.add(name)

            events: dict[str, dict[str, Any]] = {"long": {"seconds": seconds}}
            if seen is not None:
                events["long"]["mark"] = f"{seen}/long"
                if plane.max_concurrency > 1:
                    events["short"] = {"seconds": short, "mark": f"{seen}/short", "after": f"{seen}/ended"}
            threads = [threading.Thread(target=run, args=each, daemon=True) for each in events.items()]
            for thread in threads:
                thread.start()
            if "short" in events:
                eventually((tmp_path / "short").exists, 30 * self.wait_factor, "the mark of a handler that has begun")
            ends = time.monotonic() + short
            time.sleep(0.7 * self.wait_factor)
            has_begun = {name for name in events if (tmp_path / name).exists()}
            began = time.monotonic()
        took = time.monotonic() - began
        assert took < 0.6 * seconds, f"`close` took {took:.1f} s while a task ran: it waited for the task"
        eventually(
            lambda: not any(thread.is_alive() for thread in threads),
            5 * self.wait_factor,
            "the end of `invoke` after `close`",
        )
        named = [each for each in reports if isinstance(each, Outcome) and each.failure is FailureKind.CANCELLED]
        assert not named, "a task that `close` has ended is reported as cancelled, and `cancel` has not named it"
        assert not uncounted & has_begun, (
            "a task ran when the plane was closed, and is reported as not begun, or `invoke` raised Rejected, or Unavailable whose "
            "`begun` does not name it: its attempt counts"
        )
        if began + took < ends - 1:  # otherwise it may have ended before
            time.sleep(max(0.0, ends + self.wait_factor - time.monotonic()))
            ran = (tmp_path / "ended").exists()
            assert not ran, (
                f"`close` returned {ends - began - took:.1f} s before the end of a handler, and it ran to its end"
            )

    # --- helpers ---

    def use(self, plugin: Invoker) -> None:  # type: ignore[override]
        """Call the handler once."""
        reports = list(plugin.invoke([lease("echo", value=1)], plugin.function.timeout))
        assert len(reports) == 1

    def _learns(self, plane: Invoker, size: int, has: str) -> None:
        """Checks that `max_concurrency` becomes this number; a plane may learn it from the answers to calls."""

        def knows() -> bool:
            self.works(plane)
            return plane.max_concurrency == size

        eventually(knows, 30 * self.wait_factor, f"max_concurrency = {size} of a plane that has {has} to that")

    def _all_slots_work(self, plane: Invoker, after: str) -> None:
        size = min(plane.max_concurrency, self.most_threads)
        calls = [lambda: self.answer(self.call(plane, "echo", value=os.getpid()))] * size
        try:
            in_threads(calls, 30 * self.wait_factor)
        except AssertionError as error:
            pytest.fail(f"after {after}, the plane's {size} slots do not all work: {error}")

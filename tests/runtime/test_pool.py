"""The pool of environments that planes are made of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

import pytest

from htcgrid.runtime.environment import ExecutionEnvironment, InitFailure, Running, State
from htcgrid.runtime.pool import EnvironmentPool
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Plugin, Rejected, Task, Unavailable, Unstarted


class Fake:
    """An environment that answers with its own number, and does what a task's payload says."""

    def __init__(self, plane: Plane, number: int) -> None:
        self._plane, self.number, self.id = plane, number, str(number)
        self.state = State.STARTING
        self.is_closed = self.is_dead = False
        self.when_initialised: Callable[[float | None], None]

    def start(self) -> None:
        if self._plane.is_away:
            raise Unavailable("no machine is free")
        self.state = State.IDLE

    def invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str]
    ) -> Iterator[Outcome | Unstarted]:
        for lease in batch:
            if lease.task.payload == b"end":
                self.state = State.GONE
            if lease.task.payload == b"wait":
                self._plane.waiting.wait(10)
            yield Outcome(lease.task.id, b"%d" % self.number)

    def is_lost(self) -> bool:
        return self.is_dead

    def close(self) -> None:
        self.is_closed = True


class BreaksUnderTheSecond(ExecutionEnvironment):
    """Answers one task; then its connection breaks."""

    _is_dead = False

    def start(self) -> None:
        self._init_ms = 1.0
        self.state = State.IDLE

    def _submit(self, timeout: float) -> None:
        pass

    def _collect(self, wait: float) -> Sequence[Outcome | Unstarted]:
        if self.state is State.BUSY and len(self._pending) == 2:
            raise Unavailable("the connection broke")
        done = [self._pending.pop(sequence) for sequence in list(self._pending)[:1]]
        return [Outcome(lease.task.id, b"0") for lease in done]

    def _init_failure(self) -> InitFailure | None:
        return None

    def _running(self) -> Running | None:
        return None

    def _has_ended(self) -> bool:
        return self._is_dead

    def _end(self) -> int:
        self._is_dead = True
        return 0

    def _memory_mb(self) -> float:
        return 0.0

    def _log_tail(self) -> bytes:
        return b""

    def close(self) -> None:
        self._is_dead = True


class BreaksWhileItStarts(BreaksUnderTheSecond):
    def start(self) -> None:
        """It does not become ready."""

    def _collect(self, wait: float) -> Sequence[Outcome]:
        raise Unavailable("the connection broke")


class Plane(EnvironmentPool):
    def __init__(self, *, starts_early: bool = True) -> None:
        super().__init__(Plugin.Config(), Function())
        self.starts_early = starts_early
        self.is_away = False
        self.made: list[Fake] = []
        self.waiting = threading.Event()

    def size(self) -> int:
        return 2

    def environment(self, place: int) -> Fake:  # type: ignore[override]
        self.made.append(Fake(self, len(self.made)))
        return self.made[-1]


class Losing(Plane):
    """A plane of real environments, whose connections break under the second task."""

    def environment(self, place: int) -> BreaksUnderTheSecond:  # type: ignore[override]
        if self.is_away:
            raise Unavailable("no machine is free")
        return BreaksUnderTheSecond(self.function)


def call(plane: Plane, *payloads: bytes) -> list[bytes]:
    batch = [Lease(Task(str(number), payload)) for number, payload in enumerate(payloads)]
    return [report.payload for report in plane.invoke(batch, 5) if isinstance(report, Outcome)]


def test_environments_are_started_when_the_plane_is_opened_and_closed_with_it() -> None:
    plane = Plane()
    with plane:
        assert [fake.state for fake in plane.made] == [State.IDLE, State.IDLE]
        assert plane.max_concurrency == 2
    assert all(fake.is_closed for fake in plane.made)


def test_an_environment_that_has_ended_is_closed_and_replaced() -> None:
    with Plane() as plane:
        (answer,) = call(plane, b"end")
        assert plane.made[int(answer)].is_closed
        assert call(plane, b"1") == [b"2"]


def test_a_plane_is_told_of_an_environment_that_could_not_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    with Plane() as plane:
        monkeypatch.setattr(plane, "removed", lambda environment, _place: told.append(environment.number))

        def refused() -> None:
            raise Rejected("device or resource busy")

        for fake in plane.made:
            monkeypatch.setattr(fake, "close", refused)
        with pytest.raises(Rejected, match="busy"):
            call(plane, b"end")
        assert len(told) == 1
        monkeypatch.undo()


def test_one_that_ended_while_idle_is_replaced_before_it_is_given_anything() -> None:
    with Plane() as plane:
        for fake in plane.made:
            fake.is_dead = True
        assert call(plane, b"1") == [b"2"]


@pytest.mark.parametrize("starts_early", [True, False])
def test_a_place_that_cannot_be_filled_now_is_filled_once_the_plane_is_back(*, starts_early: bool) -> None:
    with Plane(starts_early=starts_early) as plane:
        call(plane, b"1")
        plane.is_away = True
        for fake in plane.made:
            fake.is_dead = True
        for _ in range(4):
            with pytest.raises(Unavailable, match="no machine is free"):
                call(plane, b"end")
        plane.is_away = False
        assert [len(call(plane, b"1")) for _ in range(4)] == [1] * 4
        assert plane.busy() == 0


def test_a_plane_that_starts_late_starts_nothing_in_vain() -> None:
    with Plane(starts_early=False) as plane:
        assert plane.made == []
        assert call(plane, b"1") == call(plane, b"1") == [b"0"]
        assert len(plane.made) == 1


def test_a_task_under_which_the_environment_was_lost_may_have_run_and_those_behind_it_did_not() -> None:
    with Losing() as plane, pytest.raises(Unavailable) as caught:
        call(plane, b"1", b"lost", b"3")
    assert caught.value.begun == {"1"}


def test_a_task_whose_environment_was_lost_before_it_was_ready_has_not_run() -> None:
    lease = Lease(Task("a", b"1"))
    with pytest.raises(Unavailable, match="the connection broke") as caught:
        list(BreaksWhileItStarts(Function()).invoke([lease], 5))
    assert not caught.value.begun


def test_a_task_under_which_the_environment_was_lost_is_named_though_no_other_environment_can_be_started() -> None:
    with Losing() as plane:
        plane.is_away = True
        with pytest.raises(Unavailable, match="the connection broke") as caught:
            call(plane, b"1", b"lost", b"3")
        assert caught.value.begun == {"1"}
        assert plane.busy() == 0


def test_a_place_is_free_again_when_a_call_is_left_early() -> None:
    with Plane() as plane:
        batch = [Lease(Task("a", b"1")), Lease(Task("b", b"1"))]
        for _ in range(5):
            reports = iter(plane.invoke(batch, 5))
            next(reports)
            reports.close()  # type: ignore[attr-defined]
        assert plane.busy() == 0


class Slow(Fake):
    """An environment that comes up when its plane is told so."""

    init_seconds = 10.0
    _plane: SlowPlane

    def start(self) -> None:
        """It is left in the state STARTING."""

    def comes_up(self, wait: float) -> bool:
        return False

    def wake(self) -> None:
        """Nothing waits in it."""

    def is_loading(self) -> bool:
        return self._plane.is_computing

    def invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str]
    ) -> Iterator[Outcome | Unstarted]:
        if self.state is State.STARTING:
            assert self._plane.up[self.number].wait(10)
            self.state = State.IDLE
            self.when_initialised(self.init_seconds)
        yield from super().invoke(batch, timeout, cancelled)


class SlowPlane(Plane):
    """Three places, of which one may start at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.is_computing = True
        self.up = [threading.Event() for _ in range(3)]

    def size(self) -> int:
        return 3

    def starting_at_once(self) -> int:
        return 1

    def environment(self, place: int) -> Fake:  # type: ignore[override]
        self.made.append(Slow(self, len(self.made)))
        return self.made[-1]


def begin(plane: Plane, *payloads: bytes) -> tuple[threading.Thread, list[bytes]]:
    answers: list[bytes] = []
    thread = threading.Thread(target=lambda: answers.extend(call(plane, *payloads)))
    thread.start()
    return thread, answers


def test_no_more_environments_start_at_a_time_than_the_plane_says_and_each_gives_its_turn_to_the_next() -> None:
    with SlowPlane() as plane:
        calls = [begin(plane, b"wait") for _ in range(3)]
        for number in range(3):
            until(lambda number=number: len(plane.made) == number + 1)  # type: ignore[misc]
            plane.up[number].set()
        plane.waiting.set()
        for thread, _ in calls:
            thread.join(10)
        assert sorted(answers[0] for _, answers in calls) == [b"0", b"1", b"2"]


def test_a_task_takes_an_environment_that_has_become_idle_rather_than_wait_for_one_to_start() -> None:
    with SlowPlane() as plane:
        plane.up[0].set()
        assert call(plane, b"1") == [b"0"]
        first, _ = begin(plane, b"wait")  # in 0
        until(lambda: plane.busy() == 1)
        second, _ = begin(plane, b"1")  # starts 1, which does not come up
        until(lambda: len(plane.made) == 2)
        third, answers = begin(plane, b"1")  # may not start 2
        plane.waiting.set()
        third.join(10)
        assert answers == [b"0"]
        assert len(plane.made) == 2
        plane.up[1].set()
        for thread in (first, second):
            thread.join(10)


def test_a_start_that_only_waits_holds_up_no_other() -> None:
    with SlowPlane() as plane:
        plane.is_computing = False
        first, _ = begin(plane, b"1")
        second, _ = begin(plane, b"1")
        until(lambda: len(plane.made) >= 2)
        for event in plane.up:
            event.set()
        for thread in (first, second):
            thread.join(10)


def test_a_call_that_waits_for_a_place_ends_when_its_task_is_cancelled() -> None:
    with SlowPlane() as plane:
        first, _ = begin(plane, b"1")
        until(lambda: plane.busy() == 1)
        reports: list[Outcome | Unstarted] = []
        batch = [Lease(Task("a", b"1")), Lease(Task("b", b"1"))]
        waiting = threading.Thread(target=lambda: reports.extend(plane.invoke(batch, 5)))
        waiting.start()
        until(lambda: len(plane._calls._cancelled) == 2)
        plane.cancel(["a"])
        waiting.join(10)
        assert [(type(report), report.task_id) for report in reports] == [(Outcome, "a"), (Unstarted, "b")]
        assert isinstance(reports[0], Outcome)
        assert reports[0].failure is FailureKind.CANCELLED
        plane.up[0].set()
        first.join(10)


def test_a_quick_start_is_not_held_up_by_others() -> None:
    with SlowPlane() as plane:
        Slow.init_seconds, before = 0.01, Slow.init_seconds
        try:
            plane.up[0].set()
            call(plane, b"1")
        finally:
            Slow.init_seconds = before
        calls = [begin(plane, b"wait") for _ in range(3)]
        until(lambda: len(plane.made) == 3)
        for event in (*plane.up, plane.waiting):
            event.set()
        for thread, _ in calls:
            thread.join(10)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_plane_that_is_closed_while_a_task_runs_starts_no_other_environment() -> None:
    plane = Plane()
    plane.open()
    running = plane.invoke([Lease(Task("t", b"end"))], 1.0)
    next(iter(running))
    plane.close()
    assert [*running] == []
    with pytest.raises(Unavailable, match="closed"):
        list(plane.invoke([Lease(Task("u", b""))], 1.0))
    assert len(plane.made) == 2
    assert all(fake.is_closed for fake in plane.made)

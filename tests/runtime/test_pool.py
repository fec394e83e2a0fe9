"""The pool of environments that planes are made of."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Sequence

import pytest

from htcgrid.runtime.environment import State
from htcgrid.runtime.pool import EnvironmentPool
from htcgrid.spi import Function, Lease, Outcome, Plugin, Task, Unavailable, Unstarted


class Fake:
    """An environment that answers with its own number, and does what a task's payload says."""

    def __init__(self, plane: Plane, number: int) -> None:
        self._plane, self.number = plane, number
        self.state = State.STARTING
        self.is_closed = self.is_dead = False

    def start(self) -> None:
        if self._plane.is_away:
            raise Unavailable("no machine is free")
        self.state = State.IDLE

    def invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str]
    ) -> Iterator[Outcome | Unstarted]:
        for lease in batch:
            if lease.task.payload == b"lost":
                raise Unavailable("the connection broke")
            if lease.task.payload == b"end":
                self.state = State.GONE
            if lease.task.payload == b"wait":
                self._plane.waiting.wait(10)
            yield Outcome(lease.task.id, b"%d" % self.number)

    def is_lost(self) -> bool:
        return self.is_dead

    def close(self) -> None:
        self.is_closed = True


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
    with Plane() as plane, pytest.raises(Unavailable) as caught:
        call(plane, b"1", b"lost", b"3")
    assert caught.value.begun == {"1"}


def test_a_place_is_free_again_when_a_call_is_left_early() -> None:
    with Plane() as plane:
        batch = [Lease(Task("a", b"1")), Lease(Task("b", b"1"))]
        for _ in range(5):
            reports = iter(plane.invoke(batch, 5))
            next(reports)
            reports.close()  # type: ignore[attr-defined]
        assert plane.busy() == 0

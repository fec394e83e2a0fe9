from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from htcgrid.agent.agent import Agent
from htcgrid.agent.options import AgentOptions
from htcgrid.agent.policy import back_off
from htcgrid.agent.prefetch import Prefetch, begun_within, held_seconds, kept, wanted
from htcgrid.builtin.memory import MemorySink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, Invoker, Lease, Outcome, Task, Unavailable, Unstarted

Until = Callable[[Callable[[], object]], None]

means = st.floats(1e-6, 1000)
ages = st.lists(st.none() | st.floats(0, 1000), min_size=1, max_size=64)
receives = st.floats(0, 10)

# --- the policy ----------------------------------------------------------------------------------------


@given(st.none() | means, st.integers(1, 512), receives, ages)
def test_the_number_of_tasks_held_is_bounded(
    mean: float | None, batch: int, receive: float, running: list[float]
) -> None:
    assert 0 <= wanted(mean, batch, receive, running) <= 8192


@given(means, st.integers(1, 512), receives, ages)
def test_what_was_just_received_is_not_returned(mean: float, batch: int, receive: float, running: list[float]) -> None:
    assert kept(mean, batch, receive, running) >= wanted(mean, batch, receive, running)


@given(st.floats(0.51, 1000), receives, st.integers(1, 64))
def test_no_task_is_held_for_half_a_second(mean: float, receive: float, slots: int) -> None:
    held = wanted(mean, 1, receive, [0.0] * slots)
    assert held * mean / slots <= 0.5


def test_nothing_is_held_until_the_time_of_a_task_is_known() -> None:
    assert wanted(None, 1, 0.01, [0.0, None]) == 0


@given(st.integers(0, 100))
def test_once_the_queue_was_empty_no_more_are_held_than_twice_what_has_ended_since(ended: int) -> None:
    assert wanted(0.0001, 64, 0.01, [0.0, 0.0], ended) == min(2 * ended, wanted(0.0001, 64, 0.01, [0.0, 0.0]))


def test_an_agent_that_finds_the_queue_empty_leaves_what_comes_then_to_others_too() -> None:
    prefetch = Prefetch(1, is_shared=True)
    prefetch.learn(0.1, 100, 64)
    assert prefetch.size() > 1
    prefetch.ran_dry()
    assert prefetch.size() == 0


@given(means, st.floats(0.6, 1000))
def test_a_slot_whose_task_is_long_holds_nothing(mean: float, over: float) -> None:
    assert wanted(mean, 1, 0.5, [mean + over]) == 0


def test_a_slot_whose_task_is_long_leaves_the_tasks_of_the_others() -> None:
    assert wanted(0.01, 1, 0.1, [5.0, 0.0]) == wanted(0.01, 1, 0.1, [0.0])


def test_a_queue_whose_receives_are_slow_for_a_while_does_not_count_as_empty() -> None:
    prefetch = Prefetch(2, is_shared=True)
    for seconds in [0.016, *[0.12, 0.15] * 7]:
        prefetch.received(seconds)
        prefetch.waited(seconds)
        prefetch.learn(0.025, 10, 1)
    assert prefetch.size() >= 100


def test_a_distant_queue_is_bridged_from_its_first_receive_on() -> None:
    prefetch = Prefetch(1, is_shared=True)
    prefetch.received(0.008)
    prefetch.learn(1.0, 100, 1)
    assert prefetch.size() == pytest.approx(held_seconds(0.008, 0.0) / 0.010, abs=1)


@given(receives)
def test_a_receive_is_bridged_for_half_a_second_at_most(receive: float) -> None:
    assert 0.1 <= held_seconds(receive, 0.0) <= 0.5


@given(st.floats(0.001, 10), st.none() | means, ages)
def test_an_idle_slot_counts_for_one_task_at_least(seconds: float, mean: float | None, running: list[float]) -> None:
    assert begun_within(seconds, mean, [*running, None]) >= begun_within(seconds, mean, running) + 0.999


def test_a_queue_that_nobody_else_reads_is_prefetched_from_however_long_a_task_runs() -> None:
    prefetch = Prefetch(1)
    prefetch.learn(0.01, 1, 1)
    batch = {"a": 1}
    prefetch.look({0: batch})
    prefetch.look({0: batch})
    assert prefetch.size() == 50
    assert prefetch.most() is None


# --- two agents, one queue -----------------------------------------------------------------------------


class Plane(Invoker):
    """Waits for as long as each event says; frees what is behind a long one, as worker processes do."""

    max_batch = 64

    def __init__(self, slots: int = 1) -> None:
        super().__init__(self.Config(), Function(timeout=60))
        self.max_concurrency = slots
        self.began: dict[str, float] = {}
        self.free = threading.Event()
        """Ends all waits."""
        self.is_down = False

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        waiting = list(batch)
        if self.is_down:
            raise Unavailable("the container may be restarting")
        while waiting:
            lease = waiting.pop(0)
            seconds = json.loads(lease.task.payload)
            began = self.began[lease.task.id] = time.monotonic()
            self.free.wait(min(seconds, 0.05))
            if seconds > 0.05:
                yield from (Unstarted(each.task.id) for each in waiting)
                waiting.clear()
                self.free.wait(seconds - 0.05)
            yield Outcome(lease.task.id, b"1", duration_ms=(time.monotonic() - began) * 1000)


class Queue:
    """A sqlite queue, its agents, and the results."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sink = MemorySink(MemorySink.Config(), Function())
        self.sources: list[SqliteSource] = []
        self.submitter = self.source()
        self.agents: list[Agent] = []
        self.threads: list[threading.Thread] = []

    def source(self) -> SqliteSource:
        source = SqliteSource(SqliteSource.Config(path=self.path, lease_seconds=60, drain=True), Function())
        source.open()
        self.sources.append(source)
        return source

    def put(self, name: str, seconds: float, count: int, session: str = "s", priority: int = 0) -> None:
        attributes = {"session_id": session, "priority": str(priority)}
        self.submitter.put([Task(f"{name}-{each}", str(seconds).encode(), attributes) for each in range(count)])

    def start(self, slots: int = 1) -> Plane:
        plane = Plane(slots)
        agent = Agent(self.source(), plane, self.sink, AgentOptions(linger=0.001))
        thread = threading.Thread(target=agent.run)
        thread.start()
        self.agents.append(agent)
        self.threads.append(thread)
        return plane

    def start_holding(self, tasks: int) -> tuple[Plane, Agent]:
        """An agent that holds so many tasks, however long they take."""
        plane = Plane()
        agent = Agent(self.source(), plane, self.sink, AgentOptions(linger=0.001))
        prefetch = agent._leases.prefetch
        prefetch.size = lambda: tasks  # type: ignore[method-assign]
        prefetch.most = lambda: None  # type: ignore[method-assign]
        thread = threading.Thread(target=agent.run)
        self.threads.append(thread)
        thread.start()
        return plane, agent

    def finish(self) -> None:
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "queue.db")
    yield queue
    for source in queue.sources:
        source.close()


def test_long_tasks_behind_short_ones_are_shared_by_two_agents(grid: Queue, until: Until) -> None:
    grid.put("short", 0.001, 400)
    grid.put("long", 0.25, 16)
    planes = [grid.start()]
    until(lambda: planes[0].began)
    planes.append(grid.start())
    grid.finish()
    shares = [sum(task_id.startswith("long") for task_id in plane.began) for plane in planes]
    assert len(grid.sink.results) == 416
    assert sum(shares) == 16
    assert min(shares) >= 6


def test_tasks_behind_a_long_one_go_to_the_agent_that_is_idle(grid: Queue, until: Until) -> None:
    grid.put("short", 0.001, 300)
    grid.put("long", 30.0, 1)
    grid.put("behind", 0.001, 300)
    hoarder = grid.start()
    until(lambda: "long-0" in hoarder.began)
    other = grid.start()
    until(lambda: len(grid.sink.results) == 600)
    assert "long-0" not in other.began
    assert all(grid.sink.results[f"behind-{each}"].attempt <= 3 for each in range(300))
    hoarder.free.set()
    grid.finish()


def test_tasks_do_not_wait_in_an_agent_whose_plane_is_unavailable_while_another_agent_is_idle(
    grid: Queue, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.agent.backoff.back_off", back_off)  # the shortened one would call hundreds of times
    grid.put("short", 0.001, 300)
    grid.put("long", 30.0, 1)
    down = grid.start(3)
    until(lambda: "long-0" in down.began)
    other = grid.start()
    until(lambda: len(grid.sink.results) == 300)
    down.is_down = True  # for what begins now
    grid.put("later", 0.001, 30)
    until(lambda: len(grid.sink.results) == 330)
    assert sum(task_id.startswith("later") for task_id in other.began) == 30
    assert all(grid.sink.results[f"later-{each}"].attempt <= 3 for each in range(30))
    down.is_down = False
    down.free.set()
    grid.finish()


def test_a_task_of_a_high_priority_begins_next(grid: Queue, until: Until) -> None:
    grid.put("low", 0.2, 12)
    plane = grid.start()
    until(lambda: len(plane.began) >= 3)
    grid.put("high", 0.001, 1, priority=5)
    put = time.monotonic()
    grid.finish()
    later = [task_id for task_id, began in plane.began.items() if task_id != "high-0" and began > put]
    overtaken = [task_id for task_id in later if plane.began[task_id] > plane.began["high-0"]]
    assert len(later) - len(overtaken) <= 1  # one may have been received in this very moment


def test_a_task_of_a_high_priority_overtakes_those_that_wait_in_the_agent(grid: Queue, until: Until) -> None:
    grid.put("low", 30.0, 1)
    grid.put("low-short", 0.001, 5)
    plane, agent = grid.start_holding(12)  # room for both that follow, though the first wakes the receive by itself
    until(lambda: agent.held == 6 and plane.began)
    grid.put("high", 0.001, 1, priority=5)
    grid.put("higher", 0.001, 1, priority=6)
    until(lambda: agent.held == 8)
    plane.free.set()
    grid.finish()
    order = sorted(plane.began, key=lambda task_id: plane.began[task_id])
    assert order[1:3] == ["higher-0", "high-0"]


def test_what_waits_in_an_agent_never_begins_once_its_session_is_cancelled(grid: Queue, until: Until) -> None:
    grid.put("first", 30.0, 1, session="kept")
    grid.put("cancelled", 0.1, 5, session="cancelled")
    grid.put("last", 0.1, 1, session="kept")
    plane, agent = grid.start_holding(8)
    until(lambda: agent.held == 7 and plane.began)
    began = plane.began["first-0"]
    until(lambda: time.monotonic() > began + 0.2)  # a look is worth its time, and they are no longer new here
    assert len(grid.submitter.cancel("cancelled")) == 5
    plane.free.set()
    grid.finish()
    assert sorted(plane.began) == ["first-0", "last-0"]


def test_no_task_of_a_cancelled_session_begins_later_than_those_that_ran(
    grid: Queue, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Prefetch, "is_worth", lambda *_: True)  # also where a busy machine makes a look costly
    grid.put("a", 0.15, 40, session="cancelled")
    planes = [grid.start(2), grid.start(2)]
    until(lambda: sum(len(plane.began) for plane in planes) >= 8)
    grid.submitter.cancel("cancelled")
    ended = time.monotonic()
    grid.put("b", 0.01, 4)
    until(lambda: len([task_id for task_id in grid.sink.results if task_id.startswith("b")]) == 4)
    grid.finish()
    begun = [began for plane in planes for task_id, began in plane.began.items() if task_id.startswith("a")]
    late = [began - ended for began in begun if began > ended]
    assert len(late) <= 4, "each of four slots may have been about to begin one"

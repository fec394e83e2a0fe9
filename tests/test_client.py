"""`Grid.open(...).map(...)`: with its own agent, and with a queue that agents elsewhere serve."""

import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from htcgrid import FunctionError, Grid
from htcgrid.agent.leases import LeaseTable
from htcgrid.config import ConfigError
from htcgrid.mapped import BATCH
from htcgrid.spi import FailureKind, HtcgridError, Unavailable

HANDLERS = """\
import os, time

def handler(event, context):
    time.sleep(event.get("sleep", 0))
    while "after" in event and not os.path.exists(event["after"]):
        time.sleep(0.01)
    with open(event["note"], "a") if "note" in event else open("/dev/null", "w") as file:
        print(event["n"], file=file)
    if event.get("raise"):
        raise ValueError("no such price")
    return event["n"] * 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    return tmp_path


def waiting_for(answers: Iterator[Any]) -> tuple[threading.Thread, list[HtcgridError]]:
    """A thread that takes the next answer, and the error that it got in its place."""
    raised: list[HtcgridError] = []

    def wait() -> None:
        try:
            next(answers)
        except HtcgridError as error:
            raised.append(error)

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    return waiter, raised


def embedded(folder: Path, **function: Any) -> dict[str, Any]:
    function = {"handler": "handlers.handler", "code": str(folder), "timeout": 20, **function}
    return {"function": function, "planes": {"local": {"plugin": "process", "workers": 2}}}


@pytest.fixture
def grid(folder: Path) -> Iterator[Grid]:
    with Grid.open(settings=embedded(folder)) as grid:
        yield grid


@pytest.fixture
def queue(folder: Path) -> Iterator[Path]:
    """A config with a queue, and two agents that serve it."""
    file = folder / "htcgrid.toml"
    file.write_text(
        '[function]\nhandler = "handlers.handler"\ntimeout = 20\n'
        '[source]\nplugin = "sqlite"\npath = "grid.db"\n[sink]\nplugin = "sqlite"\npath = "grid.db"\n'
        '[planes.local]\nplugin = "process"\nworkers = 1\n'
    )
    program: list[str | Path] = [Path(sys.executable).with_name("htcgrid"), "run", "--quiet"]
    agents = [subprocess.Popen(program, cwd=folder, stderr=subprocess.DEVNULL) for _ in range(2)]
    yield file
    for agent in agents:
        wait_until_it_drains_on_a_signal(agent)
        agent.terminate()
    assert {agent.wait(60) for agent in agents} <= {0, 1}


def wait_until_it_drains_on_a_signal(agent: subprocess.Popen[bytes]) -> None:
    """One that is still starting ends at once on SIGTERM. SIGHUP is caught only by one that runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        status = Path(f"/proc/{agent.pid}/status").read_text()
        caught = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), 16)
        if caught >> (signal.SIGHUP - 1) & 1:
            return
        time.sleep(0.02)
    pytest.fail("the agent did not come up")


def test_answers_come_in_the_order_of_the_events(grid: Grid) -> None:
    events = [{"n": n, "sleep": 0.3 if n == 0 else 0} for n in range(50)]
    assert list(grid.map(events)) == [2 * n for n in range(50)]


def test_answers_come_as_they_are_ready_where_no_order_is_asked(grid: Grid, folder: Path) -> None:
    gate = folder / "gate"
    answers = grid.map([{"n": 0, "after": str(gate)}, *({"n": n} for n in range(1, 10))], ordered=False)
    assert sorted(next(answers) for _ in range(9)) == [2 * n for n in range(1, 10)]
    gate.touch()
    assert list(answers) == [0]


def test_thousands_of_answers_each_once(grid: Grid) -> None:
    assert list(grid.map({"n": n} for n in range(5000))) == [2 * n for n in range(5000)]
    assert list(grid.map([])) == []


@pytest.mark.parametrize("ordered", [True, False])
def test_events_without_end_are_taken_as_their_answers_are_read(
    grid: Grid, ordered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.mapped.WINDOW", 2000)
    taken = 0

    def events() -> Iterator[dict[str, int]]:
        nonlocal taken
        for number in itertools.count():
            taken += 1
            yield {"n": number}

    answers = grid.map(events(), ordered=ordered)
    read = list(itertools.islice(answers, 5000))
    assert len(set(read)) == 5000
    assert taken <= 5000 + 2000 + 1000  # the window, and a batch
    answers.close()  # type: ignore[attr-defined]


def test_maps_side_by_side_get_their_own_answers(grid: Grid) -> None:
    one = grid.map({"n": n} for n in range(100))
    two = grid.map({"n": n} for n in range(1000, 1100))
    assert list(zip(one, two, strict=True)) == [(2 * n, 2 * n + 2000) for n in range(100)]


def test_events_are_under_way_before_the_first_answer_is_asked_for(grid: Grid, folder: Path) -> None:
    answers = grid.map([{"n": 1, "note": str(folder / "note")}])
    assert list(grid.map([{"n": 5}])) == [10]  # behind it in the queue
    assert next(answers) == 2
    assert (folder / "note").read_text() == "1\n"


def test_a_failure_is_raised_where_its_answer_would_be(grid: Grid) -> None:
    answers = grid.map([{"n": 1}, {"n": 2, "raise": True}, {"n": 3}])
    assert next(answers) == 2
    with pytest.raises(FunctionError, match="ValueError: no such price") as raised:
        next(answers)
    assert raised.value.kind is FailureKind.HANDLER_ERROR
    assert raised.value.document["errorType"] == "ValueError"
    assert raised.value.task_id.endswith("_2")


def test_outcomes_show_failures_beside_answers(grid: Grid) -> None:
    outcomes = list(grid.outcomes([{"n": 1}, {"n": 2, "raise": True}]))
    assert [outcome.failure for outcome in outcomes] == [None, FailureKind.HANDLER_ERROR]
    assert json.loads(outcomes[0].payload) == 2


def test_what_is_not_awaited_any_more_does_not_run(grid: Grid, folder: Path) -> None:
    note = folder / "note"
    events = [{"n": n, "sleep": 0.05, "note": str(note)} for n in range(1000)]
    with pytest.raises(FunctionError):
        list(grid.map([{"n": -1, "raise": True}, *events]))
    assert list(grid.map([{"n": 5}])) == [10]  # not behind a thousand others
    assert not note.exists() or len(note.read_text().split()) < 100


def test_what_was_put_before_the_events_ended_in_an_error_does_not_run(grid: Grid, folder: Path) -> None:
    note = folder / "note"

    def events() -> Iterator[dict[str, Any]]:
        for n in range(BATCH):
            yield {"n": n, "sleep": 0.05, "note": str(note)}
        raise LookupError("no more events")

    with pytest.raises(LookupError):
        grid.map(events())
    assert list(grid.map([{"n": 5}])) == [10]  # not behind a thousand others
    assert not note.exists() or len(note.read_text().split()) < 100


def test_a_grid_that_is_closed_while_events_are_taken_says_so(folder: Path) -> None:
    grid = Grid.open(settings=embedded(folder))

    def events() -> Iterator[dict[str, Any]]:
        yield {"n": 1}
        grid.close()

    with pytest.raises(ConfigError, match="closed"):
        grid.map(events())


def test_an_error_of_close_leaves_nobody_waiting_for_answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def close() -> None:
        raise HtcgridError("it cannot be closed")

    grid = Grid.open(settings=embedded(folder) | {"agent": {"grace": 0.1}})
    monkeypatch.setattr(grid._sink, "close", close)
    waiter, raised = waiting_for(grid.map([{"n": 1, "after": str(folder / "never")}]))
    with pytest.raises(HtcgridError, match="cannot be closed"):
        grid.close()
    waiter.join(20)
    assert [type(error) for error in raised] == [ConfigError]


def test_a_function_that_cannot_be_loaded_raises_what_is_wrong(folder: Path) -> None:
    grid = Grid.open(settings=embedded(folder, handler="handlers.missing"))
    with grid, pytest.raises(HtcgridError, match="'missing' missing on module 'handlers'"):
        list(grid.map([{"n": n} for n in range(10)]))


def test_a_closed_grid_says_so(folder: Path) -> None:
    grid = Grid.open(settings=embedded(folder))
    grid.close()
    grid.close()
    with pytest.raises(ConfigError, match="closed"):
        grid.map([{"n": 1}])


def test_an_event_that_json_cannot_hold_is_the_callers_error(grid: Grid) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        grid.map([{"n": {1, 2}}])


def test_a_progress_bar_counts_the_answers(grid: Grid, capfd: pytest.CaptureFixture[str]) -> None:
    list(grid.map([{"n": n} for n in range(7)], progress=True))
    assert "7/7" in capfd.readouterr().err
    list(grid.map([{"n": n} for n in range(7)]))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("ordered", [True, False])
def test_agents_elsewhere_answer_through_a_queue(queue: Path, ordered: bool) -> None:
    with Grid.open(queue) as grid:
        answers = list(grid.map(({"n": n} for n in range(2500)), ordered=ordered))
    assert sorted(answers) == [2 * n for n in range(2500)]
    if ordered:
        assert answers == sorted(answers)


def test_a_failure_through_a_queue_is_raised_too(queue: Path) -> None:
    with Grid.open(queue) as grid, pytest.raises(FunctionError, match="no such price"):
        list(grid.map([{"n": 1, "raise": True}]))
    with Grid.open(queue) as grid:
        assert list(grid.map([{"n": 4}])) == [8]


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_program_whose_standard_streams_are_closed(tmp_path: Path, closed: str) -> None:
    (tmp_path / "h.py").write_text("def handler(event, context):\n    print('hello')\n    return event\n")
    (tmp_path / "htcgrid.toml").write_text(
        '[function]\nhandler = "h.handler"\n[planes.local]\nplugin = "process"\nworkers = 2\n'
    )
    program = "from htcgrid import Grid\nwith Grid.open('htcgrid.toml') as grid: answers = list(grid.map([1, 2, 3]))\n"
    program += "open('answers', 'w').write(repr(answers))\n"
    line = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", program]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "answers").read_text()) == (0, "[1, 2, 3]"), done.stderr


def test_closing_a_grid_ends_the_wait_for_a_store_that_is_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "htcgrid.toml").write_text(
        '[function]\nhandler = "handlers.handler"\n[source]\nplugin = "sqlite"\npath = "grid.db"\n'
        '[sink]\nplugin = "sqlite"\npath = "results.db"\n[agent]\nunavailable_limit = 1000\n'
    )
    asked = threading.Event()

    def away(*_: object) -> None:
        asked.set()
        raise Unavailable("the store is away", retry_after=900.0)

    grid = Grid.open(folder / "htcgrid.toml")
    monkeypatch.setattr(grid._sink, "scan", away, raising=False)
    monkeypatch.setattr(grid._sink, "get", away)
    waiter, raised = waiting_for(grid.map([{"n": 1}]))
    assert asked.wait(20)
    grid.close()
    waiter.join(10)
    assert not waiter.is_alive()
    assert raised


def test_one_event_for_a_function_that_cannot_be_loaded_raises_what_is_wrong(folder: Path) -> None:
    grid = Grid.open(settings=embedded(folder, handler="handlers.missing"))
    with grid, pytest.raises(HtcgridError, match="'missing' missing on module 'handlers'"):
        list(grid.map([{"n": 1}]))


def test_answers_of_an_embedded_agent_come_by_an_event_and_not_by_a_look(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(grid.map([{"n": 0}]))
    looks: list[float] = []
    monkeypatch.setattr("htcgrid.client.Pauses.pause", lambda _self: looks.append(0))
    assert list(grid.map({"n": n, "sleep": 0.01} for n in range(30))) == [2 * n for n in range(30)]
    assert looks == []


def test_maps_of_several_threads_have_their_own_answers(grid: Grid) -> None:
    answers: dict[int, list[Any]] = {}

    def read(first: int) -> None:
        answers[first] = list(grid.map({"n": n} for n in range(first, first + 200)))

    threads = [threading.Thread(target=read, args=(1000 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {first: [2 * n for n in range(first, first + 200)] for first in range(0, 4000, 1000)}


def test_a_map_that_begins_after_the_agent_has_failed_has_the_agents_error(folder: Path) -> None:
    (folder / "handlers.py").write_text("raise RuntimeError('no data')")
    with Grid.open(settings=embedded(folder)) as grid:
        for _ in range(2):
            with pytest.raises(HtcgridError):
                list(grid.map([{"n": 1}]))


def test_an_answer_does_not_wait_for_company_while_another_task_runs(
    grid: Grid, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(grid.map([{"n": 0}]))
    waits: list[float] = []
    wait = LeaseTable.wait_for_work

    def noting(table: LeaseTable, most: int, linger: float) -> bool:
        waits.append(linger)
        return wait(table, most, linger)

    monkeypatch.setattr(LeaseTable, "wait_for_work", noting)
    gate = folder / "gate"
    answers = grid.map([{"n": 1, "after": str(gate)}, {"n": 2}], ordered=False)
    assert next(answers) == 4
    gate.touch()
    assert list(answers) == [2]
    assert max(waits) < 0.01

"""The story of issue and mending, whole: 300 tasks of which 43 fail, kills on the way, and a million results."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program_end import output_at_end

from htcgrid.builtin.jsonl_sink import JsonlSink
from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.spi import FailureKind, Function, Outcome, Result, ResultSink, Task

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done, Project

    Inside = Callable[..., Done]

pytestmark = pytest.mark.slow
COUNT, FAILED = 300, 43
BROKEN = """\
def handler(event, context):
    if event["n"] % 7 == 1:
        raise ValueError(f"no price for {event['n']}")
    return event["n"]
"""
MENDED = "import time\n\ndef handler(event, context):\n    time.sleep({seconds})\n    return event['n']\n"
QUEUE = ("source.plugin=sqlite", "source.path=queue.db", "sink.plugin=sqlite", "sink.path=results.db")
ON_QUEUE = tuple(itertools.chain.from_iterable(("--set", pair) for pair in QUEUE))


class OfFile:
    """The story where tasks and results are files."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def run(self) -> int:
        return self._project.htcgrid("run", "--quiet").status

    def redrive(self, *, wait: bool = True) -> list[subprocess.Popen[str]]:
        return [self._project.start("redrive", "--quiet")]

    def results(self) -> dict[str, tuple[bool, bytes]]:
        lines = (self._project.folder / "results.jsonl").read_bytes().splitlines()
        found = [(json.loads(line), line) for line in lines]
        assert len({each["id"] for each, _ in found}) == len(found), "a task has two results"
        return {each["id"]: (each["status"] == "succeeded", line) for each, line in found}


class OfQueue:
    """The story where they are in SQLite, with two agents."""

    def __init__(self, project: Project) -> None:
        self._project = project
        project.htcgrid("submit", "tasks.jsonl", "--session", "s", *ON_QUEUE)

    def _agents(self) -> list[subprocess.Popen[str]]:
        drained = ("run", "--quiet", *ON_QUEUE, "--set", "source.drain=true", "--set", "source.lease_seconds=2")
        return [self._project.start(*drained) for _ in range(2)]

    def run(self) -> int:
        agents = self._agents()
        for agent in agents:
            output_at_end(agent, seconds=120)
        return max(agent.returncode for agent in agents)

    def redrive(self, *, wait: bool = True) -> list[subprocess.Popen[str]]:
        command = self._project.start("redrive", *ON_QUEUE)
        if not wait:
            time.sleep(0.05)
            return [command, *self._agents()]
        assert command.wait(60) == 0
        return self._agents()

    def results(self) -> dict[str, tuple[bool, bytes]]:
        with SqliteSink(SqliteSink.Config(path=self._project.folder / "results.db"), Function()) as sink:
            found = [result for _, result in sink.scan()]
        assert len({each.task.id for each in found}) == len(found), "a task has two results"
        return {each.task.id: (each.outcome.failure is None, repr(each).encode()) for each in found}


def prepared(project: Project, count: int) -> None:
    project.write("job.py", BROKEN)
    project.tasks(*({"n": n} for n in range(1, count + 1)))


@pytest.mark.parametrize("kind", [OfFile, OfQueue])
def test_43_of_300_fail_are_mended_and_run_again_and_the_other_257_are_the_same_bytes(
    project: Project, kind: type[OfFile | OfQueue]
) -> None:
    prepared(project, COUNT)
    story = kind(project)
    assert story.run() == 1
    before = story.results()
    assert sum(not succeeded for succeeded, _ in before.values()) == FAILED
    project.write("job.py", MENDED.format(seconds=0))
    agents = story.redrive()
    said = [output_at_end(agent, seconds=120)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0] * len(agents)
    summaries = [json.loads(line)["summary"] for text in said for line in text.splitlines() if line[:2] == '{"']
    assert sum(summary["succeeded"] for summary in summaries) == FAILED
    after = story.results()
    assert len(after) == COUNT
    assert all(succeeded for succeeded, _ in after.values())
    assert {name: line for name, line in before.items() if line[0]}.items() <= after.items()
    assert story.run() == 0


@pytest.mark.parametrize("kind", [OfFile, OfQueue])
def test_a_redrive_that_is_killed_ten_times_loses_nothing_and_stores_nothing_twice(
    project: Project, kind: type[OfFile | OfQueue]
) -> None:
    prepared(project, COUNT)
    story = kind(project)
    story.run()
    before = {name: line for name, line in story.results().items() if line[0]}
    project.write("job.py", MENDED.format(seconds=0.1))
    for number in range(10):
        programs = story.redrive(wait=False)
        time.sleep(0.3 + 0.07 * number)  # at another moment each time: as it starts, runs, or ends
        for program in programs:
            os.killpg(program.pid, signal.SIGKILL)
        for program in programs:
            output_at_end(program)
    project.write("job.py", MENDED.format(seconds=0))
    for agent in story.redrive(wait=kind is OfFile):
        output_at_end(agent, seconds=120)
    story.run()
    after = story.results()
    assert len(after) == COUNT
    assert all(succeeded for succeeded, _ in after.values())
    assert before.items() <= after.items()


def test_too_many_of_10_000_fail_the_rest_stays_in_the_queue_and_both_commands_complete_the_job(
    project: Project,
) -> None:
    # Slow enough for the limit to be seen while half of the tasks are left, and for what is handed over by then.
    slow = "    import time\n    time.sleep(0.002)\n    return"
    project.write("job.py", BROKEN.replace("% 7", "% 20").replace("    return", slow))
    project.tasks(*({"n": n} for n in range(1, 10_001)))
    story = OfQueue(project)
    run = ("run", "--quiet", *ON_QUEUE, "--set", "source.drain=true")
    stopped = project.htcgrid(*run, "--set", "agent.tolerated_failures=1%")
    assert stopped.status == 4
    assert "tolerated_failures = 1%" in stopped.err
    stored = story.results()
    waiting = json.loads(project.htcgrid("status", "--json", *ON_QUEUE).out)["queue"]["states"]["waiting"]
    assert waiting == 10_000 - len(stored) > 5_000
    project.write("job.py", MENDED.format(seconds=0))
    assert project.htcgrid("redrive", *ON_QUEUE).status == 0
    assert project.htcgrid(*run).status == 0
    after = story.results()
    assert len(after) == 10_000
    assert all(succeeded for succeeded, _ in after.values())


# --- a million ---------------------------------------------------------------------------------------

MILLION, BAD = 1_000_000, 50_000
_BATCH = 10_000
_KINDS = ("no price", "no curve", "no market")


@pytest.fixture(scope="module")
def million(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of a million tasks in a file and in SQLite, with the tasks."""
    folder = tmp_path_factory.mktemp("million")
    function = Function(handler="job.handler")
    sinks: list[ResultSink] = [
        JsonlSink(JsonlSink.Config(path=folder / "results.jsonl"), function),
        SqliteSink(SqliteSink.Config(path=folder / "results.db"), function),
    ]
    with sinks[0], sinks[1], (folder / "tasks.jsonl").open("w") as tasks:
        for start in range(1, MILLION + 1, _BATCH):
            numbers = range(start, start + _BATCH)
            tasks.writelines(f'{{"n": {number}}}\n' for number in numbers)
            results = [result(number) for number in numbers]
            for sink in sinks:
                sink.put(results)
    return folder


def result(number: int) -> Result:
    task = Task(str(number), b'{"n": %d}' % number, {"session_id": "s"})
    if number % (MILLION // BAD):
        return Result(task, Outcome(task.id, b"%d" % number, None, 1.7e9, 1.5, 2, 40))
    text = json.dumps({"errorType": "ValueError", "errorMessage": f"{_KINDS[number % 3]} for {number}"})
    outcome = Outcome(task.id, text.encode(), FailureKind.HANDLER_ERROR, 1.7e9, 1.5, 2, 40, log_tail=b"pricing\n")
    return Result(task, outcome)


_MEASURE = """\
import json, os, subprocess, sys
program = subprocess.Popen(sys.argv[1:], stderr=subprocess.DEVNULL)
used = os.wait4(program.pid, 0)[2]
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]), file=sys.stderr)
"""


def measured(project: Project, *arguments: str) -> tuple[str, float, float]:
    """What it prints, its seconds of computing, as others share the processors, and its most memory in MB.

    A process counts the memory that its parent had, too, so the parent is a small one.
    """
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "htcgrid", *arguments]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    seconds, megabytes = json.loads(done.stderr)
    return done.stdout, seconds, megabytes


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["jsonl", "sqlite"])
def test_50_000_failures_of_a_million_are_shown_and_a_redrive_begins_within_10_s(
    project: Project, million: Path, kind: str, until: Any
) -> None:
    name = "results.jsonl" if kind == "jsonl" else "results.db"
    os.link(million / "tasks.jsonl", project.folder / "more.jsonl")
    copied = subprocess.run(["cp", "--reflink=auto", million / name, project.folder / name], check=True)
    assert copied.returncode == 0
    project.write("job.py", "import time\n\ndef handler(event, context):\n    open('began', 'w')\n    time.sleep(60)\n")
    options = ("--set", f"sink.plugin={kind}", "--set", f"sink.path={name}", "--set", "source.path=more.jsonl")
    text, seconds, megabytes = measured(project, "failures", *options)
    assert f"failed {BAD:,}" in text
    assert sum(kind in text for kind in _KINDS) == 3
    print(  # noqa: T201 - the figures, with -s
        f"{kind}: failures took {seconds:.1f} s and {megabytes:.0f} MB"
    )
    program = project.start("redrive", "--quiet", *options)
    until((project.folder / "began").exists)
    until_begun = computed(program.pid)
    print(f"{kind}: a redrive began after {until_begun:.1f} s")  # noqa: T201
    assert (seconds < 10, megabytes < 200, until_begun < 10) == (True, True, True)


def computed(pid: int) -> float:
    """The seconds of computing of a program that runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

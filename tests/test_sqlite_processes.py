"""Several processes on one file, and the ends they come to."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from program_end import output_at_end

from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, Lease, Task

OPEN = """
import os, sys
from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, Outcome, Result, Task
path = sys.argv[1]
source = SqliteSource(SqliteSource.Config(path=path, lease_seconds=0.5, drain=True), Function())
sink = SqliteSink(SqliteSink.Config(path=path), Function())
source.open(), sink.open()
"""
AGENT = (
    OPEN
    + """
print("ready", flush=True)
while not source.exhausted:
    leases = source.receive(20, 1)
    known = set(sink.stored([lease.task for lease in leases]))
    new = [lease for lease in leases if lease.task.id not in known]
    sink.put([Result(lease.task, Outcome(lease.task.id, lease.task.payload, environment=str(os.getpid()))) for lease in new])
    source.ack(leases)
"""
)
SUBMITTER = (
    OPEN
    + """
name = sys.argv[2]
for batch in range(1000):
    source.put([Task(f"{name}-{batch}-{number}", b"1") for number in range(50)])
    print(batch, flush=True)
"""
)


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)


def source_at(path: Path) -> SqliteSource:
    return SqliteSource(SqliteSource.Config(path=path), Function())


def results_at(path: Path) -> list[tuple[str, bytes]]:
    with SqliteSink(SqliteSink.Config(path=path), Function()) as sink:
        return [(result.task.id, result.outcome.payload) for _, result in sink.scan()]


@pytest.mark.slow
def test_many_processes_make_one_file_at_the_same_time(tmp_path: Path) -> None:
    program = """
import multiprocessing, sys
from pathlib import Path
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.spi import Function, Task

def make(number, start):
    for file in range(30):
        start.wait(60)
        with SqliteSource(SqliteSource.Config(path=Path(sys.argv[1]) / f"{file}.db"), Function()) as source:
            source.put([Task(str(number), b"1")])

fork = multiprocessing.get_context("fork")
start = fork.Barrier(4)
makers = [fork.Process(target=make, args=(number, start)) for number in range(4)]
for maker in makers: maker.start()
for maker in makers: maker.join()
sys.exit(any(maker.exitcode for maker in makers))
"""
    made = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    for path in tmp_path.glob("*.db"):
        with source_at(path) as source:
            assert source.stats(brief=True).states.waiting == 4


def test_four_processes_share_a_queue_and_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    tasks = [Task(f"t{number}", b"%d" % number) for number in range(4000)]
    with source_at(path) as source:
        source.put(tasks)
    agents = [start(AGENT, path) for _ in range(4)]
    assert [agent.wait() for agent in agents] == [0] * 4
    for agent in agents:
        output_at_end(agent)
    assert sorted(results_at(path)) == sorted((task.id, task.payload) for task in tasks)
    with source_at(path) as source:
        assert source.stats().sessions == {}


@pytest.mark.slow
def test_agents_killed_in_mid_batch_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    choice = random.Random(1)
    tasks = [Task(f"t{number}", b"%d" % number) for number in range(6000)]
    with source_at(path) as source:
        source.put(tasks)
    killed = 0
    for _ in range(8):
        agent = start(AGENT, path)
        assert agent.stdout is not None
        agent.stdout.readline()
        time.sleep(choice.uniform(0.0, 0.1))  # the moment of death is the test's matter
        agent.send_signal(signal.SIGKILL)
        killed += agent.wait() == -signal.SIGKILL
        output_at_end(agent)
    assert killed
    last = start(AGENT, path)
    assert last.wait() == 0
    output_at_end(last)
    assert Counter(results_at(path)) == Counter((task.id, task.payload) for task in tasks)


def test_a_submitter_killed_in_mid_batch_has_put_whole_batches_and_all_it_was_told_of(tmp_path: Path) -> None:
    path = tmp_path / "grid.db"
    for round_ in range(3):
        submitter = start(SUBMITTER, path, round_)
        assert submitter.stdout is not None
        for _ in range(5):
            submitter.stdout.readline()
        submitter.send_signal(signal.SIGKILL)
        submitter.wait()
        told = 5 + len(output_at_end(submitter)[0].splitlines())
        with source_at(path) as source:
            batches = Counter(lease.task.id.rsplit("-", 1)[0] for lease in everything(source))
        assert set(batches.values()) == {50}
        assert told <= len(batches) <= told + 1


def everything(source: SqliteSource) -> list[Lease]:
    found: list[Lease] = []
    while leases := source.receive(1000, 0):
        source.ack(leases)
        found += leases
    return found

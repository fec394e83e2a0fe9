"""Two real agents of one worker each share mixed loads from one queue: how far from the ideal split they come.

    python bench/two_agents.py [--rounds 3] [sqlite] [sqs]

`sqs` is moto's, in a process of its own, and takes `make plugins`. The ideal split is reckoned from how long the tasks really
took: as if one agent with both workers had no queue, and each took the next task as it became idle. `prefetch.py` drives
the same policy through more loads in simulated time.
"""

import argparse
import heapq
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HTCGRID = Path(sys.executable).with_name("htcgrid")
REGION = "eu-west-1"
CONFIG = """\
[function]
handler = "bench_handler.sleep"
code = "{code}"
[source]
{source}
[sink]
plugin = "sqlite"
path = "results.db"
[planes.local]
plugin = "process"
workers = 1
"""


@dataclass(frozen=True)
class Load:
    """Milliseconds of each task, in order; then, so many seconds after the first has begun, urgent ones or a cancel."""

    name: str
    tasks: Sequence[float]
    urgent: Sequence[float] = ()
    urgent_after: float = 0.0
    cancel_after: float = 0.0
    """The second half is a session of its own, which is cancelled then."""


LOADS = (
    Load("2,000 of 1 ms, then 20 of 1 s", [1.0] * 2000 + [1000.0] * 20),
    Load("600 of 10 ms, 1 in 50 of 1 s", [1000.0 if number % 50 == 25 else 10.0 for number in range(600)]),
    Load("24 of 0.5 s, 4 urgent ones after 2.2 s", [500.0] * 24, [500.0] * 4, 2.2),
    Load("40 of 0.5 s, half cancelled after 2.2 s", [500.0] * 40, cancel_after=2.2),
)


@dataclass(frozen=True)
class Run:
    """A result: when it began, how long it took, whose it is; Unix seconds."""

    id: str
    began: float
    seconds: float
    is_cancelled: bool


class Grid:
    """A folder with a config, and a queue that `source` describes."""

    def __init__(self, folder: Path, source: str) -> None:
        self.folder = folder
        (folder / "htcgrid.toml").write_text(CONFIG.format(code=HERE / "handlers", source=source))

    def htcgrid(self, *arguments: str) -> str:
        done = subprocess.run([HTCGRID, *arguments], cwd=self.folder, capture_output=True, text=True, check=False)
        if done.returncode not in {0, 1}:
            raise SystemExit(done.stderr)
        return done.stdout

    def submit(self, name: str, ms: Sequence[float], priority: int = 0) -> None:
        lines = [{"id": f"{name}-{number}", "event": {"ms": each}} for number, each in enumerate(ms)]
        (self.folder / name).write_text("".join(json.dumps(line["event"]) + "\n" for line in lines))
        self.htcgrid("submit", name, "--session", name, "--priority", str(priority))

    def results(self) -> list[Run]:
        runs = []
        for line in self.htcgrid("results").splitlines():
            result = json.loads(line)
            began = datetime.fromisoformat(result["started"]).timestamp()
            is_cancelled = result.get("failure") == "cancelled"
            runs.append(Run(result["id"], began, result.get("duration_ms", 0.0) / 1000, is_cancelled))
        return runs

    def stored(self) -> int:
        """Straight from the file; 0 before an agent has made it."""
        try:
            with sqlite3.connect(f"file:{self.folder}/results.db?mode=ro", uri=True, timeout=30) as database:
                return int(database.execute("SELECT count(*) FROM results").fetchone()[0])
        except sqlite3.OperationalError:
            return 0


def shared(grid: Grid, load: Load) -> tuple[float, str]:
    """The time that two agents take against the ideal split, and what else is to be said."""
    half = len(load.tasks) // 2 if load.cancel_after else len(load.tasks)
    grid.submit("a", load.tasks[:half])
    if load.cancel_after:
        grid.submit("b", load.tasks[half:])
    programs = [[HTCGRID, "run", "--quiet"] for _ in range(2)]
    agents = [subprocess.Popen(each, cwd=grid.folder, stderr=subprocess.DEVNULL) for each in programs]
    try:
        wait_until(lambda: grid.stored() > 0)
        acted = 0.0
        if load.urgent or load.cancel_after:
            time.sleep(max(load.urgent_after, load.cancel_after))
            if load.urgent:
                grid.submit("urgent", load.urgent, 1)
            else:
                grid.htcgrid("cancel", "--session", "b")
            acted = time.time()
        if load.cancel_after:
            wait_until(lambda: sum(not run.is_cancelled for run in grid.results() if run.id.startswith("a")) >= half)
            time.sleep(1)
        else:
            wait_until(lambda: grid.stored() >= len(load.tasks) + len(load.urgent))
    finally:
        for agent in agents:
            agent.terminate()
        for agent in agents:
            agent.wait()
    runs = sorted((run for run in grid.results() if not run.is_cancelled), key=lambda run: run.began)
    took = max(run.began + run.seconds for run in runs) - runs[0].began
    words = ""
    if load is LOADS[0]:
        long = [run for run in runs if run.seconds > 0.5]
        alone = (max(run.began + run.seconds for run in long) - long[0].began) / ideal([run.seconds for run in long])
        words = f"the long ones alone {alone:.2f} x"
    if load.urgent:
        late = max(run.began for run in runs if run.id.startswith("urgent")) - acted
        words = f"the last of {len(load.urgent)} urgent ones begins {max(0.0, late):.2f} s after its submit"
    if load.cancel_after:
        words = f"{sum(run.began > acted for run in runs if run.id.startswith('b'))} of the cancelled begin after the cancel"
    return took / ideal([run.seconds for run in runs]), words


def ideal(seconds: Sequence[float]) -> float:
    ends = [0.0, 0.0]
    for each in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + each)
    return max(ends)


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit("the agents have not ended after two minutes")
        time.sleep(0.1)


@contextmanager
def sqlite_queue() -> Iterator[Callable[[], str]]:
    yield lambda: 'plugin = "sqlite"\npath = "queue.db"'


@contextmanager
def sqs_queue() -> Iterator[Callable[[], str]]:
    import boto3

    os.environ |= {"AWS_ACCESS_KEY_ID": "AKIAMADEUP", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": REGION}
    program = [sys.executable, HERE.parent / "plugins/aws/tests/aws_server.py"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        sqs, dynamodb = (boto3.client(service, endpoint_url=url) for service in ("sqs", "dynamodb"))
        numbers = iter(range(1000))

        def fresh() -> str:
            name = f"tasks-{next(numbers)}"
            for queue in (f"{name}-low", f"{name}-high"):
                sqs.create_queue(QueueName=queue, Attributes={"VisibilityTimeout": "30"})
            dynamodb.create_table(
                TableName=name,
                KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": "task_id", "AttributeType": "S"}],
                BillingMode="PAY_PER_REQUEST",
            )
            keys: dict[str, Any] = {
                "plugin": "sqs",
                "queues": [f"{name}-low", f"{name}-high"],
                "task_table": name,
                "region": REGION,
                "endpoint_url": url,
            }
            return "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items())

        try:
            yield fresh
        finally:
            server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", nargs="*", choices=["sqlite", "sqs", []])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=int, choices=range(1, len(LOADS) + 1), help="one of them alone")
    given = parser.parse_args()
    queues = {"sqlite": sqlite_queue, "sqs": sqs_queue}
    print(f"{'two agents of one worker':<44}{'queue':8}{'against the ideal split':>26}   held to 1.10 x, by the median")
    for name in given.queue or queues:
        with queues[name]() as fresh:
            for load in LOADS if given.load is None else LOADS[given.load - 1 : given.load]:
                ratios, words = [], ""
                for _ in range(given.rounds):
                    with tempfile.TemporaryDirectory() as folder:
                        ratio, words = shared(Grid(Path(folder), fresh()), load)
                    ratios.append(ratio)
                every = ", ".join(f"{each:.2f}" for each in ratios)
                print(f"{load.name:<44}{name:8}{statistics.median(ratios):>24.2f} x   {every}   {words}", flush=True)


if __name__ == "__main__":
    main()

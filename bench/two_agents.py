"""Two real agents of one worker each share mixed loads from one queue: how far from the ideal split they come.

    python bench/two_agents.py [--rounds 3] [sqlite] [sqs] [far] [moto]

`sqs` is `small_aws.py`, `far` the same at the distance of AWS: 8 ms for each request. `moto` is moto in a process of its own. The
three take `make plugins`. The ideal split is reckoned from how long the tasks really took: as if one agent with both workers had
no queue, and each took the next task as it became idle. `prefetch.py` drives the same policy through more loads in simulated time.

A queue that takes a millisecond for a task cannot hand out 2,000 tasks of 1 ms as fast as two workers run them: moto takes that for
its own work, `far` for its distance. How long a queue takes is measured as well (the least of the rounds), by two bare clients that
make the same requests for as many tasks and run nothing. The second ratio is to a split in which no task begins before those clients
could have received it.
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
import tomllib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing import get_context
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


def shared(grid: Grid, load: Load, task_seconds: float) -> tuple[float, float, str]:
    """The time that two agents take against the ideal split, and against that of a queue which hands out a task in so many
    seconds; and what else is to be said."""
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
    seconds = [run.seconds for run in runs]
    return took / ideal(seconds), took / ideal(seconds, task_seconds), words


def ideal(seconds: Sequence[float], task_seconds: float = 0.0) -> float:
    """The time of two workers, where the queue hands out one task in so many seconds."""
    ends = [0.0, 0.0]
    for number, each in enumerate(seconds):
        heapq.heappush(ends, max(heapq.heappop(ends), number * task_seconds) + each)
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


def hand_out(source: str) -> tuple[float, float]:
    """Take every task off an SQS queue with the requests that an agent makes, and run none; when it began and ended."""
    import boto3

    config = tomllib.loads(source)
    clients = [boto3.client(name, endpoint_url=config["endpoint_url"]) for name in ("sqs", "dynamodb")]
    sqs, dynamodb, table = *clients, config["task_table"]
    low, high = (sqs.get_queue_url(QueueName=name)["QueueUrl"] for name in config["queues"])
    began = time.time()
    while True:
        asked = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 0, "MessageAttributeNames": ["All"]}
        found = [sqs.receive_message(QueueUrl=url, **asked).get("Messages") for url in (high, low)][1]
        if not found:
            return began, time.time()
        keys = [{"task_id": {"S": message["MessageId"]}} for message in found]
        dynamodb.batch_get_item(RequestItems={table: {"Keys": keys, "ConsistentRead": True}})
        dynamodb.batch_write_item(RequestItems={table: [{"DeleteRequest": {"Key": key}} for key in keys]})
        handles = [message["ReceiptHandle"] for message in found]
        entries = [{"Id": str(number), "ReceiptHandle": handle} for number, handle in enumerate(handles)]
        sqs.delete_message_batch(QueueUrl=low, Entries=entries)


def seconds_of_a_task(source: str, tasks: int) -> float:
    """How long this queue takes to hand out one task, with two clients; 0 where it is not a server's."""
    if "endpoint_url" not in source:
        return 0.0
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(2, get_context("spawn")) as clients:
        Grid(Path(folder), source).submit("a", [1.0] * tasks)
        times = list(clients.map(hand_out, [source, source]))
        return (max(ended for _, ended in times) - min(began for began, _ in times)) / tasks


@contextmanager
def sqs_queue(*server_program: str | Path) -> Iterator[Callable[[], str]]:
    import boto3

    os.environ |= {"AWS_ACCESS_KEY_ID": "AKIAMADEUP", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": REGION}
    program = [sys.executable, *server_program]
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
    parser.add_argument("queue", nargs="*", choices=["sqlite", "sqs", "far", "moto", []])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", type=int, choices=range(1, len(LOADS) + 1), help="one of them alone")
    given = parser.parse_args()
    queues: dict[str, Callable[[], AbstractContextManager[Callable[[], str]]]] = {
        "sqlite": sqlite_queue,
        "sqs": lambda: sqs_queue(HERE / "small_aws.py"),
        "far": lambda: sqs_queue(HERE / "small_aws.py", "--latency-ms", "8"),
        "moto": lambda: sqs_queue(HERE.parent / "plugins/aws/tests/aws_server.py"),
    }
    print(
        f"{'two agents of one worker':<44}{'queue':8}{'ideal split':>12}{'as handed out':>15}   medians, held to 1.10 x"
    )
    for name in given.queue or queues:
        with queues[name]() as fresh:
            for load in LOADS if given.load is None else LOADS[given.load - 1 : given.load]:
                ratios, fair, words = [], [], ""
                task_seconds = min(seconds_of_a_task(fresh(), len(load.tasks)) for _ in range(given.rounds))
                for _ in range(given.rounds):
                    with tempfile.TemporaryDirectory() as folder:
                        ratio, handed_out, words = shared(Grid(Path(folder), fresh()), load, task_seconds)
                    ratios.append(ratio)
                    fair.append(handed_out)
                if task_seconds:
                    words = f"the queue takes {task_seconds * 1000:.2f} ms a task   {words}"
                every = ", ".join(f"{each:.2f}" for each in ratios)
                medians = f"{statistics.median(ratios):>10.2f} x{statistics.median(fair):>13.2f} x"
                print(f"{load.name:<44}{name:8}{medians}   {every}   {words}", flush=True)


if __name__ == "__main__":
    main()

"""Measure the queues: tasks/s on sqlite; busy share, requests and price on AWS's services as moto serves them.

    python bench/queues.py [--quick] [sqlite] [requests] [busy] [htc_grid]

Moto is no AWS: its own time comes on top of the latencies that are added here, and it runs on the same processors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from htcgrid_aws.aws_plugin import UsageCounter
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.htc_sink import HtcGridSink
from htcgrid_aws.htc_source import HtcGridSource
from htcgrid_aws.sqs import SqsSource
from htcgrid_aws.usage import Usage

from htcgrid.agent.agent import Agent
from htcgrid.agent.statistics import Summary
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Task

HERE = Path(__file__).parent
HTCGRID = Path(sys.executable).with_name("htcgrid")
REGION = "eu-west-1"  # that of the plugin's tests
LATENCY = {"sqs": 0.008, "dynamodb": 0.006, "s3": 0.020}
KILOBYTE = {"prices": [round(100 + number / 7, 6) for number in range(90)], "ms": 100}

SQLITE = """\
[function]
handler = "bench_handler.noop"
code = "{code}"
[source]
plugin = "sqlite"
path = "queue.db"
[sink]
plugin = "sqlite"
path = "results.db"
[planes.local]
plugin = "process"
workers = 2
"""


def row(what: str, figure: str, held_to: str = "") -> None:
    print(f"{what:<66} {figure:>14}   {held_to}", flush=True)


# --- sqlite ------------------------------------------------------------------------------------------


def sqlite(tasks: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "htcgrid.toml").write_text(SQLITE.format(code=HERE / "handlers"))
        (folder / "events.jsonl").write_text('{"n": 1}\n' * tasks)
        began = time.perf_counter()
        subprocess.run([HTCGRID, "submit", "events.jsonl"], cwd=folder, check=True, capture_output=True)
        submitted = time.perf_counter()
        run = [HTCGRID, "run", "--quiet", "--set", "source.drain=true"]
        done = subprocess.run(run, cwd=folder, check=True, capture_output=True)
        ended = time.perf_counter()
        summary = json.loads(done.stderr)["summary"]
        assert summary["succeeded"] == tasks, summary
    row("sqlite: no-op tasks/s submitted", f"{tasks / (submitted - began):,.0f}", f"{tasks:,} tasks, start-up included")
    row("sqlite: no-op tasks/s run and stored, two workers", f"{tasks / (ended - submitted):,.0f}", "at least 5,000")
    row("sqlite: first submitted, then run", f"{tasks / (ended - began):,.0f}")


# --- AWS ---------------------------------------------------------------------------------------------


@contextmanager
def moto() -> Iterator[str]:
    """The address of a server in a process of its own."""
    program = [sys.executable, HERE.parent / "plugins" / "aws" / "tests" / "aws_server.py"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


@contextmanager
def slower(seconds: dict[str, float]) -> Iterator[None]:
    """Every request of every client that is made meanwhile waits so long before it is sent, by service."""
    attach = UsageCounter.attach

    def attached(usage_counter: UsageCounter, client: Any) -> None:
        attach(usage_counter, client)
        wait = seconds[client.meta.service_model.service_name]
        client.meta.events.register("before-send", lambda **_: time.sleep(wait))

    UsageCounter.attach = attached
    try:
        yield
    finally:
        UsageCounter.attach = attach


def run(source: Any, sink: Any, handler: str, tasks: int) -> Summary:
    """One agent with two workers until so many have run."""
    function = Function(handler=f"bench_handler.{handler}", code=HERE / "handlers")
    with ProcessInvoker(ProcessInvoker.Config(workers=2), function) as plane:
        agent = Agent(source, plane, sink)
        thread = threading.Thread(target=agent.run)
        thread.start()
        while agent.summary().finished < tasks and thread.is_alive():
            time.sleep(0.01)
        agent.drain()
        thread.join()
        return agent.summary()


def table(url: str) -> str:
    name = f"results-{uuid.uuid4().hex[:8]}"
    boto3.client("dynamodb", endpoint_url=url, region_name=REGION).create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "task_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return name


def queue(url: str) -> str:
    name = f"tasks-{uuid.uuid4().hex[:8]}"
    boto3.client("sqs", endpoint_url=url, region_name=REGION).create_queue(
        QueueName=name, Attributes={"VisibilityTimeout": "60"}
    )
    return name


def sqs_and_dynamodb(url: str, tasks: int, handler: str, latency: dict[str, float]) -> tuple[Summary, Usage]:
    where = {"endpoint_url": url, "region": REGION}
    config = SqsSource.Config(queue=queue(url), **where)
    submitter = SqsSource(config, Function())
    event = json.dumps(KILOBYTE).encode()
    with submitter:
        for start in range(0, tasks, 1000):
            some = range(start, min(start + 1000, tasks))
            submitter.put([Task(f"{uuid.uuid4()}", event, {"session_id": "s"}) for _ in some])
    with (
        slower(latency),
        SqsSource(config, Function()) as source,
        DynamodbSink(DynamodbSink.Config(table=table(url), **where), Function()) as sink,
    ):
        summary = run(source, sink, handler, tasks)
        return summary, submitter.usage_counter.usage() + source.usage_counter.usage() + sink.usage_counter.usage()


def requests(url: str, tasks: int) -> None:
    summary, usage = sqs_and_dynamodb(url, tasks, "noop", dict.fromkeys(LATENCY, 0.0))
    assert summary.finished >= tasks
    row(f"sqs + dynamodb: requests a task, {tasks:,} of 1 KB", f"{usage.total / tasks:.2f}", "at most 1.4")
    row("sqs + dynamodb: list price per million tasks", f"${usage.dollars / tasks * 1e6:.2f}", "at most $1.20")


def busy(url: str, tasks: int) -> None:
    summary, _ = sqs_and_dynamodb(url, tasks, "sleep", LATENCY)
    row("sqs + dynamodb: busy share, 100 ms tasks, +8 and +6 ms a call", f"{summary.busy_share:.1%}", "at least 97 %")


def htc_grid(url: str, folder: Path, tasks: int) -> None:
    config = folder / "Agent_config.tfvars.json"
    grid = {
        "region": REGION,
        "sqs_endpoint": url,
        "tasks_queue_name": queue(url),
        "ddb_state_table": table(url),
        "s3_bucket": f"grid-{uuid.uuid4().hex[:8]}",
        "grid_storage_service": "S3",
        "task_ttl_expiration_offset_sec": 30,
        "agent_task_visibility_timeout_sec": 60,
    }
    config.write_text(json.dumps(grid))
    sys.path.insert(0, str(HERE.parent / "plugins" / "aws" / "tests"))
    from conftest import Aws, HtcGrid  # HTC-Grid's client, as the plugin's tests have it

    boto3.client("s3", endpoint_url=url, region_name=REGION).create_bucket(
        Bucket=grid["s3_bucket"], CreateBucketConfiguration={"LocationConstraint": REGION}
    )
    client = HtcGrid(
        Aws(None, url), config, grid["ddb_state_table"], [grid["tasks_queue_name"]], bucket=grid["s3_bucket"]
    )
    client.submit([KILOBYTE] * tasks)
    keys = {"config_file": config, "endpoint_url": url}
    with (
        slower(LATENCY),
        HtcGridSource(HtcGridSource.Config(**keys), Function()) as source,
        HtcGridSink(HtcGridSink.Config(**keys), Function()) as sink,
    ):
        summary = run(source, sink, "sleep", tasks)
    row("htc_grid with S3: busy share, the same and +20 ms for S3", f"{summary.busy_share:.1%}", "at least 95 %")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["sqlite", "requests", "busy", "htc_grid"])
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks")
    options = parser.parse_args(arguments)
    scale = 10 if options.quick else 1
    os.environ.update(AWS_ACCESS_KEY_ID="none", AWS_SECRET_ACCESS_KEY="none", AWS_DEFAULT_REGION=REGION)
    if "sqlite" in options.what:
        sqlite(100_000 // scale)
    if set(options.what) - {"sqlite"}:
        with moto() as url, tempfile.TemporaryDirectory() as folder:
            if "busy" in options.what:
                busy(url, 1000 // scale)
            if "htc_grid" in options.what:
                htc_grid(url, Path(folder), 1000 // scale)
            if "requests" in options.what:
                requests(url, 10_000 // scale)


if __name__ == "__main__":
    main()

"""Peak memory of the agent and of the commands, for payloads of several sizes in and out.

python bench/memory.py [--quick] [run] [sqs] [serve] [slow] [map]

`sqs` takes `make plugins`: SQS and S3 are those of moto, in a process of its own.
"""

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HTCGRID = Path(sys.executable).with_name("htcgrid")
HANDLERS = Path(__file__).with_name("handlers")
LIMIT = "under 200 MB"

CONFIG = """\
[function]
handler = "bench_handler.noop"
code = "{code}"
[source]
plugin = "{plugin}"
path = "{tasks}"
[sink]
plugin = "{plugin}"
path = "{results}"
[planes.local]
plugin = "process"
workers = 2
"""

SLOW = """\
import json, sys, threading, time
from htcgrid.agent.agent import Agent
from htcgrid.builtin.jsonl_source import JsonlSource
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, ResultSink
from pathlib import Path

class Slow(ResultSink):
    max_batch = 10_000
    def put(self, results):
        time.sleep(float(sys.argv[2]))

function = Function(handler="bench_handler.noop", code=Path(sys.argv[1]))
source = JsonlSource(JsonlSource.Config(path=Path("tasks.jsonl")), function)
with source, ProcessInvoker(ProcessInvoker.Config(workers=2), function) as plane, Slow(Slow.Config(), function) as sink:
    agent = Agent(source, plane, sink)
    threading.Timer(float(sys.argv[3]), lambda: agent.drain(60)).start()
    agent.run()
"""

MAP = """\
import sys
from htcgrid import Grid
count = int(sys.argv[2])
settings = {"function": {"handler": "bench_handler.noop", "code": sys.argv[1]}}
with Grid.open(settings=settings) as grid:
    assert sum(1 for _ in grid.map({"n": n} for n in range(count))) == count
"""


def row(what: str, figure: str, held_to: str = "") -> None:
    print(f"{what:<66} {figure:>14}   {held_to}", flush=True)


def peak_mb(command: Sequence[str | Path], folder: Path) -> float:
    """The most memory that this command itself has had, without its workers."""
    program = (
        "import os, sys; pid = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]); _, status, used = os.wait4(pid, 0)\n"
        "print(used.ru_maxrss, file=sys.stderr); sys.exit(status != 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=folder,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stderr.splitlines()[-1]) / 1024


def events(file: Path, tasks: int, size: int) -> None:
    with file.open("w") as lines:
        lines.writelines(json.dumps({"x": "y" * size}) + "\n" for _ in range(tasks))


def config(folder: Path, plugin: str) -> None:
    names = {"jsonl": ("tasks.jsonl", "results.jsonl"), "sqlite": ("queue.db", "results.db")}[plugin]
    text = CONFIG.format(code=HANDLERS, plugin=plugin, tasks=names[0], results=names[1])
    (folder / "htcgrid.toml").write_text(text)


def run(plugin: str, tasks: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events(folder / "tasks.jsonl", tasks, size)
        config(folder, plugin)
        drain: list[str] = []
        if plugin == "sqlite":
            submitting = peak_mb([HTCGRID, "submit", "tasks.jsonl"], folder)
            row(f"submit, {tasks:,} of {size // 1000:,} KB", f"{submitting:.0f} MB", LIMIT)
            drain = ["--set", "source.drain=true"]
        row(
            f"{plugin}: agent, {tasks:,} of {size // 1000:,} KB in and out",
            f"{peak_mb([HTCGRID, 'run', '--quiet', *drain], folder):.0f} MB",
            LIMIT,
        )
        if plugin == "sqlite":
            reading = peak_mb([HTCGRID, "results"], folder)
            row(f"results, {tasks:,} of {size // 1000:,} KB", f"{reading:.0f} MB", LIMIT)


SQS = """\
[function]
handler = "bench_handler.noop"
code = "{code}"
[source]
plugin = "sqs"
queue = "tasks"
bucket = "large"
region = "eu-west-1"
endpoint_url = "{url}"
[sink]
plugin = "s3"
bucket = "large"
region = "eu-west-1"
endpoint_url = "{url}"
[planes.local]
plugin = "process"
workers = 2
"""


def peak_so_far_mb(process: subprocess.Popen) -> float:
    """The most memory that this process itself has had."""
    return int(re.findall(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[0]) / 1024


def sqs(tasks: int, size: int) -> None:
    """Results go to S3. A message has at most 256 KB here, so larger events go through S3 as well."""
    import boto3  # of the plugins' environment

    keys = {"AWS_ACCESS_KEY_ID": "AKIAMADEUP", "AWS_SECRET_ACCESS_KEY": "made-up", "AWS_DEFAULT_REGION": "eu-west-1"}
    os.environ |= keys
    program = [sys.executable, Path(__file__).parents[1] / "plugins/aws/tests/aws_server.py"]
    with tempfile.TemporaryDirectory() as name, subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as server:
        folder = Path(name)
        try:
            assert server.stdout
            url = server.stdout.readline().strip()
            clients = {service: boto3.client(service, endpoint_url=url) for service in ("sqs", "s3")}
            queue = clients["sqs"].create_queue(QueueName="tasks", Attributes={"VisibilityTimeout": "60"})["QueueUrl"]
            clients["s3"].create_bucket(
                Bucket="large", CreateBucketConfiguration={"LocationConstraint": keys["AWS_DEFAULT_REGION"]}
            )
            events(folder / "tasks.jsonl", tasks, size)
            (folder / "htcgrid.toml").write_text(SQS.format(code=HANDLERS, url=url))
            submitting = peak_mb([HTCGRID, "submit", "tasks.jsonl"], folder)
            row(f"sqs: submit, {tasks:,} of {size // 1000:,} KB", f"{submitting:.0f} MB", LIMIT)
            with subprocess.Popen([HTCGRID, "run", "--quiet"], cwd=folder, stderr=subprocess.DEVNULL) as agent:
                while left_in(clients["sqs"], queue) and agent.poll() is None:
                    time.sleep(0.5)
                peak = peak_so_far_mb(agent)
                agent.terminate()
            row(f"sqs: agent, {tasks:,} of {size // 1000:,} KB in and out", f"{peak:.0f} MB", LIMIT)
        finally:
            server.kill()


def left_in(client: object, queue: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = client.get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
    return sum(map(int, found.values()))


def serve(tasks: int, size: int, connections: int = 16) -> None:
    """Calls of `htcgrid serve` on several connections, payloads in and out."""
    body = json.dumps({"x": "y" * size}).encode()
    with tempfile.TemporaryDirectory() as folder:
        config = f'[function]\nhandler = "bench_handler.noop"\ncode = "{HANDLERS}"\n'
        (Path(folder) / "htcgrid.toml").write_text(f'{config}[planes.local]\nplugin = "process"\nworkers = 2\n')
        program = [HTCGRID, "serve", "--port", "0"]
        with subprocess.Popen(program, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
            try:
                assert server.stderr
                port = int(re.findall(r":(\d+)$", server.stderr.readline())[0])

                def calls(count: int) -> None:
                    connection = http.client.HTTPConnection("127.0.0.1", port)
                    for _ in range(count):
                        connection.request("POST", "/2015-03-31/functions/bench_handler/invocations", body)
                        answer = connection.getresponse()
                        assert (answer.status, len(answer.read())) == (200, len(body))

                with ThreadPoolExecutor(connections) as pool:
                    list(pool.map(calls, [tasks // connections] * connections))
                peak = peak_so_far_mb(server)
            finally:
                server.kill()
    row(f"serve, {tasks:,} calls of {size // 1000:,} KB in and out, {connections} at a time", f"{peak:.0f} MB", LIMIT)


def slow(tasks: int, size: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events(folder / "tasks.jsonl", tasks, size)
        (folder / "slow.py").write_text(SLOW)
        peak = peak_mb([sys.executable, "slow.py", HANDLERS, f"{seconds}", f"{seconds * 3}"], folder)
        row(f"agent, a sink of {seconds:g} s for each put, {tasks:,} of {size // 1000} KB", f"{peak:.0f} MB", LIMIT)


def grid_map(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "map.py").write_text(MAP)
        peak = peak_mb([sys.executable, "map.py", HANDLERS, f"{count}"], Path(name))
        row(f"Grid.map over a generator of {count:,} events", f"{peak:.0f} MB", LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["run", "slow", "map"])
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    if "run" in options.what:
        for plugin in ("jsonl", "sqlite"):
            run(plugin, 5_000 // scale, 100_000)
            run(plugin, 500 // scale, 1_000_000)
        run("sqlite", 250 // scale, 2_000_000)
    for what, measure in (("sqs", sqs), ("serve", serve)):
        if what in options.what:
            measure(5_000 // scale, 100_000)
            measure(500 // scale, 1_000_000)
    if "slow" in options.what:
        slow(2_000 // scale, 500_000, 5.0 / scale)
    if "map" in options.what:
        grid_map(1_000_000 // scale)


if __name__ == "__main__":
    main()

"""After failures on SQS with DynamoDB or S3: what failed is run again, alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.dynamodb import DynamodbSink
from htcgrid_aws.s3 import S3Sink
from program_end import output_at_end

from htcgrid.spi import Function

if TYPE_CHECKING:
    from conftest import Aws

CONFIG = """\
[function]
handler = "job.handler"
[source]
plugin = "sqs"
queue = "{queue}"
visibility_timeout = 30
endpoint_url = "{url}"
[sink]
{sink}
endpoint_url = "{url}"
[planes.local]
plugin = "process"
workers = 1
"""
BROKEN = """\
def handler(event, context):
    if event["n"] % 7 == 1:
        raise ValueError(f"no price for {event['n']}")
    return event["n"]
"""
SLOW = """\
import os, pathlib, time
def handler(event, context):
    if event["n"] == 3 and "SLOW" in os.environ:
        pathlib.Path("begun").touch()
        time.sleep(1)
    if event["n"] % 3 == 0:
        raise ValueError(f"no price for {event['n']}")
    return event["n"]
"""
MENDED = "def handler(event, context): return event['n']\n"
COUNT, FAILED = 300, 43


def htcgrid(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("htcgrid")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=90, check=False)


def run_all(folder: Path, aws: Aws, queue: str, code: int) -> None:
    """An agent until the queue is empty."""
    program: list[str | Path] = [Path(sys.executable).with_name("htcgrid"), "run", "--quiet"]
    agent = subprocess.Popen(program, cwd=folder, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while aws.waiting(queue) != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    agent.terminate()
    said = output_at_end(agent)[1]
    assert agent.returncode == code, said


@pytest.mark.parametrize("sink", ["dynamodb", "s3"])
def test_what_failed_is_run_again_and_the_others_stay(aws: Aws, tmp_path: Path, sink: str) -> None:
    queue, table = aws.queue(), aws.table()
    where = f'table = "{table}"' if sink == "dynamodb" else f'bucket = "{aws.bucket()}"'
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(queue=queue, url=aws.url, sink=f'plugin = "{sink}"\n{where}'))
    (tmp_path / "job.py").write_text(BROKEN)
    (tmp_path / "events.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1, COUNT + 1)))
    htcgrid(tmp_path, "submit", "events.jsonl", "--session", "s", "--ids", "ids")
    run_all(tmp_path, aws, queue, 1)
    before = htcgrid(tmp_path, "results", "--ids", "ids").stdout.splitlines()
    listed = htcgrid(tmp_path, "failures", "--json")
    assert json.loads(listed.stdout)["groups"][0]["count"] == FAILED
    shown = json.loads(htcgrid(tmp_path, "failures", "--id", "s_15", "--json").stdout)
    assert (shown["event"], shown["session"]) == ({"n": 15}, "s")
    (tmp_path / "job.py").write_text(MENDED)
    done = htcgrid(tmp_path, "redrive")
    assert (done.returncode, done.stdout[:35]) == (0, f"{FAILED} tasks are in the queue again. It")
    run_all(tmp_path, aws, queue, 0)
    after = htcgrid(tmp_path, "results", "--ids", "ids")
    assert (after.returncode, len(after.stdout.splitlines())) == (0, COUNT)
    kept = [line for line in before if '"succeeded"' in line]
    assert len(kept) == COUNT - FAILED
    assert [line for line in after.stdout.splitlines() if line in kept] == kept
    assert "nothing has failed" in htcgrid(tmp_path, "redrive").stderr
    assert htcgrid(tmp_path, "report").returncode == 0
    page = (tmp_path / "report.html").read_text()
    for text in ("<td>run</td><td>1</td>", "<td>run</td><td>0</td>"):  # its command and exit code
        assert page.count(text) == 1


@pytest.mark.parametrize("sink", ["dynamodb", "s3"])
def test_the_failure_of_an_agent_that_was_suspended_during_the_redrive_does_not_come_back(
    aws: Aws, tmp_path: Path, sink: str
) -> None:
    queue, table = aws.queue(), aws.table()
    where = f'table = "{table}"' if sink == "dynamodb" else f'bucket = "{aws.bucket()}"'
    config = CONFIG.format(queue=queue, url=aws.url, sink=f'plugin = "{sink}"\n{where}')
    (tmp_path / "htcgrid.toml").write_text(config.replace("visibility_timeout = 30", "visibility_timeout = 2"))
    (tmp_path / "job.py").write_text(SLOW)
    (tmp_path / "events.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(1, 13)))
    htcgrid(tmp_path, "submit", "events.jsonl", "--session", "s", "--ids", "ids")
    program: list[str | Path] = [Path(sys.executable).with_name("htcgrid"), "run", "--quiet"]
    slow = ["--set", 'function.environment={SLOW="1"}']
    suspended = subprocess.Popen([*program, *slow], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        suspended.send_signal(signal.SIGSTOP)
        run_all(tmp_path, aws, queue, 1)  # another agent gets its tasks once their leases are over
        (tmp_path / "job.py").write_text(MENDED)
        assert htcgrid(tmp_path, "redrive").returncode == 0
        run_all(tmp_path, aws, queue, 0)
    finally:
        suspended.send_signal(signal.SIGCONT)
        suspended.terminate()
        said = output_at_end(suspended)[1]
    assert suspended.returncode in {0, 1}, said  # 1 where it had stored failures before it heard of its lost leases
    found = htcgrid(tmp_path, "results", "--ids", "ids").stdout.splitlines()
    assert sorted(json.loads(line)["output"] for line in found) == list(range(1, 13))
    assert "nothing has failed" in htcgrid(tmp_path, "redrive").stderr


@pytest.mark.parametrize("kind", ["dynamodb", "s3"])
def test_agents_that_end_at_the_same_time_each_add_what_they_ran(aws: Aws, kind: str) -> None:
    config: dict[str, str] = {"endpoint_url": aws.url}
    with ExitStack() as opened:
        if kind == "s3":
            settings = S3Sink.Config.model_validate(config | {"bucket": aws.bucket()})
            sinks: list[Any] = [opened.enter_context(S3Sink(settings, Function())) for _ in range(4)]
        else:
            table = DynamodbSink.Config.model_validate(config | {"table": aws.table()})
            sinks = [opened.enter_context(DynamodbSink(table, Function())) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda number: sinks[number % 4].add_run(b'{"n": %d}' % number), range(120)))
        found = [json.loads(document)["n"] for document in sinks[0].runs()]
        assert sorted(found) == list(range(120))
        assert not list(sinks[0].failed())


def test_dead_letters_without_a_result_are_listed_and_put_again(aws: Aws, tmp_path: Path) -> None:
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": 3})
    queue, table = aws.queue(RedrivePolicy=redrive), aws.table()
    (tmp_path / "htcgrid.toml").write_text(
        CONFIG.format(queue=queue, url=aws.url, sink=f'plugin = "dynamodb"\ntable = "{table}"')
    )
    (tmp_path / "job.py").write_text("def handler(event, context): return event['n']\n")
    aws.send(dead, '{"n": 1}')
    [letter] = json.loads(htcgrid(tmp_path, "failures", "--json").stdout)["dead_letters"]
    assert letter["reason"] == "SQS moved it here: it was received more often than maxReceiveCount"
    done = htcgrid(tmp_path, "redrive")
    assert done.stdout.startswith("1 tasks are in the queue again."), done.stderr
    assert (aws.waiting(queue), aws.waiting(dead)) == ((1, 0), (0, 0))

"""A task of 30 s on leases of 5 s, two agents a queue; on sqlite and on SQS at the same time, as both only wait."""

import json
import sys
import time
from pathlib import Path

import pytest
from aws import AWS_QUEUE, Aws
from herd import SQLITE, Herd

SECONDS = 30.0


@pytest.mark.chaos
@pytest.mark.timeout(300)
def test_a_task_of_30_s_with_a_lease_of_5_s_runs_once(aws: Aws, tmp_path: Path) -> None:
    queues = {"sqlite": SQLITE.replace("lease_seconds = 3", "lease_seconds = 5"), "sqs": AWS_QUEUE.format(url=aws.url)}
    herds = {}
    for name, queue in queues.items():
        (tmp_path / name).mkdir()
        herds[name] = Herd(tmp_path / name, 2, SECONDS, queue, aws.environment)
    began = time.monotonic()
    try:
        for herd in herds.values():
            herd.submit(range(1))
            herd.start()
        (tmp_path / "ids").write_text("s_1\n")
        for name, herd in herds.items():
            answer = json.loads(herd.command("results", "--ids", str(tmp_path / "ids"), "--wait"))
            assert (name, answer["output"], answer["attempt"]) == (name, 0, 1)
            herd.end()
    finally:
        for herd in herds.values():
            herd.put_down()
    sys.stdout.write(f"\na task of {SECONDS:g} s on leases of 5 s: over after {time.monotonic() - began:.0f} s\n")
    assert {name: dict(herd.runs()) for name, herd in herds.items()} == {"sqlite": {0: 1}, "sqs": {0: 1}}

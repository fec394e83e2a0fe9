"""Keys that expire while tasks run: no task fails for that, and no environment is replaced under one.

`--keys-live 60 --minutes 10` runs it as long as keys and work in earnest take.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from kubernetes_planes import PLANES, write_project
from orders_aws import KEYS
from short_lived_aws import short_lived_aws

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from short_lived_aws import ShortLivedAws

TASK_SECONDS = 1.0
WORKERS = 2
HANDLER = """
import time
import boto3

sts = boto3.client("sts")


def handler(event, context):
    before = sts.get_caller_identity()["UserId"]
    time.sleep(event["seconds"])
    assert sts.get_caller_identity()["UserId"] == before
    return before
"""


@pytest.fixture
def aws(node_address: str, request: pytest.FixtureRequest) -> Iterator[ShortLivedAws]:
    with short_lived_aws(node_address, request.config.getoption("--keys-live")) as server:
        yield server


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("plane", PLANES)
def test_no_task_fails_for_keys_that_expire(
    aws: ShortLivedAws, plane: str, tmp_path: Path, namespace: str, agent_image: str, request: pytest.FixtureRequest
) -> None:
    tasks = int(request.config.getoption("--minutes") * 60 / TASK_SECONDS) * WORKERS
    write_project(tmp_path, HANDLER, timeout=5, url=aws.url, namespace=namespace, agent_image=agent_image)
    (tmp_path / "tasks.jsonl").write_text((json.dumps({"seconds": TASK_SECONDS}) + "\n") * tasks)
    done = subprocess.run(
        [sys.executable, "-m", "htcgrid", "run", "--quiet", "--plane", plane],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | KEYS,
    )
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert Counter((each["status"], each["attempt"]) for each in results) == {("succeeded", 1): tasks}
    assert aws.refused == 0
    assert aws.answered == 2 * tasks
    assert len({each["output"] for each in results}) > 1, "the keys were not renewed"

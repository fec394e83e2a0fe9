"""20,000 tasks on SQS with DynamoDB while agents die; AWS by moto over HTTP in a process of its own.

A kill costs more than on sqlite: an agent takes a second of a processor to start, and what it held lies for the lease.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from herd import Herd

boto3 = pytest.importorskip("boto3", reason="for the SQS queue: pip install boto3")
pytest.importorskip("moto", reason="serves SQS and DynamoDB: pip install 'moto[server]'")

TASKS = 20_000
REGION = "eu-west-1"
ROOT = Path(__file__).parents[2]
QUEUE = """\
[source]
plugin = "sqs"
queue = "tasks"
endpoint_url = "{url}"
[sink]
plugin = "dynamodb"
table = "results"
endpoint_url = "{url}"
"""
ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[str]:
    """The address of a moto server. What it says of its own faults is in `aws.log`."""
    program = [sys.executable, ROOT / "plugins" / "aws_grid" / "tests" / "aws_server.py"]
    with (
        (tmp_path / "aws.log").open("w") as log,
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=log, text=True) as server,
    ):
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.kill()


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_every_task_has_one_result_though_agents_are_killed_and_suspended(aws: str, tmp_path: Path) -> None:
    keys = {"aws_access_key_id": "oracle", "aws_secret_access_key": "oracle"}
    sqs = boto3.client("sqs", endpoint_url=aws, region_name=REGION, **keys)
    dynamodb = boto3.client("dynamodb", endpoint_url=aws, region_name=REGION, **keys)
    url = sqs.create_queue(QueueName="tasks", Attributes={"VisibilityTimeout": "5"})["QueueUrl"]
    dynamodb.create_table(
        TableName="results",
        KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "task_id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    herd = Herd(tmp_path, 4, 0.005, QUEUE.format(url=aws), {**os.environ, **ACCOUNT})
    herd.submit(TASKS)
    began = time.monotonic()
    try:
        herd.start()
        herd.torment(lambda: _left(sqs, url) == 0, every=2.0, kills=1000, stops=1, seconds=800)
        herd.end()
    finally:
        herd.put_down()
    sys.stdout.write(f"\n{herd.report('sqs and dynamodb', TASKS, began)}\n")
    found = dynamodb.get_paginator("scan").paginate(TableName="results", ConsistentRead=True)
    ids = [item["task_id"]["S"] for page in found for item in page["Items"]]
    assert sorted(ids) == sorted(f"s_{n + 1}" for n in range(TASKS))
    assert herd.killed >= 3
    (tmp_path / "ids").write_text("".join(f"{task_id}\n" for task_id in ids))
    assert _answers(herd) == {f"s_{n + 1}": n * n for n in range(TASKS)}
    sqs.close()
    dynamodb.close()


def _left(sqs: Any, url: str) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    return sum(map(int, sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"].values()))


def _answers(herd: Herd) -> dict[str, Any]:
    lines = herd.command("results", "--ids", "ids").splitlines()
    return {line["id"]: line["output"] for line in map(json.loads, lines)}

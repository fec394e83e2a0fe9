"""SQS and DynamoDB by moto over HTTP in a process of its own, with a queue `tasks` and a table `results`."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

boto3 = pytest.importorskip("boto3", reason="for the SQS queue: pip install boto3")
pytest.importorskip("moto", reason="serves SQS and DynamoDB: pip install 'moto[server]'")

SERVER = Path(__file__).parents[2] / "plugins" / "aws" / "tests" / "aws_server.py"
REGION = "eu-west-1"
LEASE = 5
AWS_QUEUE = """\
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


@dataclass
class Aws:
    """Looked at straight with boto3."""

    url: str
    sqs: Any
    dynamodb: Any
    queue_url: str
    environment: Mapping[str, str] = field(default_factory=lambda: {**os.environ, **ACCOUNT})

    def left(self) -> int:
        """Messages that wait or are leased out."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)
        return sum(map(int, found["Attributes"].values()))

    def stored(self) -> list[str]:
        """The ids of all results; the items of runs are beside them."""
        pages = self.dynamodb.get_paginator("scan").paginate(TableName="results", ConsistentRead=True)
        return [item["task_id"]["S"] for page in pages for item in page["Items"] if "run" not in item]


@contextmanager
def serving(log: Path) -> Iterator[Aws]:
    """What the server says of faults of its own goes into `log`."""
    with (
        log.open("w") as said,
        subprocess.Popen([sys.executable, SERVER], stdout=subprocess.PIPE, stderr=said, text=True) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        keys = {"aws_access_key_id": "oracle", "aws_secret_access_key": "oracle"}
        sqs = boto3.client("sqs", endpoint_url=url, region_name=REGION, **keys)
        dynamodb = boto3.client("dynamodb", endpoint_url=url, region_name=REGION, **keys)
        queue = sqs.create_queue(QueueName="tasks", Attributes={"VisibilityTimeout": str(LEASE)})["QueueUrl"]
        dynamodb.create_table(
            TableName="results",
            KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "task_id", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        try:
            yield Aws(url, sqs, dynamodb, queue)
        finally:
            sqs.close()
            dynamodb.close()
            server.kill()

"""HTC-Grid's own queue, table and Redis, served by pods that were deployed without any file of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aws_server
import boto3
import pytest
from kubernetes_commands import Kubectl, htcgrid, went_well
from moto_aws import empty_aws

KEYS = {"AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example"}
REGION = "eu-west-1"
PRIORITIES = 3
TABLE = "htc-states"
HANDLER = """
def handler(event, context):
    return {"number": event["number"], "square": event["number"] ** 2}
"""
CONFIG = """
plane = "cluster"
[function]
handler = "squares.handler"
timeout = 20
memory = 128
{tables}
[agent]
grace = 4
[planes.cluster]
plugin = "eks"
namespace = "{namespace}"
image = "{lambda_image}"
agent_image = "{agent_image}"
variables = ["aws-keys"]
pods = 2
containers = 2
cpu = "20m"
agent_cpu = "50m"
"""
TABLE_OF = """
[{table}]
plugin = "htc_grid"
endpoint_url = "{aws}"
redis_tls = false
[{table}.grid]
region = "eu-west-1"
sqs_endpoint = "{aws}"
redis_url = "{redis}"
ddb_state_table = "htc-states"
task_ttl_expiration_offset_sec = 30
agent_task_visibility_timeout_sec = 60
grid_storage_service = "REDIS"
task_queue_service = "PrioritySQS"
task_queue_config = "{{'priorities': 3}}"
tasks_queue_name = "htc__0"
task_input_passed_via_external_storage = 1
"""


@pytest.fixture(scope="module")
def aws(node: str) -> Iterator[str]:
    """The address of HTC-Grid's queues and table, on the node."""
    aws_server.put_right()
    with empty_aws(node) as url:
        queues = _client("sqs", url)
        for priority in range(PRIORITIES):
            queues.create_queue(QueueName=f"htc__{priority}")
        aws_server.make_state_table(_client("dynamodb", url), TABLE)
        yield url


def _client(service: str, url: str) -> Any:
    return boto3.client(
        service, endpoint_url=url, region_name=REGION, aws_access_key_id="example", aws_secret_access_key="example"
    )


@pytest.fixture
def grid(
    tmp_path: Path, aws: str, redis_url: str, namespace: str, agent_image: str, lambda_image: str, kubectl: Kubectl
) -> Iterator[Path]:
    """Its folder; what stands on the cluster has nothing else of it."""
    literals = [f"--from-literal={name}={value}" for name, value in KEYS.items()]
    kubectl("create", "secret", "generic", "aws-keys", *literals)
    redis = redis_url.removeprefix("redis://")
    tables = "".join(TABLE_OF.format(table=table, aws=aws, redis=redis) for table in ("source", "sink"))
    facts = {"namespace": namespace, "agent_image": agent_image, "lambda_image": lambda_image}
    (tmp_path / "squares.py").write_text(HANDLER)
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(tables=tables, **facts))
    yield tmp_path
    htcgrid("undeploy", "-c", str(tmp_path / "htcgrid.toml"))


def test_a_thousand_tasks_of_three_sessions_run_in_pods_that_have_nothing_but_the_config(
    grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    config = ("-c", str(grid / "htcgrid.toml"))
    assert "2 of 2 workers ready" in went_well("deploy", *config)
    sizes = {"first": 400, "second": 300, "third": 300}
    for session, size in sizes.items():
        events = grid / f"{session}.jsonl"
        events.write_text("".join(f'{{"number": {number}}}\n' for number in range(size)))
        went_well("submit", str(events), "--session", session, "--ids", str(grid / f"{session}.ids"), *config)
    for session, size in sizes.items():
        said = went_well("results", "--ids", str(grid / f"{session}.ids"), "--wait", *config)
        found = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        assert [result["output"] for result in found] == [
            {"number": number, "square": number**2} for number in range(size)
        ]

"""A handler that calls AWS, one config, three planes: it acts as its role on each, with boto3 from a layer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import kubernetes_layered as layered
import pytest
from moto_aws import empty_aws, make_orders
from powertools import KEYS, layer

if TYPE_CHECKING:
    from collections.abc import Iterator

PLANES = ("local", "docker", "cluster")
HANDLER = """
import boto3

s3 = boto3.client("s3")
table = boto3.resource("dynamodb").Table("orders")


def handler(event, context):
    body = s3.get_object(Bucket="prices", Key="in")["Body"].read().decode()
    table.put_item(Item={"id": context.aws_request_id, "body": body})
    who = boto3.client("sts").get_caller_identity()["Arn"]
    return {"who": who, "region": boto3.session.Session().region_name, "from": boto3.__file__}
"""
TEST = """
def test_it_reads_writes_and_is_its_role(lambda_function):
    answer = lambda_function({})
    assert answer["who"] == "arn:aws:sts::123456789012:assumed-role/pricing/htcgrid-work"
    assert answer["region"] == "eu-west-1"
"""
CONFIG = """
[function]
handler = "work.handler"
code = "src"
layers = ["{layer}"]
region = "eu-west-1"
credentials = "role:arn:aws:iam::123456789012:role/pricing"
endpoint_url = "{url}"
timeout = 60
memory = 512
[planes.local]
plugin = "process"
workers = 1
[planes.docker]
plugin = "local_docker"
base_image = "{image}"
workers = 1
[planes.cluster]
plugin = "eks"
namespace = "{namespace}"
image = "{image}"
agent_image = "{agent_image}"
"""


@pytest.fixture
def aws(node: str) -> Iterator[str]:
    """An AWS at the node's address, which processes, containers and pods reach alike."""
    with empty_aws(node) as url:
        session = boto3.Session(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], region_name="eu-west-1")
        s3 = session.client("s3", endpoint_url=url)
        s3.create_bucket(Bucket="prices", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        s3.put_object(Bucket="prices", Key="in", Body=b"read from S3")
        s3.close()
        table = session.client("dynamodb", endpoint_url=url)
        make_orders(table)
        yield url
        stored = table.scan(TableName="orders")["Items"]
        table.close()
    assert [item["body"]["S"] for item in stored] == ["read from S3"] * len(PLANES)


@pytest.fixture
def project(tmp_path: Path, aws: str, namespace: str, agent_image: str) -> Path:
    for folder, name, text in (("src", "work.py", HANDLER), ("tests", "test_work.py", TEST)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(text)
    names = {"url": aws, "layer": layer(), "image": layered.image_with_opt_on_its_path()}
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(**names, namespace=namespace, agent_image=agent_image))
    tmp_path.chmod(0o755)
    return tmp_path


def test_a_handler_that_calls_aws_passes_on_three_planes_with_one_config(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--plane", ",".join(PLANES)]
    done = subprocess.run(
        [*command, "--strict-planes"], cwd=project, capture_output=True, text=True, check=False, env=os.environ | KEYS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"\[(\w+)\] PASSED", done.stdout) == list(PLANES)

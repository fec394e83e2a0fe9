"""A handler that calls AWS, one config, three planes: it acts as its role on each, with boto3 from a layer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from kubernetes_planes import PLANES, write_project
from orders_aws import IN_THE_BUCKET, KEYS, orders_aws

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from orders_aws import OrdersAws

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
TEST_WITHOUT = """
import pytest

def test_it_finds_no_credentials(lambda_function):
    with pytest.raises(Exception, match="Unable to locate credentials"):
        lambda_function({})
"""


@pytest.fixture
def aws(node_address: str) -> Iterator[OrdersAws]:
    with orders_aws(node_address) as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, aws: OrdersAws, namespace: str, agent_image: str) -> Path:
    return write_project(tmp_path, HANDLER, url=aws.url, namespace=namespace, agent_image=agent_image)


def passed(project: Path, test: str) -> list[str]:
    """The planes on which this test of the project passes."""
    (project / "tests").mkdir()
    (project / "tests" / "test_work.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--plane", ",".join(PLANES)]
    done = subprocess.run(
        [*command, "--strict-planes"], cwd=project, capture_output=True, text=True, check=False, env=os.environ | KEYS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"\[(\w+)\] PASSED", done.stdout)


def test_a_handler_that_calls_aws_passes_on_three_planes_with_one_config(project: Path, aws: OrdersAws) -> None:
    assert passed(project, TEST) == list(PLANES)
    assert aws.bodies() == [IN_THE_BUCKET] * len(PLANES)


def test_without_credentials_the_sdk_says_so_on_three_planes_alike(project: Path, aws: OrdersAws) -> None:
    config = project / "htcgrid.toml"
    config.write_text(re.sub('credentials = ".*"', 'credentials = "none"', config.read_text()))
    assert passed(project, TEST_WITHOUT) == list(PLANES)
    assert aws.bodies() == []

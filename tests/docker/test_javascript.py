"""A handler with AWS's SDK for JavaScript in a container: it acts as the role that was assumed for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto_aws import empty_aws, make_orders
from powertools import BRIDGE, KEYS

PARTS = Path(__file__).parents[1] / "parts"
REGION = "eu-west-1"
CONFIG = """
plane = "docker"
[function]
handler = "index.handler"
runtime = "nodejs20.x"
name = "prices"
code = "src"
timeout = 30
memory = 256
region = "{region}"
endpoint_url = "{url}"
credentials = "role:arn:aws:iam::123456789012:role/pricing"
[planes.docker]
plugin = "local_docker"
base_image = "{image}"
workers = 1
"""


@pytest.fixture
def aws() -> Iterator[str]:
    with empty_aws(BRIDGE) as url:
        yield url


def test_it_reads_writes_and_is_its_role(node_image: str, tmp_path: Path, aws: str) -> None:
    modules = subprocess.run(
        [sys.executable, PARTS / "node_sdk.py"], stdout=subprocess.PIPE, text=True, check=False
    ).stdout.strip()
    if not modules:
        pytest.skip("AWS's SDK for JavaScript cannot be installed here")
    shutil.copytree(modules, tmp_path / "src" / "node_modules")
    shutil.copy(PARTS / "javascript" / "index.js", tmp_path / "src")
    tmp_path.chmod(0o755)
    session = boto3.Session(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
    s3, dynamodb = session.client("s3", endpoint_url=aws), session.client("dynamodb", endpoint_url=aws)
    s3.create_bucket(Bucket="prices", CreateBucketConfiguration={"LocationConstraint": REGION})
    s3.put_object(Bucket="prices", Key="in", Body=b"read from S3")
    make_orders(dynamodb)
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(url=aws, region=REGION, image=node_image))
    event = json.dumps({"id": "1", "bucket": "prices", "table": "orders"})
    done = subprocess.run(
        [Path(sys.executable).with_name("htcgrid"), "invoke", event],
        cwd=tmp_path,
        env=os.environ | KEYS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout) == {
        "who": "arn:aws:sts::123456789012:assumed-role/pricing/htcgrid-prices",
        "region": REGION,
    }
    item = dynamodb.get_item(TableName="orders", Key={"id": {"S": "1"}})["Item"]
    assert item["body"]["S"] == "read from S3"
    s3.close()
    dynamodb.close()

"""A handler with AWS's SDK for JavaScript in a pod: it acts as the role that was assumed for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import kubernetes_layered as layered
import pytest
from javascript_handler import EVENT, write_code
from orders_aws import IN_THE_BUCKET, KEYS, REGION, orders_aws

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from orders_aws import OrdersAws

CONFIG = """
plane = "cluster"
[function]
handler = "index.handler"
runtime = "nodejs20.x"
name = "prices"
timeout = 30
memory = 256
region = "{region}"
endpoint_url = "{url}"
credentials = "{credentials}"
[planes.cluster]
plugin = "eks"
code = "image"
namespace = "{namespace}"
image = "{image}"
agent_image = "{agent_image}"
"""


@pytest.fixture
def aws(node_address: str) -> Iterator[OrdersAws]:
    with orders_aws(node_address) as found:
        yield found


@pytest.fixture
def invoke(
    aws: OrdersAws, tmp_path: Path, namespace: str, agent_image: str
) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Calls the handler with these credentials."""
    write_code(tmp_path / "code")
    names = {"url": aws.url, "namespace": namespace, "agent_image": agent_image}
    image = layered.javascript_image(tmp_path / "code")

    def call(credentials: str) -> subprocess.CompletedProcess[str]:
        config = CONFIG.format(region=REGION, credentials=credentials, image=image, **names)
        (tmp_path / "htcgrid.toml").write_text(config)
        command = [sys.executable, "-m", "htcgrid", "invoke", EVENT]
        return subprocess.run(command, cwd=tmp_path, env=os.environ | KEYS, capture_output=True, text=True, check=False)

    return call


def test_it_reads_writes_and_is_its_role(
    invoke: Callable[[str], subprocess.CompletedProcess[str]], aws: OrdersAws
) -> None:
    done = invoke("role:arn:aws:iam::123456789012:role/pricing")
    assert done.returncode == 0, done.stdout + done.stderr
    who = "arn:aws:sts::123456789012:assumed-role/pricing/htcgrid-prices"
    assert json.loads(done.stdout) == {"who": who, "region": REGION}
    assert aws.bodies() == [IN_THE_BUCKET]


def test_without_credentials_it_says_what_its_own_sdk_says_of_that(
    invoke: Callable[[str], subprocess.CompletedProcess[str]], aws: OrdersAws
) -> None:
    done = invoke("none")
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["errorType"] == "CredentialsProviderError"
    assert aws.bodies() == []

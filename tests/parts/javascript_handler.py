"""The handler with AWS's SDK for JavaScript in containers: its code, how it is called, and what it is to answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from orders_aws import IN_THE_BUCKET, KEYS, REGION, OrdersAws

_PARTS = Path(__file__).parent
_EVENT = '{"id": "1", "bucket": "prices", "table": "orders"}'
ROLE = "role:arn:aws:iam::123456789012:role/pricing"
_CONFIG = """
plane = "it"
[function]
handler = "index.handler"
runtime = "nodejs20.x"
name = "prices"
code = "code"
timeout = 30
memory = 256
region = "{region}"
endpoint_url = "{url}"
credentials = "{credentials}"
[planes.it]
"""


def write_code(folder: Path) -> None:
    """Into the folder `code` of this one."""
    folder = folder / "code"
    command: list[str | Path] = [sys.executable, _PARTS / "node_sdk.py"]
    modules = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.strip()
    if not modules:
        pytest.skip("AWS's SDK for JavaScript cannot be installed here")
    shutil.copytree(modules, folder / "node_modules")
    shutil.copy(_PARTS / "javascript" / "index.js", folder)


def invoked(
    folder: Path, plane: str, aws: OrdersAws, credentials: str, url: str = ""
) -> subprocess.CompletedProcess[str]:
    """The handler in this folder, called on a plane of these keys with these credentials.

    `url` is where containers reach that AWS, if the agent reaches it elsewhere.
    """
    config = _CONFIG.format(region=REGION, url=url or aws.url, credentials=credentials) + plane
    (folder / "htcgrid.toml").write_text(config)
    command = [sys.executable, "-m", "htcgrid", "invoke", _EVENT]
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | KEYS | {"AWS_ENDPOINT_URL": aws.url},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_it_was_its_role(done: subprocess.CompletedProcess[str], aws: OrdersAws) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    who = "arn:aws:sts::123456789012:assumed-role/pricing/htcgrid-prices"
    assert json.loads(done.stdout) == {"who": who, "region": REGION}
    assert aws.bodies() == [IN_THE_BUCKET]


def assert_it_found_no_credentials(done: subprocess.CompletedProcess[str], aws: OrdersAws) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert json.loads(done.stdout)["errorType"] == "CredentialsProviderError"
    assert aws.bodies() == []

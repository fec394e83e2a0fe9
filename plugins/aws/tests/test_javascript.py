"""A handler with AWS's SDK for JavaScript: the role, the region and the endpoint that the config says, without code."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from conftest import REGION

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Aws

PARTS = Path(__file__).parents[3] / "tests" / "parts"
HTCGRID = Path(sys.executable).with_name("htcgrid")
ROLE = "role:arn:aws:iam::123456789012:role/pricing"
HANDLER = PARTS / "javascript" / "index.js"
CONFIG = """\
[function]
handler = "index.handler"
runtime = "nodejs20.x"
name = "prices"
code = "src"
timeout = 30
memory = 256
region = "{region}"
endpoint_url = "{url}"
credentials = "{credentials}"
[planes.local]
plugin = "process"
workers = 1
"""


def part(name: str, *arguments: str) -> Path:
    done = subprocess.run(
        [sys.executable, PARTS / f"{name}.py", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    return Path(done.stdout.strip())


class Project:
    """A folder with the handler, and what it reads and writes."""

    def __init__(self, folder: Path, aws: Aws) -> None:
        self.folder, self._url = folder, aws.url
        code = folder / "src"
        code.mkdir()
        shutil.copy(HANDLER, code)
        modules = code / "node_modules"
        modules.mkdir()
        for each in (part("node", "--cached"), part("node_sdk")):
            for module in each.iterdir():
                if not (modules / module.name).exists():
                    (modules / module.name).symlink_to(module)
        bucket, self.table = aws.bucket(), aws.table(key="id")
        aws.client("s3").put_object(Bucket=bucket, Key="in", Body=b"read from S3")
        self._dynamodb = aws.client("dynamodb")
        self.event = {"id": "1", "bucket": bucket, "table": self.table}

    def configured(self, credentials: str) -> Path:
        text = CONFIG.format(url=self._url, region=REGION, credentials=credentials)
        (self.folder / "htcgrid.toml").write_text(text)
        return self.folder

    def stored(self) -> str:
        item: Any = self._dynamodb.get_item(TableName=self.table, Key={"id": {"S": "1"}}).get("Item")
        return str(item["body"]["S"]) if item else ""


@pytest.fixture
def project(tmp_path: Path, aws: Aws) -> Project:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    return Project(tmp_path, aws)


def invoked(project: Project) -> tuple[str, Any]:
    """By `htcgrid invoke`: the kind of the error, empty for none, and the answer."""
    command: list[str | Path] = [HTCGRID, "invoke", json.dumps(project.event)]
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.returncode in {0, 1}, done.stderr
    return "Unhandled" if done.returncode else "", json.loads(done.stdout)


def served(project: Project) -> tuple[str, Any]:
    """By `htcgrid serve` and an SDK that calls it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with subprocess.Popen([HTCGRID, "serve", "--port", str(port)], cwd=project.folder, stderr=subprocess.PIPE) as serve:
        try:
            deadline = time.monotonic() + 60
            while not _answers(port):
                assert serve.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            settings = Config(retries={"total_max_attempts": 1})
            client = boto3.client("lambda", endpoint_url=f"http://127.0.0.1:{port}", config=settings)
            answer = client.invoke(FunctionName="prices", Payload=json.dumps(project.event))
            found = answer.get("FunctionError", ""), json.loads(answer["Payload"].read())
            client.close()
            return found
        finally:
            serve.terminate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.fixture(params=[invoked, served], ids=["invoke", "serve"])
def call(request: pytest.FixtureRequest) -> Callable[[Project], tuple[str, Any]]:
    return request.param  # type: ignore[no-any-return]


def test_it_acts_as_the_role_that_was_assumed_for_it(
    project: Project, call: Callable[[Project], tuple[str, Any]]
) -> None:
    project.configured(ROLE)
    error, answer = call(project)
    assert (error, answer) == (
        "",
        {"who": "arn:aws:sts::123456789012:assumed-role/pricing/htcgrid-prices", "region": REGION},
    )
    assert project.stored() == "read from S3"


def test_without_credentials_it_says_what_its_own_sdk_says_of_that(
    project: Project, call: Callable[[Project], tuple[str, Any]]
) -> None:
    project.configured("none")
    error, answer = call(project)
    assert (error, answer["errorType"]) == ("Unhandled", "CredentialsProviderError")
    assert "Could not load credentials from any providers" in answer["errorMessage"]
    assert project.stored() == ""

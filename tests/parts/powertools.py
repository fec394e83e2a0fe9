"""The example that uses Powertools for AWS Lambda: its layer, and a table for it at moto."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from moto_aws import empty_aws, make_orders

EXAMPLE = Path(__file__).parents[2] / "examples" / "powertools"
KEYS = {"AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example", "AWS_DEFAULT_REGION": "eu-west-1"}
BRIDGE = "172.17.0.1"


def layer() -> Path:
    """Made once, in $CI_CACHE or ~/.cache/htcgrid: it is 50 MB."""
    cache = Path(os.environ.get("CI_CACHE") or Path.home() / ".cache" / "htcgrid")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = cache / f"powertools-layer-{version}"
    if not (folder / "whole").exists():
        shutil.rmtree(folder, ignore_errors=True)
        command = [_htcgrid(), "layer", EXAMPLE / "requirements.txt", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / "whole").touch()
    return folder


@contextmanager
def served(host: str) -> Iterator[tuple[str, Any]]:
    """The address of an AWS that has the table `orders`, and a client for looking into it."""
    with empty_aws(host) as url:
        client = boto3.client(
            "dynamodb",
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id="example",
            aws_secret_access_key="example",
        )
        make_orders(client)
        yield url, client
        client.close()


def invoke(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The example's event, on a plane of the example's config."""
    event = ("--event-file", str(EXAMPLE / "event.json"), "--log")
    return subprocess.run(
        [
            _htcgrid(),
            "invoke",
            "-c",
            EXAMPLE / "htcgrid.toml",
            *event,
            "--set",
            f"function.endpoint_url={url}",
            *options,
        ],
        env={**os.environ, **KEYS},
        capture_output=True,
        text=True,
        check=False,
    )


def _htcgrid() -> Path:
    return Path(sys.executable).with_name("htcgrid")

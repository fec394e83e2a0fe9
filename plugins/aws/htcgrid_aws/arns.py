"""From what a config names to ARNs for a policy; what it leaves out is `*`."""

from __future__ import annotations

import re

_URL = re.compile(r"https?://[^/]+/(\d+)/([^/]+)")
_REGION = re.compile(r"https://sqs\.([a-z0-9-]+)\.")


def queue(name: str, region: str = "") -> str:
    """Of a queue by its name, URL or ARN; empty for none."""
    account = "*"
    if url := _URL.fullmatch(name):
        found = _REGION.match(name)
        region, account, name = (found[1] if found else region), url[1], url[2]
    return _arn("sqs", name, region, account)


def table(name: str, region: str = "") -> str:
    return _arn("dynamodb", name if name.startswith("arn:") or not name else f"table/{name}", region, "*")


def bucket(name: str) -> str:
    return f"arn:aws:s3:::{name}" if name else ""


def key(name: str, region: str = "") -> str:
    """Of a KMS key by its ARN or id. A policy cannot name a key by its alias: any key of the region."""
    name = "*" if name.startswith("alias/") or ":alias/" in name else name
    return _arn("kms", name if name.startswith("arn:") else f"key/{name}", region, "*")


def _arn(service: str, name: str, region: str, account: str) -> str:
    return name if name.startswith("arn:") or not name else f"arn:aws:{service}:{region or '*'}:{account}:{name}"

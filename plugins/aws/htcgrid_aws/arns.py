"""ARNs for a policy, from the names in a config; a part that the config leaves out is `*`."""

from __future__ import annotations

import re

_URL = re.compile(r"https?://[^/]+/(\d+)/([^/]+)")
_IMAGE = re.compile(r"(?P<account>\d+)\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[^/]+/(?P<name>[^:@]+)([:@].*)?")
_PARTITIONS = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
_REGION = re.compile(r"https://sqs\.([a-z0-9-]+)\.")


def queue(name: str, region: str = "") -> str:
    """The ARN of a queue that is given by name, URL or ARN; empty if the name is empty."""
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
    """The ARN of a KMS key that is given by ARN or id. A policy cannot name an alias: it then allows any key of the region."""
    name = "*" if name.startswith("alias/") or ":alias/" in name else name
    return _arn("kms", name if name.startswith("arn:") else f"key/{name}", region, "*")


def function(name: str, region: str = "", account: str = "*") -> str:
    return _arn("lambda", f"function:{name}", region, account)


def role(name: str, region: str = "", account: str = "*") -> str:
    """The ARN of a role that is given by name. Roles have no region, but China and GovCloud have their own partitions."""
    return f"arn:{_partition(region)}:iam::{account}:role/{name}"


def log_group(name: str, region: str = "", account: str = "*") -> str:
    return _arn("logs", f"log-group:{name}", region, account)


def repository(image: str, region: str = "") -> str:
    """The ARN of the ECR repository that has the image with this URI."""
    if not (found := _IMAGE.fullmatch(image)):
        return "*"
    return _arn("ecr", f"repository/{found['name']}", found["region"] or region, found["account"])


def _arn(service: str, name: str, region: str, account: str) -> str:
    if name.startswith("arn:") or not name:
        return name
    return f"arn:{_partition(region)}:{service}:{region or '*'}:{account}:{name}"


def _partition(region: str) -> str:
    return next((of for start, of in _PARTITIONS.items() if region.startswith(start)), "aws")

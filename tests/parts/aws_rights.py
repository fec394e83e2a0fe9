"""The rights that calls to AWS take, and what of them policies do not allow.

The calls are those that botocore makes in this process; what each takes is as the "Service Authorization Reference" has it.
"""

from __future__ import annotations

from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from unittest import mock

from botocore.client import BaseClient

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Right = tuple[str, str]
"""An action and the ARN that it is done to."""

ACCOUNT = "123456789012"  # moto's
FREE = {"sts:GetCallerIdentity"}
"""Everybody may call these."""
S3_ACTIONS = {"HeadBucket": "ListBucket", "ListObjectsV2": "ListBucket", "HeadObject": "GetObject"}
LAMBDA_ACTIONS = {"Invoke": "InvokeFunction"}


@contextmanager
def recorded() -> Iterator[set[Right]]:
    """The rights that the calls within take."""
    rights: set[Right] = set()
    make = BaseClient._make_api_call

    def call(client: Any, operation: str, parameters: Mapping[str, Any]) -> Any:
        service = client.meta.service_model.service_name
        rights.update(_rights(service, operation, parameters, client.meta.region_name))
        return make(client, operation, parameters)

    with mock.patch.object(BaseClient, "_make_api_call", call):
        yield rights


def missing(rights: set[Right], policy: Mapping[str, Any]) -> set[Right]:
    """What the policy does not allow."""
    return {right for right in rights if not any(_allows(statement, right) for statement in policy["Statement"])}


def unused(rights: set[Right], policy: Mapping[str, Any]) -> set[str]:
    """What the policy allows, and nothing did: the statement and the action."""
    return {
        f"{statement['Sid']} {action}"
        for statement in policy["Statement"]
        for action in _listed(statement["Action"])
        if not any(_allows({**statement, "Action": action}, right) for right in rights)
    }


def _allows(statement: Mapping[str, Any], right: Right) -> bool:
    action, arn = right
    return action in _listed(statement["Action"]) and any(
        fnmatchcase(arn, pattern) for pattern in _listed(statement["Resource"])
    )


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _rights(service: str, operation: str, given: Mapping[str, Any], region: str) -> set[Right]:
    if f"{service}:{operation}" in FREE:
        return set()
    return OF_SERVICE[service](operation, given, f"arn:aws:{service}:{region}:{ACCOUNT}:")


def _of_sqs(operation: str, given: Mapping[str, Any], start: str) -> set[Right]:
    name = given.get("QueueName") or given["QueueUrl"].rpartition("/")[2]
    return {(f"sqs:{operation.removesuffix('Batch')}", start + name)}


def _of_dynamodb(operation: str, given: Mapping[str, Any], start: str) -> set[Right]:
    index = f"/index/{given['IndexName']}" if "IndexName" in given else ""
    tables = [given["TableName"]] if "TableName" in given else list(given["RequestItems"])
    return {(f"dynamodb:{operation}", f"{start}table/{table}{index}") for table in tables}


def _of_s3(operation: str, given: Mapping[str, Any], start: str) -> set[Right]:
    what = f"arn:aws:s3:::{given['Bucket']}" + (f"/{given['Key']}" if "Key" in given else "")
    return {(f"s3:{S3_ACTIONS.get(operation, operation)}", what)}


def _of_sts(operation: str, given: Mapping[str, Any], start: str) -> set[Right]:
    tags = {("sts:TagSession", given["RoleArn"])} if given.get("Tags") else set()
    return {(f"sts:{operation}", given["RoleArn"]), *tags}


def _of_iam(operation: str, given: Mapping[str, Any], start: str) -> set[Right]:
    role = f"arn:aws:iam::{ACCOUNT}:role/{given['RoleName']}"
    return {(f"iam:{operation}", role), *([("iam:TagRole", role)] if given.get("Tags") else [])}


def _of_logs(operation: str, given: Mapping[str, Any], start: str) -> set[Right]:
    group = given.get("resourceArn") or f"{start}log-group:{given.get('logGroupName', '')}"
    return {(f"logs:{operation}", group), *([("logs:TagResource", group)] if given.get("tags") else [])}


def _of_lambda(operation: str, given: Mapping[str, Any], start: str) -> set[Right]:
    if operation == "GetAccountSettings":
        return {("lambda:GetAccountSettings", "*")}
    if "Resource" in given:
        return {(f"lambda:{operation}", given["Resource"])}
    qualifier = given.get("Qualifier", "")
    function = f"{start}function:{given['FunctionName']}" + (f":{qualifier}" if qualifier else "")
    rights = {(f"lambda:{LAMBDA_ACTIONS.get(operation, operation)}", function)}
    if operation == "GetFunction":
        rights.add(("lambda:ListTags", function))  # without it the answer has no tags
    if operation == "CreateFunction" and given.get("Tags"):
        rights.add(("lambda:TagResource", function))
    if "Role" in given:
        rights.add(("iam:PassRole", given["Role"]))
    rights |= {("lambda:GetLayerVersion", layer) for layer in given.get("Layers", ())}
    code = given.get("Code", given)
    if "S3Bucket" in code:
        rights.add(("s3:GetObject", f"arn:aws:s3:::{code['S3Bucket']}/{code['S3Key']}"))
    return rights


OF_SERVICE = {
    "dynamodb": _of_dynamodb,
    "iam": _of_iam,
    "lambda": _of_lambda,
    "logs": _of_logs,
    "s3": _of_s3,
    "sqs": _of_sqs,
    "sts": _of_sts,
}
"""What a call of each service takes, by the operation, what is given with it, and the start of ARNs of the service."""

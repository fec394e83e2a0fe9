"""The least IAM policies of a function on AWS Lambda: for the agent that invokes it, and for who deploys it."""

from collections.abc import Iterable, Mapping
from typing import Any

from htcgrid.spi import Function
from htcgrid_aws import arns

from htcgrid_aws_lambda import function_code
from htcgrid_aws_lambda.lambda_options import Options
from htcgrid_aws_lambda.role import log_group_of, role_name_of

Statement = Mapping[str, Any]


def policies(function: Function, options: Options, region: str, account: str) -> dict[str, dict[str, Any]]:
    """By use. `account` is `*` where it is not known."""
    name = function.function_name
    arn = arns.function(name, region, account)
    return {
        "agent": _policy(_agent(arn, options.qualifier)),
        "deployer": _policy(_deployer(arn, name, options, region, account)),
    }


def _agent(arn: str, qualifier: str) -> Iterable[Statement]:
    invoked = f"{arn}:{qualifier}" if qualifier else arn
    yield _allow("InvokeFunction", ("lambda:InvokeFunction",), invoked)
    # Not needed, but without them neither state nor timeout nor limits of the function are known.
    yield _allow("SeeFunction", ("lambda:GetFunctionConfiguration",), invoked)
    yield _allow("SeeConcurrency", ("lambda:GetFunctionConcurrency",), arn)
    yield _allow("SeeLimits", ("lambda:GetAccountSettings",), "*")


def _deployer(arn: str, name: str, options: Options, region: str, account: str) -> Iterable[Statement]:
    made = [
        "CreateFunction",
        "DeleteFunction",
        "UpdateFunctionCode",
        "UpdateFunctionConfiguration",
        "PutFunctionConcurrency",
        "PublishVersion",
        "CreateAlias",
        "UpdateAlias",
        "GetAlias",
        "GetFunction",
        "GetFunctionConfiguration",
        "ListTags",  # without it nobody sees whether the function is htcgrid's
        "TagResource",
        "UntagResource",
    ]
    yield _allow("DeployFunction", [f"lambda:{action}" for action in made], arn, f"{arn}:*")
    yield _allow("SeeLimits", ("lambda:GetAccountSettings",), "*")
    if options.layers:
        yield _allow("UseLayers", ("lambda:GetLayerVersion",), *options.layers)
    if options.image:
        # Lambda gives itself the right to pull, in the name of who deploys, where the repository's policy does not.
        used = ["GetRepositoryPolicy", "SetRepositoryPolicy", "BatchGetImage", "GetDownloadUrlForLayer"]
        yield _allow("UseImage", [f"ecr:{action}" for action in used], arns.repository(options.image, region))
    if options.bucket:
        bucket = arns.bucket(options.bucket)
        zips = f"{bucket}/{function_code.prefix(name)}*"
        yield _allow("FindZips", ("s3:ListBucket",), bucket)
        yield _allow("StoreZips", ("s3:PutObject", "s3:GetObject", "s3:DeleteObject"), zips)
    role = options.role or arns.role(role_name_of(name), region, account)
    passed = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    yield {**_allow("PassRole", ("iam:PassRole",), role), "Condition": passed}
    if not options.role:
        of_role = ["GetRole", "CreateRole", "TagRole", "DeleteRole"]
        of_role += ["GetRolePolicy", "PutRolePolicy", "DeleteRolePolicy"]
        yield _allow("MakeRole", [f"iam:{action}" for action in of_role], role)
        group = arns.log_group(log_group_of(name), region, account)
        yield _allow("FindLogGroup", ("logs:DescribeLogGroups",), arns.log_group("*", region, account))
        of_group = ["CreateLogGroup", "TagResource", "ListTagsForResource", "DeleteLogGroup"]
        yield _allow("MakeLogGroup", [f"logs:{action}" for action in of_group], group, f"{group}:*")


def _allow(sid: str, actions: Iterable[str], *resources: str) -> Statement:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}


def _policy(statements: Iterable[Statement]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}

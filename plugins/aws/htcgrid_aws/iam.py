"""The smallest IAM policies: for the agent; to submit, cancel and redrive; to read results and failures.

Each statement allows the calls of one plugin on one resource. This module does not call AWS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SQS_LOOK = ("sqs:GetQueueUrl", "sqs:GetQueueAttributes")
SQS_TAKE = ("sqs:ReceiveMessage", "sqs:ChangeMessageVisibility", "sqs:DeleteMessage")


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources of a grid, as ARNs; empty if it has none.

    `queues` and `dead_letter_queues` are SQS queues. `table` has the results, `cancel_table` the cancel marks, `task_table` a
    row for each task in the queue, `bucket` large inputs and results, or all results of the `s3` sink. If a prefix is None,
    the bucket has no such objects. `state_table` and `data_bucket` are HTC-Grid's; with `watchdog` the agent also does the
    work of HTC-Grid's watchdog. `keys` are KMS keys that encrypt any of these.

    `batches_results`: many answers are stored with one request, without a condition. `every_result_in_bucket`: the bucket has
    not only the large results, so it has failures too.
    """

    queues: tuple[str, ...] = ()
    dead_letter_queues: tuple[str, ...] = ()
    table: str = ""
    batches_results: bool = False
    cancel_table: str = ""
    task_table: str = ""
    bucket: str = ""
    inputs_prefix: str | None = "inputs/"
    results_prefix: str | None = "results/"
    every_result_in_bucket: bool = False
    state_table: str = ""
    data_bucket: str = ""
    watchdog: bool = False
    keys: tuple[str, ...] = ()


def policies(resources: Resources) -> dict[str, dict[str, Any]]:
    """All three policies by name."""
    return {"agent": agent(resources), "submitter": submitter(resources), "reader": reader(resources)}


def agent(resources: Resources) -> dict[str, Any]:
    """Receive, extend and delete messages and their rows; send dead letters; read inputs and cancel marks; store results."""
    r = resources
    return _policy(
        _allow("ReceiveTasks", (*SQS_LOOK, *SQS_TAKE), r.queues),
        _allow("SendDeadLetters", (*SQS_LOOK, "sqs:SendMessage"), r.dead_letter_queues),
        _allow("FindTable", ("dynamodb:DescribeTable",), (r.table, r.cancel_table, r.task_table, r.state_table)),
        _allow("StoreResults", ("dynamodb:PutItem", "dynamodb:BatchGetItem"), (r.table,)),
        _allow("StoreInBatches", ("dynamodb:BatchWriteItem",), (r.table if r.batches_results else "",)),
        _allow("SeeCancelled", ("dynamodb:BatchGetItem",), (r.cancel_table,)),
        _allow("RemoveRows", ("dynamodb:BatchWriteItem",), (r.task_table,)),
        _allow("FindBucket", ("s3:ListBucket",), (r.bucket, r.data_bucket)),
        _allow("ReadInputs", ("s3:GetObject",), (_under(r.bucket, r.inputs_prefix),)),
        _allow("StoreLargeResults", ("s3:PutObject",), (_results(r),)),
        _allow("ReadLargeResults", ("s3:GetObject",), (_results(r) if r.every_result_in_bucket else "",)),
        _allow("ClaimAndFinish", ("dynamodb:UpdateItem", "dynamodb:BatchGetItem"), (r.state_table,)),
        _allow("KeepRuns", ("dynamodb:PutItem",), (r.state_table,)),
        _allow("FindExpired", ("dynamodb:Query",), (_indexes(r.state_table) if r.watchdog else "",)),
        _allow("HtcGridInput", ("s3:GetObject",), (_under(r.data_bucket, "*-input"),)),
        _allow(
            "HtcGridOutput", ("s3:PutObject",), (_under(r.data_bucket, "*-output"), _under(r.data_bucket, "*-error"))
        ),
        _allow("UseKeys", ("kms:Decrypt", "kms:GenerateDataKey"), r.keys),
    )


def submitter(resources: Resources) -> dict[str, Any]:
    """`submit`, `cancel`, `redrive` and `status`: send tasks with their rows and large inputs; mark tasks as cancelled and
    store that result; receive and delete dead letters; find failures."""
    r = resources
    return _policy(
        _allow("SendTasks", (*SQS_LOOK, "sqs:SendMessage"), r.queues),
        _allow("TakeDeadLetters", (*SQS_LOOK, *SQS_TAKE), r.dead_letter_queues),
        _allow("FindTable", ("dynamodb:DescribeTable",), (r.table, r.cancel_table, r.task_table, r.state_table)),
        _allow("StoreCancelled", ("dynamodb:PutItem", "dynamodb:BatchGetItem"), (r.table,)),
        _allow("FindFailures", ("dynamodb:Scan",), (r.table,)),
        _allow(
            "SubmitAndCancel", ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:BatchGetItem"), (r.state_table,)
        ),
        _allow("FindSession", ("dynamodb:Query",), (_indexes(r.state_table),)),
        _allow("HtcGridInput", ("s3:GetObject", "s3:PutObject"), (_under(r.data_bucket, "*-input"),)),
        _allow("HtcGridCancelled", ("s3:PutObject",), (_under(r.data_bucket, "*-error"),)),
        _allow("Cancel", ("dynamodb:BatchWriteItem", "dynamodb:BatchGetItem"), (r.cancel_table,)),
        _allow("WriteRows", ("dynamodb:PutItem", "dynamodb:BatchGetItem", "dynamodb:BatchWriteItem"), (r.task_table,)),
        _allow("FindTasksOfSession", ("dynamodb:Scan",), (r.task_table,)),
        _allow("FindBucket", ("s3:ListBucket",), (r.bucket, r.data_bucket)),
        _allow("StoreLargeInputs", ("s3:PutObject", "s3:GetObject"), (_under(r.bucket, r.inputs_prefix),)),
        _allow("ReadLargeResults", ("s3:GetObject",), (_results(r),)),
        _allow("StoreCancelledInBucket", ("s3:PutObject",), (_results(r) if r.every_result_in_bucket else "",)),
        _allow("UseKeys", ("kms:Decrypt", "kms:GenerateDataKey"), r.keys),
    )


def reader(resources: Resources) -> dict[str, Any]:
    """`results`, `failures`, `report` and `status`: read results, also in S3, dead letters, and the depth of queues."""
    r = resources
    return _policy(
        _allow("SeeQueues", SQS_LOOK, r.queues),
        _allow(
            "SeeDeadLetters", (*SQS_LOOK, "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility"), r.dead_letter_queues
        ),
        _allow("FindTable", ("dynamodb:DescribeTable",), (r.table, r.cancel_table, r.task_table, r.state_table)),
        _allow("ReadResults", ("dynamodb:BatchGetItem",), (r.table, r.state_table)),
        _allow("FindFailures", ("dynamodb:Scan",), (r.table,)),
        _allow("FindSession", ("dynamodb:Query",), (_indexes(r.state_table),)),
        _allow("FindBucket", ("s3:ListBucket",), (r.bucket, r.data_bucket)),
        _allow("ReadInputs", ("s3:GetObject",), (_under(r.bucket, r.inputs_prefix),)),
        _allow("ReadLargeResults", ("s3:GetObject",), (_results(r),)),
        _allow(
            "HtcGridOutput", ("s3:GetObject",), (_under(r.data_bucket, "*-output"), _under(r.data_bucket, "*-error"))
        ),
        _allow("UseKeys", ("kms:Decrypt",), r.keys),
    )


def _policy(*statements: dict[str, Any] | None) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": [statement for statement in statements if statement]}


def _allow(sid: str, actions: tuple[str, ...], arns: tuple[str, ...]) -> dict[str, Any] | None:
    there = list(dict.fromkeys(arn for arn in arns if arn))
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": there} if there else None


def _indexes(table: str) -> str:
    return f"{table}/index/*" if table else ""


def _results(resources: Resources) -> str:
    return _under(resources.bucket, resources.results_prefix)


def _under(bucket: str, keys: str | None) -> str:
    return f"{bucket}/{keys}{'' if keys.startswith('*') else '*'}" if bucket and keys is not None else ""

"""Decides which of two results of a task is kept, and stores documents in S3 by that rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from htcgrid.spi import Result, Unavailable, generation_of
from htcgrid_aws import result_documents

if TYPE_CHECKING:
    from htcgrid_aws.s3_bucket import Bucket

_TRIES = 3


def replaces(result: Result, before: Result, *, last_answer_stays: bool) -> bool:
    """Whether `result` replaces the stored one.

    A later generation replaces a failure. With `last_answer_stays`, an answer of the first generation also replaces a result
    of the first generation: a job that is run again without a redrive gets its new answers.
    """
    generation, there = generation_of(result.task), generation_of(before.task)
    if generation > there:
        return before.outcome.failure is not None
    return last_answer_stays and generation == there == 0 and result.outcome.failure is None


def store(bucket: Bucket, key: str, result: Result, *, last_answer_stays: bool) -> Result:
    """Store the document of a result if it may replace the stored one; returns the result that is stored then.

    Every write has a condition, so agents that write at the same time do not overwrite each other's documents.
    """
    document = result_documents.write(result)
    tag: str | None = None
    for _ in range(_TRIES):
        if bucket.put_where(key, document, tag):
            return result
        there, tag = bucket.get_tagged(key)
        if there is None:
            continue
        before = read(bucket, key, result.task.id, there)
        if not replaces(result, before, last_answer_stays=last_answer_stays):
            return before
    raise Unavailable(f"{bucket.address(key)} is being changed by other agents; put again", retry_after=1)


def read(bucket: Bucket, key: str, task_id: str, document: bytes) -> Result:
    """The result of a document; raises `Rejected` if the document is not a result."""
    with result_documents.read_from(bucket.address(key), task_id):
        return result_documents.read(document)

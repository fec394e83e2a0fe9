"""The tasks of messages whose inputs were too large and are in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from htcgrid.spi import Task
from htcgrid_aws import messages

if TYPE_CHECKING:
    from htcgrid_aws.s3_bucket import Bucket


def read_whole(message: dict[str, Any], bucket: Bucket | None) -> messages.Received:
    """The task of a message, with its input from the bucket if it is there."""
    received = messages.read(message)
    if not received.reference:
        return received
    return _fetched(received, bucket)


def _fetched(received: messages.Received, bucket: Bucket | None) -> messages.Received:
    task, address = received.task, received.reference
    key = bucket.key_of(address) if bucket else None
    if bucket is None or key is None:
        where = f"bucket {bucket.name} under {bucket.prefix!r}" if bucket else "no bucket"
        reason = (
            f"its input is at {address}, but this agent reads from {where}; set the same bucket and prefix everywhere"
        )
        return messages.Received(task, f"task {task.id}: {reason}", address)
    payload = bucket.get(key)
    if payload is None:
        return messages.Received(task, f"task {task.id}: its input {address} does not exist", address)
    whole = messages.checked(Task(task.id, payload, task.attributes))
    return messages.Received(whole.task, whole.invalid, address)

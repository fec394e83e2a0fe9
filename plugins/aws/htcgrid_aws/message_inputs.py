"""The tasks of messages whose inputs were too large and are in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from htcgrid.spi import Task
from htcgrid_aws import messages
from htcgrid_aws.parallel import each

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from htcgrid.spi import HtcgridError
    from htcgrid_aws.held_messages import ReceivedMessage
    from htcgrid_aws.s3_bucket import Bucket


def read_whole(message: dict[str, Any], bucket: Bucket | None) -> messages.Received:
    """The task of a message, with its input from the bucket if it is there."""
    received = messages.read(message)
    if not received.reference:
        return received
    return _fetched(received, bucket)


def read_all(
    found: Sequence[ReceivedMessage], bucket: Bucket | None, pool: Executor
) -> list[tuple[ReceivedMessage, messages.Received | HtcgridError]]:
    """As `read_whole` for each message. Threads are used for inputs in the bucket alone: to hand one a small message takes longer
    than to read it."""
    read = [(one, messages.read(one.message)) for one in found]
    there = [received for _, received in read if received.reference]
    fetched = iter(each(pool, lambda received: _fetched(received, bucket), there))
    return [(one, next(fetched)[1] if received.reference else received) for one, received in read]


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

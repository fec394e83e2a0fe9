"""Converts a task to an SQS message, and back.

The body is the event itself, so any program's message is a task: its id is then the message id, and its text attributes are
the task's. htcgrid adds one message attribute, since SQS allows only ten: `htcgrid`, a JSON object with `id` and
`attributes`. If the body is not the event itself, it also has `body`: `"base64"` for bytes that SQS does not accept, or the
S3 address of an input too large for a message.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from htcgrid.spi import Task
from htcgrid_aws.sqs_queue import TRACE, Message

if TYPE_CHECKING:
    from collections.abc import Mapping

ATTRIBUTE = "htcgrid"
EMPTY = "="
"""The body of an event without bytes: SQS does not accept an empty body."""

UNSENDABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The characters that XML 1.0 does not allow, so an SQS body must not contain them."""


@dataclass(frozen=True, slots=True)
class Received:
    """The content of a message: its task, or why it is not a task; `reference` is the payload's address in S3, if it is there."""

    task: Task
    invalid: str = ""
    reference: str = ""


def write(task: Task, reference: str = "") -> Message:
    """The message of a task; `reference` is the S3 address of its input, if it was put there."""
    metadata: dict[str, Any] = {"id": task.id}
    if task.attributes:
        metadata["attributes"] = dict(task.attributes)
    if reference:
        body = json.dumps({"s3": reference})
        metadata["body"] = reference
    else:
        text = _as_text(task.payload)
        body = base64.b64encode(task.payload).decode() or EMPTY if text is None else text
        if text is None:
            metadata["body"] = "base64"
    return Message(body, {ATTRIBUTE: json.dumps(metadata, separators=(",", ":"))})


def read(message: Mapping[str, Any]) -> Received:
    """The task of a message as SQS returns it. It does not raise: `invalid` says why a message is not a task."""
    received = _read(message)
    trace = message.get("Attributes", {}).get(TRACE)
    if trace is None or TRACE in received.task.attributes:
        return received
    traced = {**received.task.attributes, TRACE: trace}
    return replace(received, task=replace(received.task, attributes=traced))


def _read(message: Mapping[str, Any]) -> Received:
    body = str(message["Body"])
    attributes = message.get("MessageAttributes", {})
    if ATTRIBUTE not in attributes:
        texts = {name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value}
        return checked(Task(message["MessageId"], body.encode(), texts))
    try:
        metadata = json.loads(attributes[ATTRIBUTE]["StringValue"])
        how = metadata.get("body", "")
        payload = base64.b64decode("" if body == EMPTY else body, validate=True) if how == "base64" else body.encode()
        task = Task(metadata["id"], payload, dict(metadata.get("attributes", {})))
        _require_texts(task)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"its message attribute {ATTRIBUTE!r} was not written by htcgrid ({type(error).__name__}: {error})"
        return Received(Task(message["MessageId"], body.encode()), f"message {message['MessageId']}: {reason}")
    if how and how != "base64":
        return Received(task, reference=str(how))
    return checked(task)


def _require_texts(task: Task) -> None:
    """Raises TypeError or ValueError unless id and attributes are texts that can be stored: not so the id 5, or a lone surrogate."""
    for text in (task.id, *task.attributes.keys(), *task.attributes.values()):
        if not isinstance(text, str):
            raise TypeError(f"{text!r} is not a text")
        text.encode()
    if not task.id:
        raise ValueError("its id is empty")


def checked(task: Task) -> Received:
    """The task, with the reason if its payload is not JSON."""
    try:
        json.loads(task.payload)
    except (ValueError, RecursionError) as error:
        start = task.payload[:60].decode(errors="replace")
        return Received(task, f"task {task.id}: its body is not a JSON document ({error}); it starts with {start!r}")
    return Received(task)


def _as_text(payload: bytes) -> str | None:
    try:
        text = payload.decode()
    except UnicodeDecodeError:
        return None
    return None if not text or UNSENDABLE.search(text) else text

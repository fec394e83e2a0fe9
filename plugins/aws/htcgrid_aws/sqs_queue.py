"""One SQS queue: its address, its limits, and batch calls with their partial failures."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from htcgrid.spi import Rejected, States, Unavailable
from htcgrid_aws.aws_errors import service_error, translated_errors
from htcgrid_aws.parallel import each, raise_worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Executor

BATCH = 10
"""The most entries of one batch call, and messages of one receive."""

SIDE_BY_SIDE = 2
"""How many receives or deletes are made at a time: with one, an agent with short tasks waits for them. With three, an agent receives too
many long tasks that follow short ones: in `bench/prefetch.py` a run takes 1.10 times as long as the ideal, with two 1.01 times."""

TRACE = "AWSTraceHeader"
"""The system attribute with the sender's trace, and the attribute of a task that has it."""

MOST_IN_FLIGHT = 120_000
"""The most messages of a standard queue that may be received and not deleted. At this limit, SQS answers long polls as if
the queue were empty.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
"""

LONGEST_POLL = 20
"""The longest wait of one ReceiveMessage, in seconds."""

LONGEST_LEASE = 43_200
"""In seconds: a message may be invisible for 12 hours in all after it was received."""

NOT_IN_FLIGHT = frozenset(
    (
        "ReceiptHandleIsInvalid",
        "InvalidReceiptHandle",
        "InvalidParameterValue",
        "MessageNotInflight",
        "AWS.SimpleQueueService.MessageNotInflight",
    )
)
"""Error codes of entries whose message was deleted already or is leased to another receiver."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send. `size` is in bytes as SQS counts them: the body, and the attributes' names, types and values."""

    body: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        attributes = sum(len(name) + len("String") + len(value.encode()) for name, value in self.attributes.items())
        return len(self.body.encode()) + attributes

    def entry(self, number: int) -> dict[str, Any]:
        """The entry of a SendMessageBatch."""
        entry: dict[str, Any] = {"Id": str(number), "MessageBody": self.body}
        if self.attributes:
            entry["MessageAttributes"] = {
                name: {"DataType": "String", "StringValue": value} for name, value in self.attributes.items()
            }
        return entry


class Queue:
    """A queue by its name, URL or ARN. Call `open` first. With a pool, several deletes are made at the same time."""

    def __init__(self, client: Any, name: str, pool: Executor | None = None) -> None:
        self._client = client
        self._pool = pool
        self.name = name
        self.url = ""
        self.visibility_timeout = 30
        self.max_message = 262_144
        self.arn = ""
        self.dead_letter_arn = ""
        self.max_receives: int | None = None

    def open(self) -> None:
        """Find the queue and read its limits."""
        if self.name.endswith(".fifo"):
            message = (
                f"queue {self.name} is a FIFO queue; htcgrid needs a standard one: a FIFO queue hands out one message "
                "of a group at a time and cannot delay single messages. Create a standard queue and name it here"
            )
            raise Rejected(message)
        self.url = self._find()
        answer = self._call("GetQueueAttributes", AttributeNames=["All"])
        attributes = answer.get("Attributes", {})
        self.visibility_timeout = int(attributes.get("VisibilityTimeout", 30))
        self.max_message = int(attributes.get("MaximumMessageSize", 262_144))
        self.arn = str(attributes.get("QueueArn", ""))
        redrive = json.loads(attributes.get("RedrivePolicy") or "{}")
        self.dead_letter_arn = str(redrive.get("deadLetterTargetArn", ""))
        self.max_receives = int(redrive["maxReceiveCount"]) if "maxReceiveCount" in redrive else None

    def _find(self) -> str:
        if self.name.startswith(("http://", "https://")):
            return self.name
        where: dict[str, str] = {"QueueName": self.name}
        if arn := re.fullmatch(r"arn:[^:]+:sqs:[^:]*:(\d+):([^:]+)", self.name):
            where = {"QueueOwnerAWSAccountId": arn[1], "QueueName": arn[2]}
        with translated_errors("sqs:GetQueueUrl", f"queue {self.name}"):
            return str(self._client.get_queue_url(**where)["QueueUrl"])

    def _call(self, operation: str, **arguments: Any) -> Any:
        method = re.sub(r"(?<!^)(?=[A-Z])", "_", operation).lower()
        with translated_errors(f"sqs:{operation.removesuffix('Batch')}", f"queue {self.name}"):
            return getattr(self._client, method)(QueueUrl=self.url, **arguments)

    def receive(self, count: int, wait: int, visibility: int) -> list[dict[str, Any]]:
        """Up to `count` messages as SQS returns them, in at most `wait` seconds; they are invisible for `visibility` seconds."""
        answer = self._call(
            "ReceiveMessage",
            MaxNumberOfMessages=min(count, BATCH),
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["ApproximateReceiveCount", TRACE],
        )
        messages: list[dict[str, Any]] = answer.get("Messages", [])
        return messages

    def delete(self, handles: Sequence[str]) -> None:
        """Delete messages. It is not an error if they were deleted already."""

        def delete(batch: Sequence[str]) -> None:
            entries = [{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(batch)]
            self._failed(self._call("DeleteMessageBatch", Entries=entries), "sqs:DeleteMessage")

        distinct = list(dict.fromkeys(handles))
        batches = [distinct[start : start + BATCH] for start in range(0, len(distinct), BATCH)]
        if self._pool is None:
            for batch in batches:
                delete(batch)
        else:
            raise_worst(answer for _, answer in each(self._pool, delete, batches))

    def change_visibility(self, seconds: Mapping[str, float]) -> set[str]:
        """Make messages invisible for this long from now, by receipt handle; returns the handles that are no longer ours."""
        lost: set[str] = set()
        handles = list(seconds)
        for start in range(0, len(handles), BATCH):
            batch = handles[start : start + BATCH]
            entries = [
                {"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": math.ceil(seconds[handle])}
                for n, handle in enumerate(batch)
            ]
            answer = self._call("ChangeMessageVisibilityBatch", Entries=entries)
            lost.update(batch[n] for n in self._failed(answer, "sqs:ChangeMessageVisibility"))
        return lost

    def send(self, messages: Sequence[Message]) -> None:
        """Send one batch of `batches`. Raises `Unsent` with the numbers of the messages that SQS did not accept."""
        answer = self._call("SendMessageBatch", Entries=[message.entry(n) for n, message in enumerate(messages)])
        # Without failures, AWS leaves "Failed" out, and moto returns [].
        failed = answer.get("Failed") or []
        if not failed:
            return
        errors = [
            service_error(entry["Code"], 0, entry.get("Message", ""), "sqs:SendMessage", f"queue {self.name}")
            for entry in failed
        ]
        for_good = all(
            entry.get("SenderFault") and isinstance(error, Rejected)
            for entry, error in zip(failed, errors, strict=True)
        )
        raise Unsent(str(errors[0]), {int(entry["Id"]) for entry in failed}, for_good=for_good)

    def batches(self, messages: Iterable[Message]) -> Iterable[list[Message]]:
        """Batches of at most ten messages, which together are not larger than the queue's largest message.

        Both limits have always been equal: in 2025 AWS raised them from 256 KiB to 1 MiB.
        """
        batch: list[Message] = []
        size = 0
        for message in messages:
            if batch and (len(batch) == BATCH or size + message.size > self.max_message):
                yield batch
                batch, size = [], 0
            batch.append(message)
            size += message.size
        if batch:
            yield batch

    def states(self) -> States:
        """SQS's own estimate of the messages that wait, are delayed, and are in flight."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesDelayed",
            "ApproximateNumberOfMessagesNotVisible",
        )
        counts = self._call("GetQueueAttributes", AttributeNames=list(names))["Attributes"]
        ready, delayed, leased = (int(counts[name]) for name in names)
        return States(waiting=ready, delayed=delayed, leased=leased)

    def _failed(self, answer: Any, action: str) -> list[int]:
        """The numbers of the entries whose message is no longer ours; other failures are raised."""
        gone: list[int] = []
        for entry in answer.get("Failed") or []:
            if entry["Code"] not in NOT_IN_FLIGHT:
                error = service_error(entry["Code"], 0, entry.get("Message", ""), action, f"queue {self.name}")
                raise error if entry.get("SenderFault") else Unavailable(str(error))
            gone.append(int(entry["Id"]))
        return gone


def total(states: Sequence[States]) -> States:
    """The sum of the states of several queues."""
    names = ("waiting", "delayed", "leased")
    return States(**{name: sum(getattr(each, name) for each in states) for name in names})


class Unsent(Exception):
    """SQS did not accept some messages of a batch: `numbers` in the batch; `for_good` if it never will."""

    def __init__(self, message: str, numbers: set[int], *, for_good: bool = False) -> None:
        super().__init__(message)
        self.numbers = numbers
        self.for_good = for_good

"""The messages of dead-letter queues. SQS cannot list them, so each is received and made visible again at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from htcgrid.spi import DeadTask, generation_of
from htcgrid_aws import messages
from htcgrid_aws.sqs_queue import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from htcgrid.spi import Task
    from htcgrid_aws.messages import Received
    from htcgrid_aws.sqs_queue import Queue

REASON = "htcgrid.reason"
"""The message attribute of a dead letter that says why the task failed for good."""

LONGEST_REASON = 2000
"""In bytes."""

_HIDDEN_SECONDS = 60
_EMPTY_LOOKS = 2
"""How many receives must find nothing new: a queue with few messages may answer with none although it has some."""


def dead_letter(task: Task, reference: str, reason: str, most: int) -> Message:
    """The message of a task with the reason as an attribute, cut so that the message has at most `most` bytes."""
    clean = messages.UNSENDABLE.sub("?", reason) or "no reason given"
    letter = messages.write(task, reference)
    room = most - letter.size - len(REASON) - len("String")
    text = clean.encode()[: max(1, min(room, LONGEST_REASON))].decode(errors="ignore") or "?"
    return Message(letter.body, {**letter.attributes, REASON: text})


class DeadLetters:
    """All dead letters of these queues, a few at a time in memory."""

    def __init__(self, queues: Sequence[Queue], read: Callable[[dict[str, Any]], Received]) -> None:
        self._queues = queues
        self._read = read

    def read(self) -> Iterator[DeadTask]:
        for queue in self._queues:
            for message in self._messages(queue, keep=lambda _message: True):
                attributes = message.get("MessageAttributes", {})
                reason = attributes.get(REASON, {}).get(
                    "StringValue", "SQS moved it here: it was received more often than maxReceiveCount"
                )
                attempt = int(message["Attributes"]["ApproximateReceiveCount"])
                yield DeadTask(self._read(message).task, attempt, reason)

    def remove(self, tasks: Sequence[Task]) -> None:
        """Delete the dead letters of these tasks, which are in the queue again; those of this run of theirs, or a later one, stay."""
        generations = {task.id: generation_of(task) for task in tasks}

        def keep(message: dict[str, Any]) -> bool:
            dead = self._read(message).task
            return dead.id not in generations or generation_of(dead) >= generations[dead.id]

        for queue in self._queues:
            for _ in self._messages(queue, keep):
                pass

    def _messages(self, queue: Queue, keep: Callable[[dict[str, Any]], bool]) -> Iterator[dict[str, Any]]:
        """Each kept message once. The others are deleted; kept ones are made visible again at the end."""
        kept: dict[str, str] = {}
        empty = 0
        try:
            while empty < _EMPTY_LOOKS:
                some = queue.receive(10, 0, _HIDDEN_SECONDS)
                new = [message for message in some if message["MessageId"] not in kept]
                empty = 0 if new else empty + 1
                gone = []
                for message in new:
                    if keep(message):
                        kept[message["MessageId"]] = message["ReceiptHandle"]
                        yield message
                    else:
                        gone.append(message["ReceiptHandle"])
                queue.delete(gone)
        finally:
            queue.change_visibility(dict.fromkeys(kept.values(), 0))

"""Settings of an SQS queue that would end a task before the agent does."""

from __future__ import annotations

from typing import TYPE_CHECKING

from htcgrid_aws.sqs_queue import LONGEST_LEASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from htcgrid_aws.sqs_queue import Queue


def queue_advice(queues: Sequence[Queue], timeout: float, attempts: int, dead_letter_queue: str) -> Iterator[str]:
    """What to change for a function with this timeout and an agent with this many attempts."""
    if timeout > LONGEST_LEASE:
        yield (
            f"function.timeout = {timeout:g} s is more than the {LONGEST_LEASE} s that a message may be invisible in all: "
            "a longer task is handed out again while it runs. Split it into shorter tasks."
        )
    for queue in queues:
        if queue.max_receives is not None and queue.max_receives <= attempts:
            yield (
                f"queue {queue.name}: maxReceiveCount is {queue.max_receives}, but the agent tries a task up to "
                f"{attempts} times: SQS would move it to the dead-letter queue without a reason or a result. Set it to {attempts + 7} "
                "or more, since receives of agents that died count too."
            )
        if not queue.dead_letter_arn and not dead_letter_queue:
            yield (
                f"queue {queue.name} has no dead-letter queue: tasks that failed for good are deleted, and only their "
                "result says why. Set dead_letter_queue, or a redrive policy on the queue."
            )

"""A few lines of agent: threads that invoke, and try again what was not to be had. It keeps the books."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Empty, Queue

from htcgrid.spi import Invoker, Lease, Outcome, Task, Unavailable

from htcgrid_aws_lambda.invoker import AwsLambdaInvoker

Opener = Callable[..., AwsLambdaInvoker]
"""What the fixture `opened` gives: options of the plane in, an open plane out."""


@dataclass
class Books:
    """What came of the tasks: outcome and attempt by task id, and when each was done."""

    outcomes: dict[str, tuple[Outcome, int]] = field(default_factory=dict)
    done_at: list[float] = field(default_factory=list)
    unavailable: int = 0
    unstarted: int = 0


def run(plane: Invoker, tasks: Sequence[Task], threads: int, back_off: float = 0.02) -> Books:
    """Run all tasks to their outcomes."""
    books = Books()
    queue: Queue[Lease] = Queue()
    for task in tasks:
        queue.put(Lease(task))

    def work() -> None:
        while len(books.outcomes) < len(tasks):
            try:
                lease = queue.get(timeout=0.05)
            except Empty:
                continue
            _attempt(plane, lease, books, queue.put, back_off)

    with ThreadPoolExecutor(threads) as pool:
        for thread in [pool.submit(work) for _ in range(threads)]:
            thread.result()
    return books


def _attempt(plane: Invoker, lease: Lease, books: Books, again: Callable[[Lease], None], back_off: float) -> None:
    try:
        for found in plane.invoke([lease], 30.0):
            if isinstance(found, Outcome):
                assert found.task_id not in books.outcomes, "a task was reported twice"
                books.outcomes[found.task_id] = (found, lease.attempt)
                books.done_at.append(time.monotonic())
            else:
                books.unstarted += 1
                again(lease)
    except Unavailable as error:
        books.unavailable += 1
        time.sleep(error.retry_after or back_off)
        again(replace(lease, attempt=lease.attempt + (lease.task.id in error.begun)))

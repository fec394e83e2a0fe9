"""10,000 tasks on SQS with DynamoDB while agents die.

A kill costs more than on sqlite: an agent takes a second of a processor to start, and what it held lies for the lease.
"""

import json
import sys
import time
from pathlib import Path

import pytest
from aws import AWS_QUEUE, Aws
from herd import Herd

TASKS = 10_000
SESSION = 2_000
"""Tasks of one session. moto looks at every message of a queue for each that it gives out or deletes, so that the next
session is submitted when half of the last one is done."""


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_every_task_has_one_result_though_agents_are_killed_and_suspended(aws: Aws, tmp_path: Path) -> None:
    herd = Herd(tmp_path, 4, 0.005, AWS_QUEUE.format(url=aws.url), aws.environment)
    sessions = {f"s{first}": range(first, first + SESSION) for first in range(0, TASKS, SESSION)}
    expected = {f"{name}_{at}": n * n for name, numbers in sessions.items() for at, n in enumerate(numbers, 1)}
    waiting = list(sessions.items())

    def is_over() -> bool:
        left = aws.left()
        if waiting and left < SESSION / 2:
            name, numbers = waiting.pop(0)
            herd.submit(numbers, name)
            return False
        return left == 0

    began = time.monotonic()
    try:
        herd.start()
        herd.torment(is_over, every=1.0, kills=1000, stops=1, seconds=800)
        herd.end()
    finally:
        herd.put_down()
    sys.stdout.write(f"\n{herd.report('sqs and dynamodb', TASKS, began)}\n")
    ids = aws.stored()
    assert sorted(ids) == sorted(expected)
    assert herd.killed >= 30
    assert herd.stopped == 1
    (tmp_path / "ids").write_text("".join(f"{task_id}\n" for task_id in ids))
    answers = map(json.loads, herd.command("results", "--ids", "ids").splitlines())
    assert {answer["id"]: answer["output"] for answer in answers} == expected

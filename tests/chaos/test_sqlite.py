"""20,000 tasks on a sqlite queue while agents die."""

import sqlite3
import sys
import time
from pathlib import Path

import pytest
from herd import Herd

TASKS = 20_000


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_every_task_has_one_result_though_agents_are_killed_and_suspended(tmp_path: Path) -> None:
    herd = Herd(tmp_path, size=4, task_seconds=0.01)
    herd.submit(range(TASKS))
    began = time.monotonic()
    results = sqlite3.connect(tmp_path / "results.db", isolation_level=None)
    queue = sqlite3.connect(tmp_path / "queue.db", isolation_level=None)
    try:
        herd.start()
        # An agent that was killed between the result and the ack leaves its task to another's acking.
        herd.torment(
            lambda: _stored(results) >= TASKS and _left(queue) == 0, every=1.0, kills=1000, stops=2, seconds=500
        )
        herd.end()
    finally:
        herd.put_down()
    sys.stdout.write(f"\n{herd.report('sqlite', TASKS, began)}\n")
    rows = results.execute("SELECT task_id, failure, CAST(payload AS INTEGER) FROM results").fetchall()
    assert sorted(rows) == sorted((f"s_{n + 1}", None, n * n) for n in range(TASKS))
    assert herd.killed >= 10
    assert herd.stopped == 2
    assert _left(queue) == 0
    results.close()
    queue.close()


def _left(queue: sqlite3.Connection) -> int:
    return int(queue.execute("SELECT count(*) FROM queue").fetchone()[0])


def _stored(results: sqlite3.Connection) -> int:
    try:
        return int(results.execute("SELECT count(*) FROM results").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # no agent has made the table yet

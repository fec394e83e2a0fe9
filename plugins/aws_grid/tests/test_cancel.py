"""Cancelling on SQS through the real program: an agent, its worker, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Aws

HTCGRID = Path(sys.executable).with_name("htcgrid")
LEASE = 6
HANDLER = """\
import time

def handler(event, context):
    with open({ran!r}, "a") as file:
        file.write(context.client_context.custom["task_id"] + "\\n")
    time.sleep(event["sleep"])
    return "done"
"""
CONFIG = """\
[function]
handler = "work.handler"
timeout = 110
[source]
plugin = "sqs"
queue = "{queue}"
visibility_timeout = {lease}
cancel_table = "{table}"
endpoint_url = "{url}"
[sink]
plugin = "dynamodb"
table = "{table}"
endpoint_url = "{url}"
[planes.local]
plugin = "process"
workers = 1
[agent]
grace = 0
"""


def test_a_cancelled_sessions_running_task_is_stopped_and_its_waiting_ones_never_run(aws: Aws, tmp_path: Path) -> None:
    queue, table = aws.queue(LEASE), aws.table()
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(queue=queue, table=table, url=aws.url, lease=LEASE))
    (tmp_path / "work.py").write_text(HANDLER.format(ran=str(tmp_path / "ran")))
    (tmp_path / "ran").touch()
    (tmp_path / "events.jsonl").write_text('{"sleep": 100}\n' * 30)

    def htcgrid(*arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            [HTCGRID, *arguments], cwd=tmp_path, input=given, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ran() -> list[str]:
        return (tmp_path / "ran").read_text().split()

    htcgrid("submit", "events.jsonl", "--session", "stopped")
    with subprocess.Popen([HTCGRID, "run", "--quiet"], cwd=tmp_path, stderr=subprocess.DEVNULL) as agent:
        try:
            eventually(lambda: len(ran()) == 1)
            (running,) = ran()
            htcgrid("cancel", "--session", "stopped")
            htcgrid("submit", "-", "--session", "kept", given='{"sleep": 0}\n')
            eventually(lambda: "kept_1" in ran())
            eventually(lambda: len(aws.items(table)) == 32)  # 30 results, a mark, and the result of the other session
        finally:
            agent.terminate()
    assert ran() == [running, "kept_1"]
    items = {key: item for key, item in aws.items(table).items() if not key.startswith("cancel#")}
    assert "failure" not in items.pop("kept_1")
    assert set(items) == {f"stopped_{n + 1}" for n in range(30)}
    assert aws.waiting(queue) == (0, 0)
    assert json.loads(htcgrid("status", "--json"))["queue"]["states"]["waiting"] == 0


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Less than the 100 s that the task would run."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not come to be in time"
        time.sleep(0.05)

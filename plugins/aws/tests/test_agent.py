"""SQS and DynamoDB through the real program: an agent, its worker, and the commands."""

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
import os, signal, time

def handler(event, context):
    with open({ran!r}, "a") as file:
        file.write(context.client_context.custom["task_id"] + "\\n")
    if event.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
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


class Project:
    """A folder with a config, a handler that notes each start, and a queue and a table of its own."""

    def __init__(self, folder: Path, aws: Aws, queue: str) -> None:
        self.folder, self.queue, self.table = folder, queue, aws.table()
        (folder / "htcgrid.toml").write_text(CONFIG.format(queue=queue, table=self.table, url=aws.url, lease=LEASE))
        (folder / "work.py").write_text(HANDLER.format(ran=str(folder / "ran")))
        (folder / "ran").touch()

    def run(self, *arguments: str, given: str | None = None) -> str:
        done = subprocess.run(
            [HTCGRID, *arguments], cwd=self.folder, input=given, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def agent(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([HTCGRID, "run", "--quiet"], cwd=self.folder, stderr=subprocess.DEVNULL)

    def ran(self) -> list[str]:
        return (self.folder / "ran").read_text().split()


def test_a_cancelled_sessions_running_task_is_stopped_and_its_waiting_ones_never_run(aws: Aws, tmp_path: Path) -> None:
    project = Project(tmp_path, aws, aws.queue(LEASE))
    project.run("submit", "-", "--session", "stopped", given='{"sleep": 100}\n' * 30)
    with project.agent() as agent:
        try:
            eventually(lambda: len(project.ran()) == 1)
            (running,) = project.ran()
            project.run("cancel", "--session", "stopped")
            project.run("submit", "-", "--session", "kept", given='{"sleep": 0}\n')
            eventually(lambda: "kept_1" in project.ran())
            eventually(lambda: len(aws.items(project.table)) == 32)  # 30 results, a mark, the other session's result
        finally:
            agent.terminate()
    assert project.ran() == [running, "kept_1"]
    items = {key: item for key, item in aws.items(project.table).items() if not key.startswith("cancel#")}
    assert "run" in items.pop(".htcgrid-run/1")
    assert "failure" not in items.pop("kept_1")
    assert set(items) == {f"stopped_{n + 1}" for n in range(30)}
    assert {item["failure"]["S"] for item in items.values()} == {"cancelled"}
    assert aws.waiting(project.queue) == (0, 0)


def test_a_task_that_kills_its_worker_is_in_the_dead_letter_queue_with_its_reason_after_three_tries(
    aws: Aws, tmp_path: Path
) -> None:
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": 100})
    project = Project(tmp_path, aws, aws.queue(LEASE, RedrivePolicy=redrive))
    project.run("submit", "-", "--session", "s", given='{"die": true}\n{"sleep": 0}\n')
    with project.agent() as agent:
        try:
            eventually(lambda: len(aws.items(project.table)) == 2)
            eventually(lambda: aws.waiting(project.queue) == (0, 0))
        finally:
            agent.terminate()
    assert project.ran().count("s_1") == 3
    items = aws.items(project.table)
    assert items["s_1"]["failure"]["S"] == "exit"
    assert "failure" not in items["s_2"]
    (letter,) = aws.messages(dead)
    assert json.loads(letter["Body"]) == {"die": True}
    reason = letter["MessageAttributes"]["htcgrid.reason"]["StringValue"]
    assert reason.startswith("exit at attempt 3:")
    assert "signal: killed" in reason


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Less than the 100 s that the task would run."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "this did not come to be in time"
        time.sleep(0.05)

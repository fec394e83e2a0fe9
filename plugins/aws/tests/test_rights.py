"""`htcgrid permissions` allows what the commands call, command by command, and nothing that none of them calls."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from aws_rights import missing, recorded, unused

from htcgrid.cli import run
from htcgrid.cli.main import status_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aws_rights import Right
    from conftest import Aws, HtcGrid

HANDLER = """\
import os

def handler(event, context):
    if event["do"] == "raise":
        raise ValueError("no")
    if event["do"] == "exit":
        os._exit(3)
    return event["text"]
"""
CONFIG = """\
[function]
handler = "job.handler"
{function}
[agent]
retry_delay = 0.01
[source]
{source}
endpoint_url = "{url}"
[sink]
{sink}
endpoint_url = "{url}"
[planes.local]
plugin = "process"
workers = 1
"""
LARGE = "x" * 3000
EVENTS = [
    {"do": "return", "text": "small"},
    {"do": "return", "text": LARGE},
    {"do": "raise"},
    {"do": "exit", "text": LARGE},
    {"do": "return", "text": "cancelled"},
    {"do": "return", "text": "of another session"},
]


class Commands:
    """The commands of a grid, and what each use of it has called so far."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.called: dict[str, set[Right]] = {"agent": set(), "submitter": set(), "reader": set()}
        self._capfd = capfd

    def __call__(self, use: str, *arguments: str, code: int = 0) -> str:
        self._capfd.readouterr()
        with recorded() as rights:
            status = status_of(list(arguments))
        said = self._capfd.readouterr()
        assert status == code, (arguments, said)
        self.called[use] |= rights
        return said.out

    def policies(self) -> dict[str, Any]:
        self._capfd.readouterr()
        assert status_of(["permissions", "--open"]) == 0
        found: dict[str, Any] = json.loads(self._capfd.readouterr().out)
        return found

    def run(self, aws: Aws, queues: list[str], code: int) -> None:
        """An agent until the queues are empty."""

        def stop() -> None:
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and any(aws.waiting(queue) != (0, 0) for queue in queues):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGTERM)

        watcher = threading.Thread(target=stop)
        watcher.start()
        try:
            self("agent", "run", "--quiet", code=code)
        finally:
            watcher.join()


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Commands:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "tune", lambda: None)  # for a process of its own
    (tmp_path / "job.py").write_text(HANDLER)
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    return Commands(capfd)


def drive(commands: Commands, aws: Aws, queues: list[str]) -> None:
    """Every command that calls the source or the sink."""
    session = commands("submitter", "submit", "events.jsonl", "--session", "s", "--ids", "ids").strip()
    assert session == "s"
    commands("submitter", "cancel", "s_5")
    commands("submitter", "submit", "events.jsonl", "--session", "other")
    commands("submitter", "cancel", "--session", "other")
    commands("submitter", "status")
    commands.run(aws, queues, 1)
    commands("reader", "results", "--ids", "ids", "--wait", code=1)
    commands("reader", "failures", code=1)
    commands("reader", "status")
    commands("reader", "report")


@pytest.mark.parametrize(("sink", "more"), [("dynamodb", ""), ("dynamodb", 'conditional = "late"\n'), ("s3", "")])
def test_the_policies_of_a_grid_on_sqs_allow_what_its_commands_call_and_no_more(
    aws: Aws, commands: Commands, tmp_path: Path, sink: str, more: str
) -> None:
    dead, bucket = aws.queue(), aws.bucket()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": 30})
    queue = aws.queue(MaximumMessageSize="2048", RedrivePolicy=redrive)
    source = (
        f'plugin = "sqs"\nqueue = "{queue}"\ncancel_table = "{aws.table()}"\ntask_table = "{aws.table()}"\n'
        f'bucket = "{bucket}"\nvisibility_timeout = 3'
    )
    where = f'table = "{aws.table()}"\ninline_limit = 1024\ncheck_stored = true\n{more}' if sink == "dynamodb" else ""
    text = CONFIG.format(function="", source=source, sink=f'plugin = "{sink}"\n{where}bucket = "{bucket}"', url=aws.url)
    (tmp_path / "htcgrid.toml").write_text(text)

    drive(commands, aws, [queue])
    commands("submitter", "redrive")
    (tmp_path / "job.py").write_text("def handler(event, context):\n    return 1\n")
    commands.run(aws, [queue], 0)
    aws.send(dead, '{"do": "return", "text": "a dead letter without a result"}')
    commands("submitter", "redrive")
    policies = commands.policies()

    for use, called in commands.called.items():
        assert (use, missing(called, policies[use])) == (use, set())
        assert (use, unused(called, policies[use])) == (use, set())


def test_the_policies_of_a_grid_on_htc_grid_allow_what_its_commands_call_and_no_more(
    make_htc: Callable[..., HtcGrid], commands: Commands, tmp_path: Path
) -> None:
    grid = make_htc("S3")
    plugin = f'plugin = "htc_grid"\nconfig_file = "{grid.config_file}"'
    text = CONFIG.format(function="", source=f"{plugin}\nwatchdog_seconds = 1", sink=plugin, url=grid.aws.url)
    (tmp_path / "htcgrid.toml").write_text(text)
    commands("submitter", "submit", "events.jsonl", "--session", "s")
    commands("submitter", "submit", "events.jsonl", "--session", "s")
    commands("submitter", "submit", "events.jsonl", "--session", "gone")
    commands("submitter", "cancel", "--session", "gone")
    commands("submitter", "status")
    commands.run(grid.aws, list(grid.queues), 1)
    commands("reader", "results", "--session", "s", "--wait", code=1)
    commands("reader", "status")
    policies = commands.policies()
    for use, called in commands.called.items():
        assert (use, missing(called, policies[use])) == (use, set())
        assert (use, unused(called, policies[use])) == (use, set())

"""What htcgrid's own commands show of these plugins: permissions, advice, and the bill of a run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program_end import output_at_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Aws, HtcGrid

CONFIG = """\
[function]
handler = "echo.handler"
timeout = 60
[agent]
grace = 60
[source]
plugin = "sqs"
queue = "{queue}"
cancel_table = "{table}"
endpoint_url = "{url}"
[sink]
plugin = "dynamodb"
table = "{table}"
region = "eu-west-1"
bucket = "large"
endpoint_url = "{url}"
[planes.local]
plugin = "process"
workers = 1
"""


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    def write(aws: Aws, queue: str, table: str) -> Path:
        (tmp_path / "echo.py").write_text("def handler(event, context):\n    return event\n")
        (tmp_path / "htcgrid.toml").write_text(CONFIG.format(queue=queue, table=table, url=aws.url))
        return tmp_path

    return write


def htcgrid(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("htcgrid")
    return subprocess.run([program, *arguments], cwd=folder, capture_output=True, text=True, timeout=90, check=False)


def statements(policy: dict[str, Any]) -> dict[str, list[str]]:
    return {statement["Sid"]: statement["Resource"] for statement in policy["Statement"]}


def test_permissions_of_source_and_sink_are_one_policy(aws: Aws, project: Callable[..., Path]) -> None:
    folder = project(aws, "tasks", "results")
    done = htcgrid(folder, "permissions", "agent")
    assert done.returncode == 0, done.stderr
    found = statements(json.loads(done.stdout))
    assert found["ReceiveTasks"] == ["arn:aws:sqs:*:*:tasks"]
    assert found["StoreResults"] == ["arn:aws:dynamodb:eu-west-1:*:table/results"]
    assert found["StoreLargeResults"] == ["arn:aws:s3:::large/results/*"]
    assert "ReadInputs" not in found
    assert len(found) == len(json.loads(done.stdout)["Statement"])  # each Sid once
    everything = json.loads(htcgrid(folder, "permissions").stdout)
    assert list(everything) == ["agent", "submitter", "reader"]
    assert set(statements(everything["submitter"])) >= {"SendTasks", "Cancel"}
    assert "ReceiveTasks" not in statements(everything["reader"])


def test_permissions_asks_aws_for_what_the_config_leaves_out(aws: Aws, project: Callable[..., Path]) -> None:
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": 3})
    folder = project(aws, aws.queue(RedrivePolicy=redrive), aws.table())
    done = htcgrid(folder, "permissions", "agent", "--open", "--set", "sink.bucket=''")
    assert done.returncode == 0, done.stderr
    assert statements(json.loads(done.stdout))["SendDeadLetters"] == [aws.queue_arn(dead)]


def test_permissions_of_htc_grids_parts(make_htc: Callable[..., HtcGrid], tmp_path: Path) -> None:
    grid = make_htc("S3", priorities=2)
    table = f'plugin = "htc_grid"\nconfig_file = "{grid.config_file}"\n'
    (tmp_path / "htcgrid.toml").write_text(f"[source]\n{table}[sink]\n{table}")
    found = statements(json.loads(htcgrid(tmp_path, "permissions", "agent").stdout))
    assert [arn.rpartition("__")[2] for arn in found["ReceiveTasks"]] == ["0", "1"]
    assert found["ClaimAndFinish"] == [f"arn:aws:dynamodb:eu-west-1:*:table/{grid.table}"]
    assert found["HtcGridInput"] == [f"arn:aws:s3:::{grid.bucket}/*-input"]


def test_check_does_the_sums_of_a_queue(aws: Aws, project: Callable[..., Path]) -> None:
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(aws.queue()), "maxReceiveCount": 3})
    folder = project(aws, aws.queue(visibility=45, RedrivePolicy=redrive), aws.table())
    done = htcgrid(folder, "check", "--open", "--set", "sink.bucket=''")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "maxReceiveCount is 3, but the agent tries a task up to 3 times" in done.stdout
    assert "the lease of 45 s is not above function.timeout = 60 s" in done.stdout
    plain = project(aws, aws.queue(visibility=90), aws.table())
    shown = htcgrid(plain, "check", "--open", "--set", "sink.bucket=''").stdout
    assert "has no dead-letter queue" in shown
    assert "maxReceiveCount" not in shown
    assert "not above" not in shown
    assert "120,000" not in shown


def test_check_compares_a_standing_grid_with_what_sqs_has_in_flight(aws: Aws, project: Callable[..., Path]) -> None:
    folder = project(aws, aws.queue(), aws.table())
    large = ["planes.cluster.plugin=eks", "planes.cluster.image=i", "planes.cluster.pods=5000"]
    keys = [*large, "planes.cluster.containers=32"]
    done = htcgrid(folder, "check", *(part for key in keys for part in ("--set", key)))
    assert "planes.cluster: 5,000 agents of 32 environments run up to 160,000 tasks at a time" in done.stdout
    assert "120,000 at most" in done.stdout


def test_the_summary_of_a_run_ends_with_its_bill(aws: Aws, project: Callable[..., Path]) -> None:
    folder = project(aws, aws.queue(), aws.table())
    (folder / "events.jsonl").write_text('{"n": 1}\n' * 10)
    run = subprocess.Popen(
        [Path(sys.executable).with_name("htcgrid"), "run", "--quiet", "--set", "sink.bucket=''"],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    submitted = htcgrid(folder, "submit", "events.jsonl", "--ids", "ids", "--set", "sink.bucket=''")
    assert submitted.returncode == 0, submitted.stderr
    read = htcgrid(folder, "results", "--ids", "ids", "--wait", "--set", "sink.bucket=''")
    assert len(read.stdout.splitlines()) == 10, read.stderr
    run.terminate()
    said = output_at_end(run)[1]
    usage = json.loads(said.splitlines()[-1])["summary"]["usage"]
    assert set(usage["requests"]) == {"sqs", "dynamodb"}
    assert usage["dollars"] > 0
    assert usage["dollars_per_million_tasks"] == pytest.approx(usage["dollars"] / 10 * 1e6, rel=0.01)
    assert "us-east-1" in usage["basis"]


def test_status_shows_what_the_services_tell(aws: Aws, project: Callable[..., Path]) -> None:
    dead = aws.queue()
    redrive = json.dumps({"deadLetterTargetArn": aws.queue_arn(dead), "maxReceiveCount": 30})
    queue, table = aws.queue(RedrivePolicy=redrive), aws.table()
    for _ in range(3):
        aws.send(queue, "{}")
    aws.send(dead, "{}")
    aws.client("sqs").receive_message(QueueUrl=aws.queue_url(queue), MaxNumberOfMessages=1)
    aws.client("dynamodb").put_item(TableName=table, Item={"task_id": {"S": "t"}})
    folder = project(aws, queue, table)
    done = htcgrid(folder, "status", "--json", "--set", "sink.bucket=''")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["queue"]["states"] == {"waiting": 2, "delayed": 0, "leased": 1, "cancelled": None, "dead": 1}
    assert found["queue"]["agents"] is None
    assert found["results"]["stored"] == 1
    text = htcgrid(folder, "status", "--set", "sink.bucket=''").stdout
    assert "queue sqs\n" in text
    assert "CloudWatch" in text
    assert "agents" not in text.replace("or agents", "")


HTC_CONFIG = """\
[function]
handler = "double.handler"
[agent]
grace = 60
[source]
plugin = "htc_grid"
config_file = "{file}"
endpoint_url = "{url}"
[sink]
plugin = "htc_grid"
config_file = "{file}"
endpoint_url = "{url}"
[planes.local]
plugin = "process"
workers = 2
"""


def test_a_grid_of_htc_grid_is_driven_by_the_commands_alone(make_htc: Callable[..., HtcGrid], tmp_path: Path) -> None:
    grid = make_htc("S3")
    (tmp_path / "double.py").write_text("def handler(event, context):\n    return event['n'] * 2\n")
    (tmp_path / "htcgrid.toml").write_text(HTC_CONFIG.format(file=grid.config_file, url=grid.aws.url))
    (tmp_path / "events.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(6)))
    session = htcgrid(tmp_path, "submit", "events.jsonl").stdout.strip()
    stopped = htcgrid(tmp_path, "submit", "events.jsonl", "--session", "stopped").stdout.strip()
    done = htcgrid(tmp_path, "cancel", "--session", stopped)
    assert done.stdout == "6 tasks cancelled.\n", done.stderr
    assert htcgrid(tmp_path, "status").returncode == 0
    program = Path(sys.executable).with_name("htcgrid")
    with (tmp_path / "agent.log").open("w") as log:
        agent = subprocess.Popen([program, "run"], cwd=tmp_path, stderr=log)
    try:
        done = htcgrid(tmp_path, "results", "--session", session, "--wait")
    finally:
        agent.terminate()
        agent.wait(60)
    assert done.returncode == 0, done.stderr
    assert "manifest" not in (tmp_path / "agent.log").read_text()
    (run,) = [row for key, row in grid.aws.items(grid.table).items() if key.startswith(".htcgrid-run/")]
    assert json.loads(run["run"]["S"])["succeeded"] == 6
    assert run.keys() == {"task_id", "run"}, "HTC-Grid's indexes go by session and status, and so pass over it"
    assert sorted(json.loads(line)["output"] for line in done.stdout.splitlines()) == [0, 2, 4, 6, 8, 10]
    found = [json.loads(line) for line in htcgrid(tmp_path, "results", "--session", stopped).stdout.splitlines()]
    assert [result["failure"] for result in found] == ["cancelled"] * 6

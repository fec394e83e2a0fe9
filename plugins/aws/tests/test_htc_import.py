"""`htcgrid init --from-htc-grid`: a config with the meaning of HTC-Grid's files, and a list of what it leaves out."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.htc_import import convert

from htcgrid.config import read
from htcgrid.spi import Rejected

if TYPE_CHECKING:
    from pathlib import Path

GRID = {
    "region": "eu-west-1",
    "project_name": "main",
    "grid_storage_service": "REDIS",
    "max_htc_agents": 100,
    "min_htc_agents": 2,
    "graceful_termination_delay": 45,
    "dynamodb_default_read_capacity": 10,
    "eks_worker_groups": [{"node_group_name": "small"}],
    "agent_configuration": {
        "lambda": {
            "minCPU": "800",
            "maxCPU": "900",
            "minMemory": "1200",
            "maxMemory": "1900",
            "location": "s3://workloads/lambda.zip",
            "runtime": "python3.11",
            "timeout": 120,
            "lambda_handler_file_name": "mock_compute_engine",
            "lambda_handler_function_name": "lambda_handler",
        }
    },
    "input_role": [{"rolearn": "arn:aws:iam::123456789012:role/Admin"}],
}
AGENT = {
    "region": "eu-west-1",
    "sqs_endpoint": "https://sqs.eu-west-1.amazonaws.com",
    "cluster_name": "htc-main",
    "redis_url": "cache.example.com",
    "ddb_state_table": "htc_tasks_state_table-main",
    "task_ttl_expiration_offset_sec": 60,
    "agent_task_visibility_timeout_sec": 3600,
    "grid_storage_service": "REDIS",
    "task_queue_service": "SQS",
    "tasks_queue_name": "htc_task_queue-main",
}


def written(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


def test_the_config_has_the_meaning_of_htc_grids(tmp_path: Path) -> None:
    agent = written(tmp_path, "Agent_config.tfvars.json", AGENT)
    text, _ = convert([written(tmp_path, "grid_config.json", GRID), agent])
    found = tomllib.loads(text)
    assert found["function"] == {
        "handler": "mock_compute_engine.lambda_handler",
        "code": "src",
        "timeout": 120,
        "memory": 1900,
        "region": "eu-west-1",
    }
    needed = {name: value for name, value in AGENT.items() if name != "cluster_name"}
    assert found["source"] == found["sink"] == {"plugin": "htc_grid", "grid": needed}
    assert found["agent"] == {"grace": 45}
    cluster = found["planes"]["cluster"]
    assert (cluster["plugin"], cluster["image"]) == ("eks", "public.ecr.aws/lambda/python:3.11")
    assert (cluster["code"], cluster["pods"], cluster["cpu"]) == ("s3://workloads/lambda.zip", 2, "800m")
    assert cluster["context"] == "arn:aws:eks:eu-west-1:123456789012:cluster/htc-main"
    assert cluster["autoscale"] == {
        "min": 2,
        "max": 100,
        "by": "sqs",
        "queue_url": "https://sqs.eu-west-1.amazonaws.com/123456789012/htc_task_queue-main",
        "region": "eu-west-1",
    }


def test_every_key_that_is_not_used_is_listed(tmp_path: Path) -> None:
    _, left_out = convert([written(tmp_path, "g.json", {**GRID, "something_new": 1})])
    named = {line.partition(":")[0] for line in left_out}
    assert {
        "project_name",
        "dynamodb_default_read_capacity",
        "eks_worker_groups",
        "input_role",
        "something_new",
    } <= named
    assert {"agent_configuration.lambda.maxCPU", "agent_configuration.lambda.minMemory"} <= named
    assert {"role", "Agent_config.tfvars.json"} <= named
    assert not named & {"region", "max_htc_agents", "agent_configuration", "agent_configuration.lambda.timeout"}


def test_who_had_the_role_of_the_pod_is_told_where_to_name_one(tmp_path: Path) -> None:
    _, left_out = convert([written(tmp_path, "g.json", GRID)])
    assert any("function_role_arn" in line for line in left_out)


def test_a_grid_of_ec2_workers_has_no_cluster(tmp_path: Path) -> None:
    grid = {**GRID, "worker_backend": "ec2", "ec2_worker_vcpus": 2}
    agent = written(tmp_path, "Agent_config.tfvars.json", AGENT)
    text, left_out = convert([written(tmp_path, "grid_config.json", grid), agent])
    found = tomllib.loads(text)
    assert (found["plane"], list(found["planes"])) == ("local", ["local"])
    assert any(line.startswith("worker_backend: ") and "htcgrid run" in line for line in left_out)


@pytest.mark.parametrize("runtime", ["provided", "provided.al2"])
def test_a_custom_runtime_stays_one(tmp_path: Path, runtime: str) -> None:
    grid = {"agent_configuration": {"lambda": {"runtime": runtime, "maxMemory": "500"}}}
    found = tomllib.loads(convert([written(tmp_path, "g.json", grid)])[0])
    assert found["function"] == {"code": "src", "runtime": runtime, "timeout": 300, "memory": 500}
    assert found["planes"]["cluster"]["image"] == "public.ecr.aws/lambda/provided:al2"


def test_a_mark_of_utf_8_at_the_beginning_of_a_file_is_skipped(tmp_path: Path) -> None:
    path = written(tmp_path, "g.json", GRID)
    plain = convert([path])
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert convert([path]) == plain


def test_the_password_of_redis_is_not_written(tmp_path: Path) -> None:
    agent = written(tmp_path, "agent.json", {**AGENT, "redis_password": "a-secret"})
    text, left_out = convert([written(tmp_path, "g.json", GRID), agent])
    assert "a-secret" not in text + "".join(left_out)
    assert sum(line.startswith("redis_password: ") for line in left_out) == 1


@pytest.mark.parametrize("content", ['{"enable_private_subnet": {{enable}}}', "[" * 100_000], ids=["template", "deep"])
def test_a_file_that_is_not_json_is_rejected(tmp_path: Path, content: str) -> None:
    path = tmp_path / "grid_config.json"
    path.write_text(content)
    with pytest.raises(Rejected, match=r"grid_config\.json: not JSON"):
        convert([path])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_htc_agents", "{{max}}"),
        ("min_htc_agents", []),
        ("graceful_termination_delay", "5m"),
        ("agent_configuration", None),
        ("lambda", "none"),
        ("agent", [1]),
        ("maxMemory", "2Gi"),
        ("timeout", {}),
    ],
)
def test_a_value_of_another_kind_is_named(tmp_path: Path, key: str, value: object) -> None:
    settings: dict[str, Any] = {"lambda": {"runtime": "provided"}}
    grid: dict[str, Any] = {"min_htc_agents": 1, "max_htc_agents": 2, "agent_configuration": settings}
    table = grid if key in grid or key.startswith("grace") else settings
    (settings["lambda"] if key in ("maxMemory", "timeout") else table)[key] = value or [None]
    with pytest.raises(Rejected, match=rf"{key}: .*expected a (number|JSON object)"):
        convert([written(tmp_path, "grid.json", grid)])


def test_the_command_writes_a_config_that_check_can_read(tmp_path: Path) -> None:
    grid, agent = written(tmp_path, "grid.json", GRID), written(tmp_path, "Agent_config.tfvars.json", AGENT)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "htcgrid",
        "init",
        "--from-htc-grid",
        grid,
        agent,
        tmp_path / "new",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "  eks_worker_groups: " in done.stdout
    settings = read(tmp_path / "new" / "htcgrid.toml").settings
    assert settings.source is not None
    assert (settings.plane, settings.source.plugin, settings.function.timeout) == ("cluster", "htc_grid", 120)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert "is there already" in again.stderr


def test_check_knows_the_lease_of_the_config_that_was_written(tmp_path: Path) -> None:
    files = [written(tmp_path, "grid.json", GRID), written(tmp_path, "Agent_config.tfvars.json", AGENT)]
    program = [sys.executable, "-m", "htcgrid"]
    subprocess.run([*program, "init", "--from-htc-grid", *files, tmp_path / "new"], capture_output=True, check=True)
    done = subprocess.run([*program, "check"], cwd=tmp_path / "new", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the lease of 60 s is not above function.timeout = 120 s" in done.stdout

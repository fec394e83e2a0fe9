"""Makes a config of htcgrid from the files of a grid that runs HTC-Grid: `htcgrid init --from-htc-grid`."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

from htcgrid.spi import Rejected
from htcgrid_aws import htc_config
from htcgrid_aws.htc_config import GridConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

AGENT_FILE = "Agent_config.tfvars.json"
_RIE_TIMEOUT = 300  # seconds, if the files set no timeout for HTC-Grid's Lambda container
_IMAGES = {"python": "python:{}", "java": "java:{}", "provided": "provided:al2"}
# Keys for the deployment of HTC-Grid's own parts, which htcgrid does not have.
_WHY = {
    "eks_worker_groups": "the cluster's node groups stay as they are; choose among them by node_selector and tolerations",
    "input_role": "it names the cluster's administrator; htcgrid deploys with your own role",
    "dynamodb_default_read_capacity": "the state table stays as it is",
    "dynamodb_default_write_capacity": "the state table stays as it is",
    "vpc_cidr_block_public": "the network stays as it is",
    "vpc_cidr_block_private": "the network stays as it is",
    "enable_private_subnet": "the network stays as it is",
    "project_name": "a name in HTC-Grid's own images",
    "worker_backend": "agents on EC2 without a cluster: the plane is `local`, and you start `htcgrid run` on each instance; "
    "HTC-Grid's capacity controller finds busy instances by `owner`: set it to the same name in source and sink",
    "s3_source_kms_key_arn": "let the role that reads the code decrypt with this key",
    "minMemory": "an environment has only a limit, `memory`",
    "s3_source": "unpack it into the folder `src` of each machine",
    "location": "unpack it into the folder `src` of each machine",
    "ec2_worker_vcpus": "choose the instances as before",
    "ec2_worker_memory_mb": "choose the instances as before",
    "maxCPU": "a container's processors have a request, `cpu`, and no limit",
}


def convert(files: Sequence[Path]) -> tuple[str, list[str]]:
    """The text of `htcgrid.toml` for grid_config.json and, if it is given, Agent_config.tfvars.json; with notes on what is left out.

    Each file is recognised by its content, so their order does not matter.
    """
    documents = [(path, _read(path)) for path in files]
    agent_file = next((path for path, document in documents if "ddb_state_table" in document), None)
    grid: dict[str, Any] = {}
    for path, document in documents:
        if path != agent_file:
            grid |= document
    agent = dict(documents)[agent_file] if agent_file else {}
    if agent_file:
        htc_config.load(agent_file)
    if not grid and not agent:
        raise Rejected("no file was given; name grid_config.json, and Agent_config.tfvars.json if you have it")
    return _Conversion(grid, agent, agent_file).result()


class _Conversion:
    """Each key is removed when it is used: the keys that remain at the end are not in the new config."""

    def __init__(self, grid: dict[str, Any], agent: Mapping[str, Any], agent_file: Path | None) -> None:
        self._left = dict(grid)
        configuration = _object("agent_configuration", self._left.pop("agent_configuration", {}))
        self._lambda = _object("agent_configuration.lambda", configuration.pop("lambda", {}))
        self._container = _object("agent_configuration.agent", configuration.pop("agent", {}))
        self._other = configuration
        self._agent = agent
        self._agent_file = agent_file
        self._notes: list[str] = []
        self._account = _account(grid)
        self._region = str(agent.get("region") or grid.get("region") or "")
        self._is_without_cluster = grid.get("worker_backend") == "ec2"
        where = 'credentials = "agent"' if self._is_without_cluster else "function_role_arn of the plane `cluster`"
        self._notes.append(
            f"credentials: HTC-Grid's handlers have the agent's role, htcgrid's have none; if yours call AWS: {where}"
        )

    def result(self) -> tuple[str, list[str]]:
        tables = {
            "": {"plane": "local" if self._is_without_cluster else "cluster"},
            "function": self._function(),
            "source": self._queue(),
            "sink": self._queue(),
            "agent": self._agent_table(),
            "planes.local": {"plugin": "process"},
        }
        if not self._is_without_cluster:
            tables |= {"planes.cluster": self._cluster(), "planes.cluster.autoscale": self._autoscale()}
        text = "\n".join(_table(name, keys) for name, keys in tables.items() if keys)
        return text, [*self._notes, *self._left_out()]

    def _function(self) -> dict[str, Any]:
        runtime = str(self._lambda.pop("runtime", "provided"))
        module = str(self._lambda.pop("lambda_handler_file_name", "")).removesuffix(".py")
        name = str(self._lambda.pop("lambda_handler_function_name", ""))
        keys: dict[str, Any] = {"handler": f"{module}.{name}"} if module and name else {}
        keys["code"] = "src"
        if runtime.startswith("python"):
            self._notes.append(
                f"runtime {runtime}: the image has it; the plane `local` runs the Python that htcgrid runs with"
            )
        else:
            keys["runtime"] = runtime
        self._runtime = runtime
        timeout = next((self._lambda.pop(key) for key in ("timeout", "function_timeout") if key in self._lambda), None)
        timeout = self._left.pop("lambda_timeout", timeout)
        keys["timeout"] = _number("timeout", timeout) or _RIE_TIMEOUT
        keys["memory"] = int(_number("agent_configuration.lambda.maxMemory", self._lambda.pop("maxMemory", 1900)))
        if self._region:
            keys["region"] = self._region
        if named := self._lambda.pop("function_name", ""):
            keys["name"] = str(named)
        if variables := self._lambda.pop("environment", {}):
            keys["environment"] = variables
        return keys

    def _queue(self) -> dict[str, Any]:
        # The agent's file has all of these too.
        for key in ("region", "grid_storage_service", "task_queue_service", "task_queue_config", "state_table_config"):
            self._left.pop(key, None)
        if self._agent_file is None:
            self._note(f"{AGENT_FILE}: Terraform writes it when it deploys HTC-Grid; put it beside htcgrid.toml")
            return {"plugin": "htc_grid", "config_file": AGENT_FILE}
        if self._agent.get("redis_password"):
            self._note(
                "redis_password: set HTCGRID_SOURCE__REDIS_PASSWORD and HTCGRID_SINK__REDIS_PASSWORD; on the "
                "cluster, with a Secret that `variables` of the plane names"
            )
        used = {field.alias or name for name, field in GridConfig.model_fields.items()} - {"redis_password"}
        return {"plugin": "htc_grid", "grid": {name: value for name, value in self._agent.items() if name in used}}

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    def _agent_table(self) -> dict[str, Any]:
        delay = _number("graceful_termination_delay", self._left.pop("graceful_termination_delay", 0))
        return {"grace": delay} if delay else {}

    def _cluster(self) -> dict[str, Any]:
        source = self._lambda.pop("s3_source", self._lambda.pop("location", ""))
        kind = next((kind for kind in _IMAGES if self._runtime.startswith(kind)), "provided")
        tag = _IMAGES[kind].format(self._runtime.removeprefix(kind)) if kind != "provided" else _provided(self._runtime)
        keys: dict[str, Any] = {"plugin": "eks", "image": f"public.ecr.aws/lambda/{tag}"}
        if str(source).startswith("s3://"):
            keys["code"] = str(source)
        keys["pods"] = max(1, int(_number("min_htc_agents", self._left.get("min_htc_agents", 1))))
        if cpu := self._lambda.pop("minCPU", ""):
            keys["cpu"] = f"{cpu}m" if str(cpu).isdecimal() else str(cpu)
        if cpu := self._container.pop("minCPU", ""):
            keys["agent_cpu"] = f"{cpu}m" if str(cpu).isdecimal() else str(cpu)
        if memory := self._container.pop("maxMemory", ""):
            keys["agent_memory"] = max(256, int(_number("agent_configuration.agent.maxMemory", memory)))
        role = next((self._left.pop(key) for key in ("agent_role_arn", "role_arn") if key in self._left), "")
        if role:
            keys["role_arn"] = str(role)
        else:
            self._notes.append("role: name the role of HTC-Grid's agents (IRSA) as role_arn of the plane `cluster`")
        cluster, region = self._agent.get("cluster_name", ""), self._region
        if cluster and region and self._account:
            keys["context"] = f"arn:aws:eks:{region}:{self._account}:cluster/{cluster}"
        else:
            self._notes.append("cluster: the current context of your kubeconfig is used; context names another")
        return keys

    def _autoscale(self) -> dict[str, Any]:
        least, most = self._left.pop("min_htc_agents", None), self._left.pop("max_htc_agents", None)
        if most is None:
            return {}
        keys: dict[str, Any] = {
            "min": int(_number("min_htc_agents", least or 0)),
            "max": int(_number("max_htc_agents", most)),
        }
        names = htc_config.load(self._agent_file).queues if self._agent_file else ()
        if len(names) == 1 and self._account:
            region = str(self._agent["region"])
            endpoint = str(self._agent.get("sqs_endpoint") or f"https://sqs.{region}.amazonaws.com").rstrip("/")
            return {**keys, "by": "sqs", "queue_url": f"{endpoint}/{self._account}/{names[0]}", "region": region}
        self._notes.append(
            f"max_htc_agents = {most}: agents are scaled by HTC-Grid's own metric of pending tasks; `metric` is the name "
            "that its scaling function publishes (see docs/migrating-from-htc-grid.md)"
        )
        return {**keys, "by": "metric", "metric": "pending_tasks_ddb"}

    def _left_out(self) -> list[str]:
        left = {**self._left, **{f"agent_configuration.{name}": value for name, value in self._other.items()}}
        left |= {f"agent_configuration.lambda.{name}": value for name, value in self._lambda.items()}
        left |= {f"agent_configuration.agent.{name}": value for name, value in self._container.items()}
        return [f"{name}: {_WHY.get(name.rpartition('.')[2], 'htcgrid has no such setting')}" for name in left]


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Rejected(f"{name}: {value!r}: expected a JSON object, as HTC-Grid's grid_config.json has it")
    return dict(value)


def _number(name: str, value: Any) -> float:
    """0 if there is none."""
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Rejected(f"{name}: {value!r}: expected a number, as HTC-Grid's grid_config.json has it")
    return number


def _provided(runtime: str) -> str:
    return f"provided:{runtime.removeprefix('provided').removeprefix('.') or 'al2'}"


def _account(grid: Mapping[str, Any]) -> str:
    """The account, from any ARN of the file."""
    found = re.search(r"arn:aws[a-z-]*:iam::(\d{12}):", json.dumps(grid))
    return found[1] if found else ""


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}; name HTC-Grid's grid_config.json") from error
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{path}: not JSON: {error}; fill in a template (*.json.tpl) first") from error
    if not isinstance(document, dict):
        raise Rejected(f"{path}: expected a JSON object, as HTC-Grid's grid_config.json is")
    return document


def _table(name: str, keys: Mapping[str, Any]) -> str:
    head = f"[{name}]\n" if name else ""
    return head + "".join(f"{key} = {_value(value)}\n" for key, value in keys.items())


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    # JSON's strings and numbers are also valid TOML.
    return (
        json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool | int | float) else json.dumps(str(value))
    )

"""HTC-Grid's `Agent_config.tfvars.json`, read once and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from htcgrid.spi import Rejected
from htcgrid_aws.encryption import EncryptedConfig

if TYPE_CHECKING:
    from pathlib import Path


class HtcGridConfig(EncryptedConfig):
    """htcgrid's own keys. `config_file` or `grid` has HTC-Grid's keys."""

    config_file: FilePath | None = Field(None, description="HTC-Grid's Agent_config.tfvars.json")
    grid: Mapping[str, str | int | float] = Field(
        default_factory=dict, description="in place of config_file: its keys, which `htcgrid deploy` sends to the pods"
    )
    redis_password: SecretStr = Field(
        SecretStr(""), description="password of Redis, in place of the one in HTC-Grid's file"
    )
    owner: str = Field(
        "",
        description="the name of this agent in the state table, the same for source and sink; by default the agent's own name",
    )
    redis_tls: bool = Field(True, description="whether the connection to Redis uses TLS, as HTC-Grid's does")

    failures: Literal["output", "error"] = Field(
        "output",
        description="how a failure is written: as HTC-Grid writes it, its error document as the output of a finished "
        'task, which HTC-Grid\'s clients read; or "error": a failed row and <task_id>-error, which they do not read',
    )
    watchdog_seconds: int = Field(
        0,
        ge=0,
        le=86_400,
        description="seconds between two searches for expired rows, in place of HTC-Grid's watchdog; 0: no search",
    )

    @field_validator("grid")
    @classmethod
    def _has_no_secret(cls, grid: Mapping[str, str | int | float]) -> Mapping[str, str | int | float]:
        if "redis_password" in grid:
            raise ValueError("redis_password is a secret: write it beside grid, not in it, or set it by a variable")
        return grid

    @model_validator(mode="after")
    def _one_way_to_name_the_grid(self) -> Self:
        if bool(self.config_file) == bool(self.grid):
            raise ValueError("name HTC-Grid's Agent_config.tfvars.json by config_file, or write its keys under grid")
        return self

    @property
    def origin(self) -> str:
        """Where HTC-Grid's keys are, for messages."""
        return str(self.config_file) if self.config_file else "grid"


class GridConfig(BaseModel):
    """The keys of HTC-Grid's file that an agent needs; the others are left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    region: str
    sqs_endpoint: str = ""
    tasks_queue_name: str
    task_queue_service: Literal["SQS", "PrioritySQS"] = "SQS"
    priorities: int = Field(1, ge=1, alias="task_queue_config")
    ddb_state_table: str
    state_table_service: Literal["DynamoDB"] = "DynamoDB"
    grid_storage_service: Literal["S3", "REDIS", "S3+REDIS"]
    s3_bucket: str = ""
    s3_kms_key_id: str = ""
    redis_url: str = ""
    redis_password: SecretStr = SecretStr("")
    task_input_passed_via_external_storage: Literal[1] = 1
    task_ttl_expiration_offset_sec: int = Field(ge=1)
    agent_task_visibility_timeout_sec: int = Field(ge=1, le=43_200)

    @field_validator("priorities", mode="before")
    @classmethod
    def _priorities(cls, value: object) -> object:
        # Terraform cannot pass double quotes, so HTC-Grid writes "{'priorities': 5}".
        if isinstance(value, str):
            value = json.loads(value.replace("'", '"') or "{}")
        return value.get("priorities", 1) if isinstance(value, dict) else value

    @field_validator("task_input_passed_via_external_storage", mode="before")
    @classmethod
    def _as_number(cls, value: object) -> object:
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues' names, the lowest priority first."""
        if self.task_queue_service == "SQS":
            return (self.tasks_queue_name,)
        stem = self.tasks_queue_name.split("__")[0]
        return tuple(f"{stem}__{priority}" for priority in range(self.priorities))


def grid_of(config: HtcGridConfig) -> GridConfig:
    """HTC-Grid's keys; raises `Rejected` that names a wrong key and its place."""
    grid = load(config.config_file) if config.config_file else _checked(config.grid, "grid")
    password = config.redis_password
    return grid.model_copy(update={"redis_password": password}) if password.get_secret_value() else grid


def load(path: Path) -> GridConfig:
    """The file's content; raises `Rejected` that names the file and a wrong key."""
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8-sig")), str(path))
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}; name HTC-Grid's Agent_config.tfvars.json by config_file") from error
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{path}: not JSON: {error}") from error


def _checked(document: object, origin: str) -> GridConfig:
    try:
        return GridConfig.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise Rejected(f"{origin}: {key}: {first['msg']}; correct it as HTC-Grid's agent needs it") from error

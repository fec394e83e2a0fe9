"""HTC-Grid's `Agent_config.tfvars.json`, read once and checked."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field, FilePath, SecretStr, ValidationError, field_validator

from htcgrid.spi import Rejected
from htcgrid_aws.encryption import EncryptedConfig

if TYPE_CHECKING:
    from pathlib import Path


class HtcGridConfig(EncryptedConfig):
    """Our own keys. `config_file` holds all the rest."""

    config_file: FilePath = Field(description="HTC-Grid's Agent_config.tfvars.json")
    owner: str = Field("", description="the name of this agent in the state table, the same for source and sink")
    redis_tls: bool = Field(True, description="whether the connection to Redis uses TLS, as HTC-Grid's does")

    @property
    def owner_name(self) -> str:
        """The name given, else host name (in a pod: the pod's name) and process id: the same for source and sink."""
        return self.owner or f"{socket.gethostname()}-{os.getpid()}"


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
        # Terraform cannot pass double quotes on, so HTC-Grid writes "{'priorities': 5}".
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


def load(path: Path) -> GridConfig:
    """The file's content, or `Rejected` that names file and key."""
    try:
        return GridConfig.model_validate(json.loads(path.read_text()))
    except OSError as error:
        raise Rejected(f"{path}: {error.strerror}; name HTC-Grid's Agent_config.tfvars.json by config_file") from error
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise Rejected(f"{path}: {key}: {first['msg']}; correct it as HTC-Grid's agent needs it") from error
    except ValueError as error:
        raise Rejected(f"{path}: not JSON: {error}") from error

"""The function: a handler with its code, limits and environment, as `[function]` of the config file has it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from htcgrid.spi.keys import MAX_TEXT, Keys, texts_of


class Function(Keys):
    """A handler with its code, runtime, limits and environment: `[function]` of the config file."""

    handler: str = Field(
        "", max_length=1000, description="module.function, as on AWS Lambda", examples=["pricing.handler"]
    )
    name: str = Field("", max_length=140, description="its name on every plane; from the handler where empty")
    code: Path = Field(Path(), description="the folder that holds the handler's module")
    layers: tuple[Path, ...] = Field(
        (),
        max_length=100,
        description="folders with python/, nodejs/, bin/ or lib/ in them, as layers of AWS Lambda have; later ones win",
    )
    runtime: str = Field("", description='"python3.11", "nodejs20.x", "provided", ...; this Python if empty')
    command: tuple[str, ...] = Field((), description="a program that speaks the Lambda Runtime API")
    timeout: float = Field(30.0, gt=0, le=2_592_000, description="seconds an invocation may take")
    memory: int = Field(512, ge=32, le=16_777_216, description="MiB an execution environment may use")
    ephemeral_storage: int = Field(512, gt=0, le=16_777_216, description="MiB of /tmp, where the plane can limit it")
    environment: Mapping[str, str] = Field(
        default_factory=dict,
        description="environment variables of the handler; they replace those that the worker has",
        repr=False,
    )
    region: str = Field(
        "",
        pattern=r"^[a-z0-9-]*$",
        max_length=32,
        description="AWS region that the handler finds; if empty, AWS_REGION or AWS_DEFAULT_REGION of this shell, "
        "else us-east-1. Functions of the AWS Lambda service find their own",
    )
    endpoint_url: str = Field(
        "",
        pattern=r"^(https?://[^\s@/]+(/[^\s]*)?)?$",
        max_length=2048,
        description="URL that AWS SDKs in the handler call in place of AWS: LocalStack, moto and the like",
        examples=["http://127.0.0.1:4566"],
    )
    credentials: str = Field(
        "none",
        pattern=r"^(none|agent|profile:\S(.*\S)?|role:arn:[^\s]+)$",
        max_length=2048,
        description='AWS credentials that the handler finds: "none", "agent" (those that the agent\'s own SDK finds), '
        '"profile:NAME" of ~/.aws, or "role:ARN", a role that the agent assumes for it. Functions of the AWS Lambda '
        "service have their own role",
        examples=["role:arn:aws:iam::123456789012:role/pricing"],
    )
    external_id: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_+=,.@:/-]{2,})?$",
        max_length=1224,
        description="the external id that the role's trust policy asks for: 2 characters or more",
    )
    session_policy: str = Field(
        "",
        max_length=2048,
        description="an IAM policy, as JSON; of the role's rights the handler has only those that it allows too",
    )
    session_tags: bool = Field(
        True, description="whether the role is assumed with the tag htcgrid:function, which takes sts:TagSession"
    )
    architecture: str = Field("", description='"x86_64" or "arm64"; the plane\'s own where empty')

    @field_validator("environment")
    @classmethod
    def _no_reserved_names(cls, environment: Mapping[str, str]) -> Mapping[str, str]:
        reserved = sorted(name for name in environment if name in RESERVED_ENVIRONMENT)
        if reserved:
            message = f"{', '.join(reserved)}: reserved by Lambda, which sets it itself; choose another name"
            raise ValueError(message)
        return environment

    @field_validator("environment")
    @classmethod
    def _proper_names(cls, environment: Mapping[str, str]) -> Mapping[str, str]:
        if any(not name or "=" in name for name in environment):
            raise ValueError('the name of a variable must not be empty, nor hold "="')
        return environment

    @field_validator("environment", "command")
    @classmethod
    def _can_be_passed(cls, value: Any) -> Any:
        size = sum(len(text.encode()) for text in texts_of(value))
        if size > MAX_TEXT:
            raise ValueError(f"it has {size} bytes in all; {MAX_TEXT} are the most (of variables, 4096 on AWS Lambda)")
        return value

    @field_validator("session_policy")
    @classmethod
    def _is_json(cls, policy: str) -> str:
        if policy:
            try:
                json.loads(policy)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"this is not JSON, as an IAM policy must be: {error}") from None
        return policy

    @model_validator(mode="after")
    def _belongs_to_a_role(self) -> Self:
        if (self.external_id or self.session_policy) and not self.credentials.startswith("role:"):
            raise ValueError('external_id and session_policy are for a role: write credentials = "role:ARN" as well')
        return self

    @property
    def aws_region(self) -> str:
        """The region given, else us-east-1."""
        return self.region or "us-east-1"

    @property
    def role_arn(self) -> str:
        """The role that the agent assumes for the handler; empty where it assumes none."""
        kind, _, name = self.credentials.partition(":")
        return name if kind == "role" else ""

    @property
    def function_name(self) -> str:
        """The name given, else the handler's module: `pricing` of `pricing.handler`."""
        return self.name or self.handler.rpartition(".")[0].replace("/", ".").rpartition(".")[2] or "function"


RESERVED_ENVIRONMENT = frozenset(
    [
        "_HANDLER",
        "_X_AMZN_TRACE_ID",
        "AWS_DEFAULT_REGION",
        "AWS_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_INITIALIZATION_TYPE",
        "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME",
        "AWS_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API",
        "LAMBDA_TASK_ROOT",
        "LAMBDA_RUNTIME_DIR",
    ]
)
"""Names that a user may not set, from AWS's page on Lambda environment variables."""

"""The keys of a plane with `plugin = "eks"`: the same for pods that live for a run and for a standing grid."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from htcgrid.spi import Function, Plugin
from pydantic import BaseModel, ConfigDict, Field, field_validator

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,46}[a-z0-9])?")


class Autoscale(BaseModel):
    """How many workers a standing grid has, by how much waits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(0, ge=0, description="the fewest workers; 0 needs KEDA")
    max: int = Field(ge=1, description="the most workers")
    by: Literal["sqs", "metric", "cpu"] = Field(
        "sqs",
        description="sqs (KEDA), metric (an HPA on an external metric) or cpu (an HPA on the workers' processors)",
    )
    queue_url: str = Field("", description="for sqs: the URL of the queue")
    region: str = Field("", description="for sqs: its region")
    metric: str = Field("", description="for metric: the external metric's name")
    target: int = Field(5, ge=1, description="waiting tasks a worker (sqs, metric), or percent of its processors (cpu)")


class Options(Plugin.Config):
    """See `docs/operations.md`."""

    image: str = Field(description="the image of the Lambda containers, laid out as AWS's base images are")
    agent_image: str = Field(
        "htcgrid-agent:0.1.0", description="the image of the agent with your plugins, as htcgrid-agent-image builds it"
    )
    kubeconfig: Path | None = Field(
        None, description="the kubeconfig; $KUBECONFIG, ~/.kube/config or the pod's own if not given"
    )
    context: str = Field("", description="which context of the kubeconfig; the current one if empty")
    namespace: str = Field("", description="where the pods are; the context's if empty")
    name: str = Field("", description="what the objects are called; htcgrid-<function> if empty")

    pods: int = Field(1, ge=1, description="how many pods")
    containers: int = Field(1, ge=1, le=32, description="Lambda containers in each pod, one invocation at a time each")
    transport: Literal["api", "rie"] = Field("api", description="api (the Runtime API), or rie (the emulator)")
    command: tuple[str, ...] = Field((), description="what the Lambda container runs; AWS's entry script if empty")
    code: str = Field(
        "folder",
        description="folder (of [function] code, sent along), image (it is in the image), or s3://bucket/key.zip",
    )
    start_seconds: float = Field(120.0, gt=0, description="how long pods may take to come up")
    orphan_seconds: float = Field(30.0, ge=1, description="how long pods of a run outlive a client that is gone")

    cpu: str = Field("", description="processor request of a Lambda container; by its memory, as on Lambda, if empty")
    agent_cpu: str = Field("100m", description="processor request of the agent's container")
    agent_memory: int = Field(256, ge=64, description="MiB that the agent's container may use")
    user: int = Field(1000, ge=1, description="user and group id that all containers run as")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="imagePullPolicy")
    pull_secrets: tuple[str, ...] = Field((), description="names of imagePullSecrets")
    node_selector: Mapping[str, str] = Field(
        default_factory=dict, description="nodeSelector; the architecture is added"
    )
    tolerations: tuple[Mapping[str, Any], ...] = Field((), description="tolerations, as in a pod's spec")
    annotations: Mapping[str, str] = Field(default_factory=dict, description="annotations of the pods")

    role_arn: str = Field("", description="standing grid: the IAM role of its service account (IRSA)")
    pod_status: bool = Field(
        True, description="standing grid: whether workers may read pods, to tell an OOMKilled container"
    )
    min_available: str = Field(
        "",
        pattern=r"^(\d+%?)?$",
        description="standing grid: how many pods stay while nodes are drained, a number or a percentage; a quarter of "
        "them, rounded up, may go at a time if empty",
    )
    variables: tuple[str, ...] = Field((), description="standing grid: Secrets whose keys are the agent's variables")
    autoscale: Autoscale | None = Field(None, description="standing grid: scale on the queue's depth")

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name and not _NAME.fullmatch(name):
            raise ValueError("lower-case letters, digits and dashes, 48 at most, as Kubernetes has names")
        return name

    @field_validator("code")
    @classmethod
    def _is_a_place(cls, code: str) -> str:
        if code not in {"folder", "image"} and not re.fullmatch(r"s3://[^/]+/.+", code):
            raise ValueError('one of "folder", "image" and "s3://bucket/key.zip"')
        return code

    def base_name(self, function: Function) -> str:
        """What the objects of this function are called."""
        if self.name:
            return self.name
        plain = re.sub(r"[^a-z0-9]+", "-", function.function_name.lower()).strip("-") or "function"
        return f"htcgrid-{plain}"[:48].rstrip("-")

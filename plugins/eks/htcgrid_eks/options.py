"""The keys of a plane with `plugin = "eks"`: the same for pods that live for a run and for a standing grid."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from htcgrid.spi import Function, Plugin
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from htcgrid_eks import pod_table

_IMAGE = re.compile(r"[a-zA-Z0-9][-a-zA-Z0-9._/:@]*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_QUANTITY = re.compile(r"(?=.*[1-9])[0-9]{1,6}(\.[0-9]{1,3})?|(?=.*[1-9])[0-9]{1,9}m")
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[a-zA-Z0-9]([-a-zA-Z0-9._]{0,61}[a-zA-Z0-9])?")
_VALUE = re.compile(r"([a-zA-Z0-9]([-a-zA-Z0-9._]{0,61}[a-zA-Z0-9])?)?")
_SHARE = re.compile(r"[0-9]{1,6}|(100|[0-9]{1,2})%")
_ROLE = re.compile(r"(arn:aws[-a-z]*:iam::[0-9]+:role/[-\w+=,.@/]+)?", re.ASCII)
_ANNOTATIONS_BYTES = 200_000
_DAY = 86_400.0
_MOST = 2**31 - 1  # Kubernetes has numbers of 32 bits
_ON_S3 = re.compile(r"s3://[^/]+/.+")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,46}[a-z0-9])?")
_LONGEST_PLAIN = 48 - len("htcgrid-")
_DIGEST = 8


class Autoscale(BaseModel):
    """How many workers a standing grid has, by the number of waiting tasks or the load."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: int = Field(0, ge=0, le=_MOST, description="the fewest workers; 0 needs KEDA")
    max: int = Field(ge=1, le=_MOST, description="the most workers")
    by: Literal["sqs", "metric", "cpu"] = Field(
        "sqs",
        description='"sqs" (KEDA), "metric" (an HPA on an external metric) or "cpu" (an HPA on the processors of the workers)',
    )
    queue_url: str = Field("", description="for sqs: the URL of the queue")
    region: str = Field("", description="for sqs: its region")
    metric: str = Field("", description="for metric: the external metric's name")
    target: int = Field(
        5, ge=1, le=_MOST, description="waiting tasks for each worker (sqs, metric), or percent of its processors (cpu)"
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min = {self.min} is above max = {self.max}")
        return self


class Access(Plugin.Config):
    """The cluster and the namespace in it."""

    kubeconfig: Path | None = Field(
        None, description="the kubeconfig; if not given, $KUBECONFIG, ~/.kube/config or the pod's own"
    )
    context: str = Field("", description="the context of the kubeconfig; if empty, the current one")
    namespace: str = Field("", description="the namespace of the pods; if empty, the context's")


class Options(Access):
    """See `docs/operations.md`."""

    image: str = Field(description="the image of the Lambda containers, with the layout of AWS's base images")
    agent_image: str = Field(
        "htcgrid-agent:0.1.0", description="the image of the agent with your plugins, as htcgrid-agent-image builds it"
    )
    name: str = Field("", description="the name of the objects; if empty, htcgrid-FUNCTION")

    pods: int = Field(1, ge=1, le=10_000, description="how many pods")
    containers: int = Field(1, ge=1, le=32, description="Lambda containers in each pod, one invocation at a time each")
    transport: Literal["http", "rie"] = Field("http", description='"http" (the Runtime API) or "rie" (the emulator)')
    command: tuple[str, ...] = Field(
        (), description="the command of the Lambda container; if empty, AWS's entry script"
    )
    code: str = Field(
        "folder",
        description='"folder" (the folder of [function] code is sent), "image" (the code is in the image) or "s3://bucket/key.zip"',
    )
    layers: tuple[str, ...] = Field(
        (),
        description='with code = "s3://...": zips of layers on S3, made as for AWS Lambda; they are unpacked into /opt, a later one '
        "over those before",
        examples=[["s3://bucket/layer.zip"]],
    )
    start_seconds: float = Field(120.0, gt=0, le=_DAY, description="seconds that pods may take to become ready")
    orphan_seconds: float = Field(
        30.0, ge=1, le=_DAY, description="seconds after which the pods of a run end when their client is gone"
    )

    cpu: str = Field(
        "", description="processor request of a Lambda container; if empty, it follows from its memory, as on Lambda"
    )
    agent_cpu: str = Field("100m", description="processor request of the agent's container")
    agent_memory: int = Field(256, ge=64, le=1_048_576, description="MiB that the agent's container may use")
    user: int = Field(1000, ge=1, le=_MOST, description="user and group id that all containers run as")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="imagePullPolicy")
    pull_secrets: tuple[str, ...] = Field((), description="names of imagePullSecrets")
    node_selector: Mapping[str, str] = Field(
        default_factory=dict, description="nodeSelector of the pods; the architecture is added to it"
    )
    tolerations: tuple[Mapping[str, Any], ...] = Field((), description="tolerations, as in a pod's spec")
    annotations: Mapping[str, str] = Field(default_factory=dict, description="annotations of the pods")
    pod: Mapping[str, Any] = Field(
        default_factory=dict,
        description="what is merged into the spec of the pods: volumes, affinity, priorityClassName, resources and more; "
        "the container `lambda` means each container that runs the handler",
    )

    role_arn: str = Field("", description="standing grid: the IAM role of its service account (IRSA), for the agent")
    function_role_arn: str = Field(
        "",
        description="the IAM role of handlers, by IRSA: its trust policy names the pods' service account. It replaces "
        "[function] credentials",
    )
    pod_status: bool = Field(
        True, description="standing grid: whether workers may read pods, to recognise an OOMKilled container"
    )
    idle_first: bool = Field(
        True,
        description="standing grid: whether workers mark their pods while they are busy, so that scaling in takes idle pods "
        "first",
    )
    min_available: str = Field(
        "",
        pattern=r"^(\d+%?)?$",
        description="standing grid: how many pods stay while nodes are drained, as a number or a percentage; if empty, a "
        "quarter of them, rounded up, may go at a time",
    )
    variables: tuple[str, ...] = Field(
        (), description="standing grid: Secrets whose keys become variables of the agent"
    )
    autoscale: Autoscale | None = Field(None, description="standing grid: how the number of pods follows the load")

    @field_validator("image", "agent_image")
    @classmethod
    def _is_an_image(cls, image: str) -> str:
        if not _IMAGE.fullmatch(image):
            raise ValueError('the name of an image, as in "registry.example.com/pricing:1"')
        return image

    @field_validator("namespace")
    @classmethod
    def _is_a_namespace(cls, namespace: str) -> str:
        if namespace and not _LABEL.fullmatch(namespace):
            raise ValueError("lower-case letters, digits and dashes, 63 at most, as Kubernetes has namespaces")
        return namespace

    @field_validator("pull_secrets", "variables")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not all(_OBJECT.fullmatch(name) for name in names):
            raise ValueError("names of Secrets: lower-case letters, digits, dashes and dots, 253 at most")
        return names

    @field_validator("cpu", "agent_cpu")
    @classmethod
    def _is_a_quantity(cls, cpu: str, info: ValidationInfo) -> str:
        if not _QUANTITY.fullmatch(cpu) and (cpu or info.field_name == "agent_cpu"):
            raise ValueError('an amount of processor as Kubernetes has it, as in "0.5" or "500m"')
        return cpu

    @field_validator("node_selector")
    @classmethod
    def _are_labels(cls, labels: Mapping[str, str]) -> Mapping[str, str]:
        for name, value in labels.items():
            if not _KEY.fullmatch(name) or not _VALUE.fullmatch(value):
                raise ValueError(f"{name!r}: labels have letters, digits, - _ and ., 63 at most, and a prefix with /")
        return labels

    @field_validator("annotations")
    @classmethod
    def _are_annotations(cls, annotations: Mapping[str, str]) -> Mapping[str, str]:
        for name in annotations:
            if not _KEY.fullmatch(name):
                raise ValueError(f"{name!r}: letters, digits, - _ and ., 63 at most, and a prefix with /")
        if sum(len(name) + len(value.encode()) for name, value in annotations.items()) > _ANNOTATIONS_BYTES:
            raise ValueError(f"a pod takes {_ANNOTATIONS_BYTES:,} bytes of annotations in all")
        return annotations

    @field_validator("tolerations")
    @classmethod
    def _are_tolerations(cls, tolerations: tuple[Mapping[str, Any], ...]) -> tuple[Mapping[str, Any], ...]:
        for each in tolerations:
            if unknown := set(each) - {"key", "operator", "value", "effect", "tolerationSeconds"}:
                raise ValueError(f"{', '.join(sorted(unknown))}: a toleration has key, operator, value and effect")
            if each.get("operator", "Equal") not in {"Equal", "Exists"}:
                raise ValueError('the operator of a toleration is "Equal" or "Exists"')
            if each.get("effect", "") not in {"", "NoSchedule", "PreferNoSchedule", "NoExecute"}:
                raise ValueError('the effect of a toleration is "NoSchedule", "PreferNoSchedule" or "NoExecute"')
        return tolerations

    @field_validator("pod")
    @classmethod
    def _is_of_a_pod(cls, pod: Mapping[str, Any]) -> Mapping[str, Any]:
        return pod_table.valid(pod)

    @field_validator("min_available")
    @classmethod
    def _is_a_share(cls, share: str) -> str:
        if share and not _SHARE.fullmatch(share):
            raise ValueError('a number of pods or a percentage, as in "2" or "50%"')
        return share

    @field_validator("role_arn", "function_role_arn")
    @classmethod
    def _is_a_role(cls, arn: str) -> str:
        if not _ROLE.fullmatch(arn):
            raise ValueError('the ARN of an IAM role, as in "arn:aws:iam::123456789012:role/grid"')
        return arn

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if name and not _NAME.fullmatch(name):
            raise ValueError("lower-case letters, digits and dashes, 48 at most, as Kubernetes has names")
        return name

    @field_validator("code")
    @classmethod
    def _is_a_place(cls, code: str) -> str:
        if code not in {"folder", "image"} and not _ON_S3.fullmatch(code):
            raise ValueError('one of "folder", "image" and "s3://bucket/key.zip"')
        return code

    @field_validator("layers")
    @classmethod
    def _are_on_s3_beside_code(cls, layers: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for layer in layers:
            if not _ON_S3.fullmatch(layer):
                raise ValueError(
                    f'{layer!r}: write "s3://bucket/key.zip". Layers that are folders here go into [function]'
                )
        if layers and not str(info.data.get("code", "")).startswith("s3://"):
            raise ValueError('use them with code = "s3://bucket/key.zip". With "folder" write [function] layers')
        return layers

    def base_name(self, function: Function) -> str:
        """The name of the objects of this function, and of no other: a long one ends with a digest."""
        if self.name:
            return self.name
        plain = re.sub(r"[^a-z0-9]+", "-", function.function_name.lower()).strip("-") or "function"
        if len(plain) <= _LONGEST_PLAIN:
            return f"htcgrid-{plain}"
        digest = hashlib.sha256(function.function_name.encode()).hexdigest()[:_DIGEST]
        return f"htcgrid-{plain[: _LONGEST_PLAIN - _DIGEST - 1].rstrip('-')}-{digest}"

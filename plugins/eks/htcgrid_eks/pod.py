"""The pod: an agent and its Lambda containers, joined by loopback and a shared volume each."""

import base64
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from htcgrid.planes import architectures, container_entry, this_python, variables
from htcgrid.spi import Function, Rejected

from htcgrid_eks import function_role, pod_table
from htcgrid_eks.code import LAYERS, LAYERS_ROOT, TASK, TASK_ROOT, ways_out
from htcgrid_eks.options import Options
from htcgrid_eks.sidecar import EMULATOR_PORT, FOLDER, container_name

Manifest = dict[str, Any]

AGENT = "agent"
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_MEMORY_OF_ONE_CPU = 1769  # MB of memory that come with one processor on AWS Lambda; from its documentation
_PIPES_MB = 16
_LOCKED_DOWN: Manifest = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def in_pod(function: Function) -> Function:
    """The function as the pod sees it: its code is at the same path as on AWS Lambda, and its layers are in /opt."""
    return function.model_copy(update={"code": Path(TASK_ROOT), "layers": ()})


def environment_secret(function: Function, metadata: Manifest) -> Manifest:
    """The handler's environment as a Secret: it may hold passwords, and the right to read pods does not include Secrets."""
    for name in function.environment:
        if not _KEY.fullmatch(name):
            raise Rejected(
                f"[function] environment: {name!r}: on Kubernetes a name has letters, digits, - _ and . only."
            )
    data = {name: base64.b64encode(value.encode()).decode() for name, value in function.environment.items()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}


def pod_spec(
    options: Options, function: Function, agent: Manifest, secret: str, init: Sequence[Manifest] = ()
) -> Manifest:
    """The spec of a pod around the agent's container. `agent` has what only the agent's container has: `args`, `env`, `volumeMounts`, probes.

    `secret` names the Secret with the handler's environment. It need not exist if that is empty.
    """
    if function.layers and options.code != "folder":
        raise Rejected(
            f'[function] layers are sent along with code = "folder", and this plane has code = {options.code!r}. '
            f"{ways_out(function)}"
        )
    containers = range(options.containers)
    with_code = options.code != "image"
    shared = [_volume(f"run-{index}", medium="Memory", sizeLimit=f"{_PIPES_MB}Mi") for index in containers]
    scratch = [_volume(f"tmp-{index}", sizeLimit=f"{function.ephemeral_storage}Mi") for index in containers]
    spec: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": options.user,
            "runAsGroup": options.user,
            "fsGroup": options.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            _volume("run", medium="Memory", sizeLimit="1Mi"),
            _volume("tmp-agent", sizeLimit="64Mi"),
            *shared,
            *scratch,
            *([_volume("code", sizeLimit="1Gi")] if with_code else []),
        ],
        "containers": [
            _agent(options, agent, with_code=with_code),
            *(_lambda(options, function, index, secret, with_code=with_code) for index in containers),
        ],
    }
    if options.function_role_arn:
        function_role.add(spec, options, function)
    if init:
        spec["initContainers"] = list(init)
    return pod_table.merged(spec | _placement(options, function), options.pod)


def small_container(options: Options, name: str, command: Sequence[str], mounts: Sequence[Manifest]) -> Manifest:
    """A container of the agent's image, with the fewest rights."""
    return {
        "name": name,
        "image": options.agent_image,
        "imagePullPolicy": options.pull_policy,
        "command": list(command),
        "securityContext": _LOCKED_DOWN,
        "volumeMounts": [{"name": "tmp-agent", "mountPath": "/tmp"}, *mounts],  # noqa: S108 - the pod's own
        "resources": {
            "requests": {"cpu": options.agent_cpu, "memory": f"{options.agent_memory}Mi"},
            "limits": {"memory": f"{options.agent_memory}Mi"},
        },
    }


def mount(name: str, path: str, *, read_only: bool = False, folder: str = "") -> Manifest:
    """A mount of a volume, or only of its subfolder `folder`."""
    within = {"subPath": folder} if folder else {}
    return {"name": name, "mountPath": path, **within, **({"readOnly": True} if read_only else {})}


def _agent(options: Options, agent: Manifest, *, with_code: bool) -> Manifest:
    shared = [mount("run", str(FOLDER))]
    shared += [mount(f"run-{index}", f"{FOLDER}/{index}") for index in range(options.containers)]
    if with_code:
        shared.append(mount("code", TASK_ROOT))
    own = dict(agent)
    command, mounts = own.pop("command"), own.pop("volumeMounts", [])
    return small_container(options, AGENT, command, [*shared, *mounts]) | own


def _lambda(options: Options, function: Function, index: int, secret: str, *, with_code: bool) -> Manifest:
    program = (
        options.command
        or function.command
        or container_entry.program(function.handler, options.transport, EMULATOR_PORT + index)
    )
    memory = {"memory": f"{function.memory}Mi"}
    code = _code_mounts(with_layers=bool(function.layers or options.layers)) if with_code else []
    return {
        "name": container_name(index),
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        # In commands Kubernetes replaces $(NAME); two dollar signs stand for one.
        "command": [word.replace("$", "$$") for word in container_entry.command(str(FOLDER), ())] + list(program),
        "workingDir": TASK_ROOT,
        "env": _environment(options, function, secret),
        "securityContext": _LOCKED_DOWN,
        "volumeMounts": [mount(f"run-{index}", str(FOLDER)), mount(f"tmp-{index}", "/tmp"), *code],  # noqa: S108
        "resources": {"requests": {**memory, "cpu": options.cpu or _cpu(function.memory)}, "limits": memory},
    }


def _code_mounts(*, with_layers: bool) -> list[Manifest]:
    if not with_layers:
        return [mount("code", TASK_ROOT, read_only=True)]
    return [
        mount("code", TASK_ROOT, read_only=True, folder=TASK),
        mount("code", LAYERS_ROOT, read_only=True, folder=LAYERS),
    ]


def _environment(options: Options, function: Function, secret: str) -> list[Manifest]:
    own = {name: {"secretKeyRef": {"name": secret, "key": name}} for name in function.environment}
    return [
        {"name": name, "valueFrom": own[name]} if name in own else {"name": name, "value": value}
        for name, value in sorted(_variables(options, function).items())
    ]


def _variables(options: Options, function: Function) -> Mapping[str, str]:
    runtime = "" if function.command or options.command else function.runtime or this_python()
    found = dict(variables(in_pod(function), "" if runtime.startswith("provided") else runtime))
    if options.transport == "rie":
        found["AWS_LAMBDA_FUNCTION_TIMEOUT"] = str(math.ceil(function.timeout))
    return found


def _cpu(memory: int) -> str:
    return f"{max(10, memory * 1000 // _MEMORY_OF_ONE_CPU)}m"


def _placement(options: Options, function: Function) -> Manifest:
    selector = dict(options.node_selector)
    if function.architecture:
        selector["kubernetes.io/arch"] = architectures.of_images(function.architecture)
    placement: Manifest = {}
    if selector:
        placement["nodeSelector"] = selector
    if options.tolerations:
        placement["tolerations"] = [dict(each) for each in options.tolerations]
    if options.pull_secrets:
        placement["imagePullSecrets"] = [{"name": name} for name in options.pull_secrets]
    return placement


def _volume(name: str, **settings: str) -> Manifest:
    return {"name": name, "emptyDir": settings}

"""`[planes.NAME.pod]`: a part of a pod's spec that is merged into ours.

Tables are merged, and so are members of lists with the same name. The items of all other lists are added after ours.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from htcgrid.spi import RESERVED_ENVIRONMENT

from htcgrid_eks.code import TASK_ROOT
from htcgrid_eks.pod_schema import checked
from htcgrid_eks.sidecar import FOLDER

Table = Mapping[str, Any]

EVERY_LAMBDA = "lambda"
"""This name means all Lambda containers, which are `lambda-0`, `lambda-1` and so on."""
_OWN_CONTAINER = re.compile(r"agent|code|lambda(-\d+)?")
_OWN_VOLUME = re.compile(r"(run|tmp)(-\d+|-agent)?|code|config|account")
_OWN_PATHS = frozenset({str(FOLDER), TASK_ROOT, "/tmp", "/etc/htcgrid"})  # noqa: S108 - the pod's own
_NAMES = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "env": "name",
    "volumeMounts": "mountPath",
}
_WHOLE = frozenset({"env", "volumes", "volumeMounts"})
"""Lists whose members are replaced, not merged: a member with both `value` and `valueFrom` would not be valid."""
_SET_BY_US = {
    "restartPolicy": "the plane needs its own value",
    "terminationGracePeriodSeconds": "it follows from [agent] grace",
    "serviceAccountName": "deploy makes one; `role_arn` gives it a role",
    "serviceAccount": "deploy makes one; `role_arn` gives it a role",
    "automountServiceAccountToken": "a handler would get the agent's rights",
    "shareProcessNamespace": "a handler would see the agent's variables",
    "hostNetwork": "the whole node would reach the Runtime API",
    "hostPID": "a handler would see the processes of the node",
    "hostIPC": "a handler would share memory with the node",
    "ephemeralContainers": "Kubernetes does not allow them in a new pod",
}
_SET_BY_KEYS = {
    "image": "write it as `image` or `agent_image` of the plane",
    "command": "write it as `command` of the plane",
    "args": "write them into `command` of the plane",
    "workingDir": "it is the same as on AWS Lambda",
}


def valid(table: Table) -> Table:
    """The table in the form that is merged. Raises `ValueError` for what is not part of a pod's spec, or would break the plane."""
    found: Table = checked({"containers": [], **table})
    for problem in _problems(found):
        raise ValueError(problem)
    return found if found["containers"] else {name: value for name, value in found.items() if name != "containers"}


def merged(spec: dict[str, Any], table: Table) -> dict[str, Any]:
    """The spec with the table in it."""
    names = [container["name"] for container in spec["containers"]]
    lambdas = [name for name in names if re.fullmatch(r"lambda-\d+", name)]
    containers = [
        {**container, "name": name}
        for container in table.get("containers", ())
        for name in (lambdas if container["name"] == EVERY_LAMBDA else [container["name"]])
    ]
    more = {**table, "containers": containers} if containers else table
    result: dict[str, Any] = _merged(spec, more)
    return result


def _problems(table: Table) -> Iterator[str]:
    for name in table:
        if name in _SET_BY_US:
            yield f"{name} cannot be set here: {_SET_BY_US[name]}"
    volumes = {volume["name"] for volume in table.get("volumes", ())}
    for name in volumes:
        if _OWN_VOLUME.fullmatch(name):
            yield f"volumes: {name!r} is the name of a volume that htcgrid makes; choose another"
    for kind in ("containers", "initContainers"):
        for container in table.get(kind, ()):
            for problem in _problems_of(container, volumes):
                yield f"{kind}, {container['name']!r}: {problem}"


def _problems_of(container: Table, volumes: set[str]) -> Iterator[str]:
    name = container["name"]
    is_ours = _OWN_CONTAINER.fullmatch(name) is not None
    if is_ours:
        for key in _SET_BY_KEYS.keys() & container.keys():
            yield f"{key} cannot be set here: {_SET_BY_KEYS[key]}"
    elif "image" not in container:
        yield "a container of your own needs an `image`; those of htcgrid are named agent, lambda (all of them), lambda-0"
    if name.startswith("lambda"):
        for variable in container.get("env", ()):
            if variable["name"] in RESERVED_ENVIRONMENT:
                yield f"env: {variable['name']} is reserved by Lambda, which sets it itself; choose another name"
    for mount in container.get("volumeMounts", ()):
        yield from _problems_of_mount(mount, volumes, is_ours=is_ours)


def _problems_of_mount(mount: Table, volumes: set[str], *, is_ours: bool) -> Iterator[str]:
    if mount["name"] not in volumes:
        yield f"volumeMounts: there is no volume {mount['name']!r} in this table; add it to `volumes`"
    if is_ours and mount["mountPath"].rstrip("/") in _OWN_PATHS:
        yield f"volumeMounts: htcgrid has a volume of its own at {mount['mountPath']}; choose another mountPath"


def _merged(ours: Any, theirs: Any, name: str = "") -> Any:
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return {**ours, **{key: _merged(ours[key], each, key) if key in ours else each for key, each in theirs.items()}}
    if isinstance(ours, Sequence) and isinstance(theirs, Sequence) and not isinstance(theirs, str):
        return _listed(ours, theirs, name)
    return theirs


def _listed(ours: Sequence[Any], theirs: Sequence[Any], name: str) -> list[Any]:
    key = _NAMES.get(name)
    if key is None:
        return [*ours, *theirs]
    found = {each[key]: each for each in ours}
    for each in theirs:
        before = found.get(each[key])
        found[each[key]] = each if before is None or name in _WHOLE else _merged(before, each)
    return list(found.values())

"""Which agent owns a container or a network, by labels, and what agents that were killed have left.

An owner is a process: machine, boot, pid namespace, process id and start time. Only where all that can be
compared and the process is gone is a thing taken for left behind; what other agents hold is never touched.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from docker.errors import APIError, NotFound
from htcgrid.spi import Function

from htcgrid_local_docker.engine import Engine, is_gone

PLANE = "io.htcgrid.plane"
OWNER = "io.htcgrid.owner"
FUNCTION = "io.htcgrid.function"
_MINE = {"label": [f"{PLANE}=local_docker"]}


def labels(function: Function) -> dict[str, str]:
    """The labels of everything that this process makes for this function."""
    return {PLANE: "local_docker", OWNER: _owner(os.getpid()), FUNCTION: function.function_name}


def is_left_behind(owner: str) -> bool:
    """Whether the process that this label names has certainly ended."""
    try:
        machine, boot, namespace, pid, start = owner.split("/")
        mine = _owner(os.getpid()).split("/")
    except ValueError:
        return False
    if not boot or machine != mine[0]:
        return False
    if boot != mine[1]:
        return bool(machine)  # without its id it may be another machine; a boot has an id that no other machine's has
    return namespace == mine[2] and _start(pid) != start and not _is_hidden(pid)


def sweep(engine: Engine) -> Iterator[str]:
    """Remove what dead agents have left; yields a text for each thing removed."""
    client = engine.client
    with engine.speaking("look for what dead agents have left"):
        containers = client.containers(all=True, filters=_MINE)
    for container in containers:
        if is_left_behind(container["Labels"].get(OWNER, "")) and remove(engine, container["Id"]):
            yield f"removed container {container['Id'][:12]} of {container['Labels'].get(FUNCTION, '?')}"
    with engine.speaking("look for networks that dead agents have left"):
        networks = client.networks(filters=_MINE)
    for network in networks:
        if is_left_behind((network["Labels"] or {}).get(OWNER, "")) and remove_network(engine, network["Id"]):
            yield f"removed network {network['Name']}"


def alive(engine: Engine) -> Mapping[str, list[str]]:
    """Containers of agents that live or cannot be judged: process id to container ids."""
    owners: dict[str, list[str]] = {}
    with engine.speaking("list containers"):
        for container in engine.client.containers(all=True, filters=_MINE):
            owner = container["Labels"].get(OWNER, "")
            if not is_left_behind(owner):
                owners.setdefault(owner.split("/")[-2] if "/" in owner else "?", []).append(container["Id"][:12])
    return owners


def remove(engine: Engine, container: str) -> bool:
    """Remove a container, ended or not; False where another has done it."""
    with engine.speaking("remove a container"):
        try:
            engine.client.remove_container(container, force=True, v=True)
        except APIError as error:
            if is_gone(error) or error.status_code == 409:  # its removal is under way
                return False
            raise
    return True


def remove_network(engine: Engine, network: str) -> bool:
    """Remove a network; False where another has done it, or something still uses it."""
    with engine.speaking("remove a network"):
        try:
            engine.client.remove_network(network)
        except NotFound:
            return False
        except APIError as error:
            if error.status_code in {403, 409}:
                return False
            raise
    return True


def _owner(pid: int) -> str:
    machine = _machine()
    boot = _read(Path("/proc/sys/kernel/random/boot_id"))
    namespace = str(Path("/proc/self/ns/pid").readlink())
    return "/".join([machine, boot, namespace, str(pid), _start(str(pid))])


def _machine() -> str:
    """The id of this machine; empty where it has none, as in many containers."""
    found = (_read(Path(name)) for name in ("/etc/machine-id", "/var/lib/dbus/machine-id"))
    return next((text for text in found if text not in {"", "uninitialized"}), "")


def _start(pid: str) -> str:
    """A process's start in clock ticks since boot; empty where there is none."""
    stat = _read(Path("/proc") / pid / "stat")
    fields = stat.rpartition(")")[2].split()
    return fields[19] if fields and fields[0] not in {"Z", "X"} else ""


def _is_hidden(pid: str) -> bool:
    """Whether there is such a process, of a user whose processes this one may not see."""
    if _read(Path("/proc") / pid / "stat"):
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True
    except (OSError, ValueError, OverflowError):
        pass
    return False


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

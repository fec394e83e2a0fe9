"""The cluster's node, where `.ci/cluster` has made it of this machine: its images, and its containers as root sees them."""

import json
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_SOCKET = Path("/run/htcgrid-node/containerd.sock")


def give(image: str) -> str:
    """Have pods find this image of the Docker Engine; returns its name. Another cluster has its own way to images."""
    if _SOCKET.exists():
        subprocess.run([str(ROOT / ".ci/cluster"), "image", image], check=True, capture_output=True)
    return image


def has(container: str) -> bool:
    """Whether this container, by its id, runs here."""
    return _SOCKET.exists() and bool(_ctr("tasks", "ls", "--quiet").split().count(container))


def kill_command(container: str) -> list[str]:
    """The command that kills the first process of this container, and so all of it."""
    return _command("tasks", "kill", "--signal", "SIGKILL", container)


def container_name(container: str) -> str:
    """What the pod's spec calls it; empty where it is not of a pod."""
    if not has(container):
        return ""
    labels = json.loads(_ctr("containers", "info", container))["Labels"]
    return str(labels.get("io.kubernetes.container.name", ""))


def _ctr(*arguments: str) -> str:
    return subprocess.run(_command(*arguments), check=True, capture_output=True, text=True).stdout


def _command(*arguments: str) -> list[str]:
    return ["ctr", "--address", str(_SOCKET), "--namespace", "k8s.io", *arguments]

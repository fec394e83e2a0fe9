"""`htcgrid` as a user runs it: a process of its own."""

import base64
import fcntl
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kubernetes_node as node
import pytest
import yaml  # type: ignore[import-untyped]

Kubectl = Callable[..., str]
_PROGRAM = "from htcgrid.cli import main; main()"


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    error: str


def htcgrid(*arguments: str, environment: dict[str, str] | None = None) -> Done:
    """Run it to its end, whatever that is."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    return Done(done.returncode, done.stdout, done.stderr)


def ended_from_the_node(kubectl: Kubectl, pod: str, *containers: str) -> "subprocess.Popen[bytes]":
    """End whole Lambda containers in some seconds, as the kernel of a newer node does when one is out of memory."""
    ids = []
    for name in containers:
        where = f"jsonpath={{.status.containerStatuses[?(@.name=='{name}')].containerID}}"
        _, _, container = kubectl("get", "pod", pod, "-o", where).partition("://")
        if not node.has(container):
            pytest.skip("needs to be on the cluster's node, as .ci/cluster makes it")
        ids.append(container)
    kill = [node.kill_command(container) for container in ids]
    script = f"import time, subprocess; time.sleep(5); [subprocess.run(command) for command in {kill!r}]"
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)


def open_ports(kubectl: Kubectl, image: str, address: str, control_host: str, control: int) -> list[int]:
    """The ports of `address` that another pod of the namespace reaches. It must reach the control, or says so."""
    script = (
        "import socket, sys\n"
        "def reached(host, port):\n"
        "    with socket.socket() as channel:\n"
        "        channel.settimeout(0.5)\n"
        "        return channel.connect_ex((host, port)) == 0\n"
        f"assert reached({control_host!r}, {control}), 'this pod reaches nothing at all'\n"
        f"print([port for port in range(1, 65536) if reached({address!r}, port)])\n"
    )
    container = {"name": "probe", "image": image, "command": ["python3", "-c", script], "imagePullPolicy": "Never"}
    spec = {"restartPolicy": "Never", "containers": [container]}
    kubectl("apply", "-f", "-", stdin={"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec})
    deadline = time.monotonic() + 120
    while (phase := kubectl("get", "pod", "probe", "-o", "jsonpath={.status.phase}")) not in {"Succeeded", "Failed"}:
        assert time.monotonic() < deadline, f"the probe is {phase}"
        time.sleep(0.5)
    log = kubectl("logs", "probe")
    kubectl("delete", "pod", "probe")
    assert phase == "Succeeded", log
    found: list[int] = json.loads(log)
    return found


def kubeconfig(folder: Path, kubectl: Kubectl, token: str, namespace: str = "") -> Path:
    """The cluster of KUBECONFIG, as another user."""
    document = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
    document["users"][0]["user"] = {"token": token}
    if namespace:
        document["contexts"][0]["context"]["namespace"] = namespace
    file = folder / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return file


def account_token(kubectl: Kubectl, account: str) -> str:
    """The token of a service account: asked for, or the Secret that clusters before 1.24 made."""
    token = kubectl("create", "token", account, check=False).strip()
    deadline = time.monotonic() + 20
    while not token:
        assert time.monotonic() < deadline, "the service account has no token"
        name = kubectl("get", "serviceaccount", account, "-o", "jsonpath={.secrets[0].name}")
        if name:
            text = kubectl("get", "secret", name, "-o", "jsonpath={.data.token}")
            token = base64.b64decode(text).decode()
        time.sleep(0.2)
    return token


@contextmanager
def node_takes_pods(*, ours_alone: bool = False) -> Iterator[None]:
    """No test that runs beside this one closes the node meanwhile; `ours_alone` is for the one that does."""
    with Path(tempfile.gettempdir(), "htcgrid-test-node.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if ours_alone else fcntl.LOCK_SH)
        yield


def soon() -> float:
    """10 s of a machine that has nothing else to do. Its load is that of the last minute, so pytest's processes count, too."""
    busy = max(os.getloadavg()[0], float(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    return 10 * max(1.0, busy / (os.cpu_count() or 1))


def went_well(*arguments: str) -> str:
    """What it prints."""
    done = htcgrid(*arguments)
    assert done.status == 0, f"htcgrid {' '.join(arguments)}: {done.status}\n{done.out}{done.error}"
    return done.out

"""`htcgrid` as a user runs it: a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

Kubectl = Callable[..., str]
_COMMANDS = ("deploy", "scale", "status", "undeploy")
_PROGRAM = f"from htcgrid.cli.main import COMMANDS, main; [COMMANDS.setdefault(n, '') for n in {_COMMANDS}]; main()"


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


def open_ports(kubectl: Kubectl, image: str, address: str, control: int, control_host: str) -> list[int]:
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


def went_well(*arguments: str) -> str:
    """What it prints."""
    done = htcgrid(*arguments)
    assert done.status == 0, f"htcgrid {' '.join(arguments)}: {done.status}\n{done.out}{done.error}"
    return done.out

"""The config of a standing grid that takes squares to be computed from a Redis stream."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import redis

HANDLER = """
import socket
import subprocess
import sys
import time

def handler(event, context):
    if "tell" in event:
        with socket.create_connection(event["tell"]) as server:
            server.sendall(f"SET begun:{event['number']} {socket.gethostname()}\\r\\n".encode())
            server.recv(64)
    if event.get("eat"):
        subprocess.run([sys.executable, "-c", "len(bytearray(1 << 30).replace(bytes(1), b'1'))"])
    time.sleep(event["seconds"])
    print(f"the square of {event['number']}")
    return {"number": event["number"], "square": event["number"] ** 2}
"""
CONFIG = """
plane = "cluster"
[function]
handler = "squares.handler"
timeout = 20
memory = 128
[source]
plugin = "redis"
url = "{url}"
stream = "{stream}"
create = true
lease_seconds = 8
[sink]
plugin = "redis"
url = "{url}"
[agent]
grace = 4
handler_logs = "stdout"
attempts = {{ out_of_memory = 1 }}
[planes.cluster]
plugin = "eks"
namespace = "{namespace}"
image = "{lambda_image}"
agent_image = "{agent_image}"
cpu = "20m"
agent_cpu = "50m"
"""


def write_grid(folder: Path, more: str = "", **facts: str) -> Path:
    """The config file, beside its handler. `facts` are the names in CONFIG; `more` are lines of the plane's table."""
    (folder / "squares.py").write_text(HANDLER)
    (folder / "htcgrid.toml").write_text(CONFIG.format(**facts) + more)
    return folder / "htcgrid.toml"


def submit(queue: redis.Redis, stream: str, events: Iterable[dict[str, Any]]) -> None:
    """Each event's `number` makes its task's id."""
    with queue.pipeline() as lines:
        for event in events:
            lines.xadd(stream, {"id": f"t-{event['number']}", "payload": json.dumps(event)})
        lines.execute()


def stored(queue: redis.Redis) -> int:
    return sum(1 for _ in queue.scan_iter("htcgrid:result:*", 1000))


def result(queue: redis.Redis, number: int) -> tuple[dict[str, Any], Any] | None:
    """What is known of the result with its attempt and outcome, and the answer; None where it is not there yet."""
    found: Any = queue.get(f"htcgrid:result:t-{number}")
    if found is None:
        return None
    head, _, answer = found.partition(b"\n")
    return json.loads(head), json.loads(answer)


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.3)

"""`htcgrid serve`, the real program, with two functions on two workers each."""

import base64
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from program_end import output_at_end

CONFIG = """\
[function]
handler = "pricing.handler"
timeout = 2
[functions.other]
handler = "pricing.other"
timeout = 2
[planes.local]
plugin = "process"
workers = 2
"""

HANDLERS = """\
import os, time

def handler(event, context):
    if not isinstance(event, dict):
        return event
    if "print" in event:
        print(event["print"])
    if "note" in event:
        with open(event["note"], "a") as file:
            file.write("x")
    time.sleep(event.get("sleep", 0))
    if event.get("raise"):
        raise ValueError("no such price")
    if event.get("exit"):
        os._exit(3)
    if event.get("trace"):
        return os.environ["_X_AMZN_TRACE_ID"]
    if event.get("context"):
        return {"custom": context.client_context.custom, "env": context.client_context.env}
    return event

def other(event, context):
    return "other"
"""


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def kind(self) -> str:
        return self.headers.get("x-amzn-errortype", "")


class Service:
    def __init__(self, folder: Path, *options: str, handlers: str = HANDLERS) -> None:
        (folder / "htcgrid.toml").write_text(CONFIG)
        (folder / "pricing.py").write_text(handlers)
        program: list[str | Path] = [Path(sys.executable).with_name("htcgrid"), "serve", "--port", "0", *options]
        self.process = subprocess.Popen(program, cwd=folder, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        said = self.process.stderr.readline()
        found = re.fullmatch(r"Serving pricing, other on http://127\.0\.0\.1:(\d+)\n", said)
        if found is None:
            self.process.kill()
        assert found, said + output_at_end(self.process)[1]
        self.port = int(found[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def call(self, body: Any = b"", path: str = "", name: str = "pricing", **headers: str) -> Reply:
        """POST, with a connection of its own. `x_amz_log_type="Tail"` is the header X-Amz-Log-Type."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(
                "POST",
                path or f"/2015-03-31/functions/{name}/invocations",
                payload,
                {key.replace("_", "-"): value for key, value in headers.items()},
            )
            answer = connection.getresponse()
            return Reply(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def send(self, request: bytes, *, finish: bool = False) -> bytes:
        """All that it answers to these bytes, until it closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as caller:
            caller.sendall(request)
            if finish:
                caller.shutdown(socket.SHUT_WR)
            received = b""
            while piece := caller.recv(65536):
                received += piece
        return received

    def stop(self, number: signal.Signals = signal.SIGTERM) -> str:
        """What it said on standard error."""
        self.process.send_signal(number)
        _, said = output_at_end(self.process)
        assert self.process.returncode == 0, said
        return str(said)


def encoded(document: Any) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()

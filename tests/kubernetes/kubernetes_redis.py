"""A redis-server on the node, where pods reach it."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Its URL. Skips where this machine is not the cluster's node, or has no redis-server."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("needs redis-server: apt-get install redis-server")
    path = "{.items[0].status.addresses[?(@.type=='InternalIP')].address}"
    found = subprocess.run(["kubectl", "get", "nodes", "-o", f"jsonpath={path}"], capture_output=True, check=True)
    host = found.stdout.decode()
    try:
        port = free_port(host)
    except OSError:
        pytest.skip(f"the node {host} is not this machine, so that pods do not reach a redis-server here")
    settings = ["--bind", host, "--port", str(port), "--protected-mode", "no", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([program, *settings], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection((host, port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.05)
        yield f"redis://{host}:{port}"
    finally:
        server.terminate()
        server.wait()

"""Credentials are handed to a container through its standard input, on a connection that the SDK has opened."""

import gc
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from htcgrid_local_docker import secret_variables

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


class Engine:
    """An engine for one `attach`: what it was sent after its answer is `stdin`."""

    def __init__(self, path: Path) -> None:
        self.url = f"http+unix://{path}"
        self.stdin = b""
        self._listener = socket.create_server(str(path), family=socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            connection.settimeout(20)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(1 << 16)
            connection.sendall(UPGRADED)
            while data := connection.recv(1 << 16):
                self.stdin += data

    def join(self) -> None:
        self._thread.join(20)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = Engine(tmp_path / "docker.sock")
    yield engine
    engine.join()


def test_nothing_is_complained_of_after_credentials_were_handed_over(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    client = docker.APIClient(engine.url, version="1.41")
    stdin = secret_variables.attach(client, "c")
    response = stdin._response.raw._fp
    secret_variables.send(stdin, {"AWS_ACCESS_KEY_ID": "example"})
    engine.join()
    assert engine.stdin == b"AWS_ACCESS_KEY_ID=example\n\n"
    response.close()  # as Python does when it is garbage; before 3.13 what is raised there is not shown
    del stdin, response
    client.close()
    gc.collect()
    assert complaints == []

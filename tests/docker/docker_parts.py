"""Parts of these tests that are no tests."""

import contextlib
import hashlib
import io
import json
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException

ENGINE = "/var/run/docker.sock"


class Relay:
    """Another address of the engine, which can be taken away without touching the engine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> str:
        script = Path(__file__).with_name("relay.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), str(self._path), ENGINE], stderr=subprocess.DEVNULL
        )
        until(self._listens, 10, "the relay is up")
        return f"unix://{self._path}"

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self._path)) == 0

    def close(self) -> None:
        """Cut what is connected, and let nobody connect any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._path.unlink(missing_ok=True)


class OwnEngine:
    """A second Docker Engine, to be stopped and filled at will: its own socket, data and containerd.

    It leaves the machine's firewall and the bridge docker0 alone, which are the first engine's: without a
    bridge of its own it would remove that one.
    """

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        self.host = f"unix://{folder}/docker.sock"
        self._folder = folder
        self._data = data or folder / "data"
        self._bridge = _bridge()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        here = self._folder
        with (here / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *("dockerd", "--host", self.host, "--data-root", self._data, "--exec-root", here / "exec"),
                    *("--pidfile", here / "pid", f"--bridge={self._bridge}", "--iptables=false", "--ip-forward=false"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self._answers, 60, f"the second engine is up; its log is {here}/dockerd.log")

    def load(self, image: str) -> None:
        """Copy an image from the first engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as save:
            subprocess.run(["docker", "--host", self.host, "load"], stdin=save.stdout, check=True, capture_output=True)

    def client(self) -> docker.APIClient:
        return docker.APIClient(self.host, version="auto")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        subprocess.run(["ip", "link", "del", self._bridge], check=True)

    def _answers(self) -> bool:
        with contextlib.suppress(DockerException):
            self.client().close()
            return True
        return False


def _bridge() -> str:
    """A new bridge with an address of its own; tests that run side by side have one each."""
    for number in range(1, 16):
        name = f"htcgrid-t{number}"
        made = subprocess.run(
            ["ip", "link", "add", name, "type", "bridge"], check=False, capture_output=True, text=True
        )
        if made.returncode == 0:
            subprocess.run(["ip", "addr", "add", f"192.168.{240 + number}.1/24", "dev", name], check=True)
            return name
        assert "File exists" in made.stderr, made.stderr
    raise AssertionError("there are fifteen bridges htcgrid-t1 to -t15; `ip link del` those that earlier tests left")


def load_image(
    engine: docker.APIClient, name: str, architecture: str, files: dict[str, bytes], config: dict[str, Any]
) -> None:
    """Make an image for any architecture out of programs."""
    layer = _packed(files)
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {"manifest.json": json.dumps(manifest).encode(), "config.json": json.dumps(document).encode()}
    for event in engine.load_image(_packed({**parts, "layer.tar": layer})):
        assert "error" not in event, event


def _packed(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def is_rootless(engine: docker.APIClient) -> bool:
    return "name=rootless" in (engine.info()["SecurityOptions"] or ())


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)

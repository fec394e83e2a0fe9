"""Parts of these tests that are no tests."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ENGINE = "/var/run/docker.sock"


class Relay:
    """Another address of the engine, which can be taken away without touching the engine."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[bytes] | None = None

    def open(self) -> str:
        if shutil.which("socat") is None:
            pytest.skip("no socat")
        addresses = [f"UNIX-LISTEN:{self._path},fork", f"UNIX-CONNECT:{ENGINE}"]
        self._process = subprocess.Popen(["socat", *addresses], start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._path.exists():
            assert time.monotonic() < deadline, "socat did not come up"
            time.sleep(0.01)
        return f"unix://{self._path}"

    def close(self) -> None:
        """Cut what is connected, and let nobody connect any more."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self._path.unlink(missing_ok=True)

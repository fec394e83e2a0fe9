"""Parts of these tests that are no tests."""

import subprocess
import sys
import time
from pathlib import Path

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
        deadline = time.monotonic() + 10
        while not self._path.exists():
            assert time.monotonic() < deadline, "the relay did not come up"
            time.sleep(0.01)
        return f"unix://{self._path}"

    def close(self) -> None:
        """Cut what is connected, and let nobody connect any more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._path.unlink(missing_ok=True)

"""A child process of this machine as a sandbox."""

from collections.abc import Mapping, Sequence

from htcgrid.runtime.fork_server import ForkServer
from htcgrid.runtime.sandbox import Sandbox
from htcgrid.runtime.worker_process import WorkerProcess


class ProcessSandbox(Sandbox):
    """A program of the fork server's, run in a folder."""

    def __init__(self, fork_server: ForkServer, command: Sequence[str], folder: str) -> None:
        self._fork_server = fork_server
        self._command = list(command)
        self._folder = folder
        self._process: WorkerProcess | None = None

    def start(self, variables: Mapping[str, str]) -> None:
        request = {"command": self._command, "folder": self._folder, "environment": dict(variables)}
        self._process = WorkerProcess(self._fork_server, request)
        self._process.log.printed = self.printed
        self.ended_fd = self._process.pidfd

    @property
    def process(self) -> WorkerProcess:
        assert self._process is not None  # noqa: S101 - from `start` on
        return self._process

    def has_ended(self) -> bool:
        return self.process.has_ended()

    def end(self) -> int:
        return self.process.kill()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    def log_tail(self) -> bytes:
        return self.process.log.tail()

    def between(self) -> None:
        self.process.log.read()

    def memory_mb(self) -> float:
        self.process.log.read()
        return self.process.memory_mb()

    def is_chatty(self) -> bool:
        return self.process.log.is_chatty

    def charged_mb(self) -> float:
        return self.process.charged_mb()

    def is_working(self) -> bool:
        return self._process is None or self._process.is_working()

    def starved_seconds(self) -> float:
        return self.process.starved_seconds()

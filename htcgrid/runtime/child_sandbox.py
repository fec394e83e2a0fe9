"""A child process of this machine as a sandbox."""

from collections.abc import Mapping, Sequence

from htcgrid.runtime.child import Child
from htcgrid.runtime.nursery import Nursery
from htcgrid.runtime.sandbox import Sandbox


class ChildSandbox(Sandbox):
    """A program of the nursery's, run in a folder."""

    def __init__(self, nursery: Nursery, command: Sequence[str], folder: str) -> None:
        self._nursery = nursery
        self._command = list(command)
        self._folder = folder
        self._child: Child | None = None

    def start(self, variables: Mapping[str, str]) -> None:
        request = {"command": self._command, "folder": self._folder, "environment": dict(variables)}
        self._child = Child(self._nursery, request)
        self.ended_fd = self._child.pidfd

    @property
    def child(self) -> Child:
        assert self._child is not None  # noqa: S101 - from `start` on
        return self._child

    def has_ended(self) -> bool:
        return self.child.has_ended()

    def end(self) -> int:
        return self.child.kill()

    def close(self) -> None:
        if self._child is not None:
            self._child.close()

    def log_tail(self) -> bytes:
        return self.child.log_tail()

    def memory_mb(self) -> float:
        self.child.read_log()
        return self.child.memory_mb()

    def is_chatty(self) -> bool:
        return self.child.is_chatty

    def charged_mb(self) -> float:
        return self.child.charged_mb()

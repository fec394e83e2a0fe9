"""The agent's end of the named pipes that it shares with one Lambda container."""

import fcntl
import os
import select
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from htcgrid.runtime.log_pipe import LOG_BYTES_AT_ONCE, LogPipe

_PIPES = ("log", "ended", "replies", "orders", "starts")  # the container waits for the last one

_MEMORY_SECONDS = 0.02
_REPLY_BYTES = 1 << 16


class ContainerPipes:
    """The named pipes in a folder that a Lambda container mounts too; `container_entry.sh` is at their other end.

    Either end may start first, restart or end: an order waits in its pipe until it is read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._starts = self._orders = self._replies = -1
        self.log = LogPipe(-1)
        self._token = ""
        self._ready = False
        self._number = 0
        self._memory_mb = 0.0

        self.kills = 0
        """How many processes of this run the kernel has ended because memory ran out, when `memory_mb` was last called."""

    def open(self) -> None:
        """Make the pipes, and let the container end what an earlier agent has left running."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in _PIPES:
            path = self.folder / name
            if not path.is_fifo():
                os.mkfifo(path)
                path.chmod(0o660)
        self.log.descriptor = self._pipe("log")
        with suppress(PermissionError):  # more than the machine allows one user; the default size works too
            fcntl.fcntl(self.log.descriptor, fcntl.F_SETPIPE_SZ, LOG_BYTES_AT_ONCE)
        self._replies = self._pipe("replies")
        self._orders = self._pipe("orders")
        self._starts = self._pipe("starts")
        self.greet()

    def close(self) -> None:
        """Close the pipes. The container ends what it runs."""
        for descriptor in (self._starts, self._orders, self._replies):
            if descriptor >= 0:
                os.close(descriptor)
        self._starts = self._orders = self._replies = -1
        self.log.close()

    def greet(self) -> None:
        """Ask a container that is new, or was restarted, for a reply."""
        for pipe in (self._starts, self._orders, self._replies):
            _drain(pipe)
        self._ready = False
        self._token = uuid.uuid4().hex
        self._send(self._orders, "end any")
        self._send(self._starts, f"hello {self._token}")

    def is_ready(self, wait: float = 0.0) -> bool:
        """Whether the container has started and runs nothing."""
        if not self._ready and self._replied(self._token, wait) is not None:
            _drain(self._orders)  # the order to end is still there if nothing ran
            self._ready = True
        return self._ready

    def start(self, api: str, stream: str, secret: Mapping[str, str]) -> int:
        """Start the program, with these variables too; returns the number of this run."""
        self._number += 1
        self._memory_mb, self.kills = 0.0, 0
        variables = [f"{name}={value}" for name, value in secret.items()]
        self._send(self._starts, " ".join(["start", str(self._number), api or "-", stream, *variables]))
        return self._number

    def end(self, number: int) -> None:
        """Order the container to end that run."""
        self._send(self._orders, f"end {number}")

    def quit(self) -> None:
        """Order the container to end."""
        if self._starts >= 0:
            self._send(self._orders, "end any")
            self._send(self._starts, "quit")

    def memory_mb(self) -> float:
        """MiB that the container's processes use; the last known value if no reply comes at once."""
        token = f"m{time.monotonic_ns()}"
        self._send(self._orders, f"memory {token}")
        reply = self._replied(token, _MEMORY_SECONDS)
        if reply is not None:
            used, self.kills = (int(word) for word in reply.split())
            self._memory_mb = used / (1 << 20)
        return self._memory_mb

    def _pipe(self, name: str) -> int:
        # Open both ways: writing never waits for a reader, and what is written stays until it is read.
        return os.open(self.folder / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _send(self, pipe: int, line: str) -> None:
        try:
            os.write(pipe, f"{line}\n".encode())
        except BlockingIOError:
            return  # full of orders that nobody reads: the container has ended, as the pipe `ended` shows

    def _replied(self, token: str, wait: float) -> str | None:
        """The reply to that token, if it comes within `wait` seconds; replies to other tokens are dropped."""
        deadline = time.monotonic() + wait
        poll = select.poll()
        poll.register(self._replies, select.POLLIN)
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            for line in _drain(self._replies).decode().splitlines():
                name, _, text = line.partition(" ")
                if name == token:
                    return text
        return None


def _drain(pipe: int) -> bytes:
    try:
        return os.read(pipe, _REPLY_BYTES)
    except BlockingIOError:
        return b""

"""A container beside the agent's, with a folder that both mount, as a sandbox."""

import os
import select
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from htcgrid.planes import exit_status
from htcgrid.planes.container_pipes import ContainerPipes
from htcgrid.planes.unexplained import explained
from htcgrid.runtime.sandbox import Sandbox
from htcgrid.spi import Outcome, Unavailable, split_credentials

_END_SECONDS = 10.0
_NEW_CONTAINER = 0
"""The number of the run that `container_entry.sh` reports when it starts."""


@dataclass(frozen=True, slots=True)
class Termination:
    """How a container ended: its exit status (negative for a signal), and whether it was out of memory."""

    status: int
    out_of_memory: bool


def corrected_by(end: Termination | None, outcome: Outcome) -> Outcome:
    """The outcome of a container that ended, corrected with `end` if the engine knows it."""
    return outcome if end is None else explained(outcome, end.status, out_of_memory=end.out_of_memory)


class SidecarSandbox(Sandbox):
    """One run of a Lambda container's program.

    The container's first process reports the end of the program. It also holds a pipe open: when the container itself
    ends, that pipe ends, until the container is restarted and reports that. Only the engine knows the reason.
    """

    def __init__(self, pipes: ContainerPipes) -> None:
        self.ended_whole = False
        """Whether the container itself has ended, not only its program."""
        self._pipes = pipes
        self._number = 0
        self._termination: Termination | None = None
        self._poll = select.poll()

    def start(self, variables: Mapping[str, str]) -> None:
        self.ended_fd = os.open(self._pipes.folder / "ended", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with suppress(BlockingIOError):
            os.read(self.ended_fd, 1 << 16)  # reports of earlier runs
        self._poll.register(self.ended_fd, select.POLLIN)
        self._pipes.log.printed = self.printed
        self._pipes.log.tail()
        api = variables.get("AWS_LAMBDA_RUNTIME_API", "")
        _, secret = split_credentials(variables)
        self._number = self._pipes.start(api, variables["AWS_LAMBDA_LOG_STREAM_NAME"], secret)

    def has_ended(self) -> bool:
        return self._termination is not None or bool(self._poll.poll(0))

    def end(self) -> int:
        if not self.has_ended():
            self._pipes.end(self._number)
        return self._ended().status

    def close(self) -> None:
        if self.ended_fd >= 0:
            with suppress(Unavailable):
                self.end()
            self._pipes.log.read()  # what was printed while it ended
            self._pipes.log.printed = None
            os.close(self.ended_fd)
            self.ended_fd = -1

    def log_tail(self) -> bytes:
        return self._pipes.log.tail()

    def between(self) -> None:
        self._pipes.log.read()

    def is_chatty(self) -> bool:
        return self._pipes.log.is_chatty

    def memory_mb(self) -> float:
        self._pipes.log.read()
        return self._pipes.memory_mb()

    def was_out_of_memory(self) -> bool:
        return self._termination is not None and self._termination.out_of_memory

    def _ended(self) -> Termination:
        deadline = time.monotonic() + _END_SECONDS
        while self._termination is None:
            if not self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise Unavailable(
                    f"The Lambda container of {self._pipes.folder} was told to end its program and did not do so within "
                    f"{_END_SECONDS:.0f} s. Look at the machine on which it runs."
                )
            try:
                report = os.read(self.ended_fd, 1 << 16).decode()
            except BlockingIOError:
                report = ""
            self._termination = _read(report, self._number)
            if self._termination is None and (not report or _is_restarted(report)):
                # No process holds the other end any more, or a new one does: the container itself has ended.
                self._pipes.greet()
                self.ended_whole = True
                self._termination = Termination(-signal.SIGKILL, out_of_memory=False)
        return self._termination


def _read(report: str, number: int) -> Termination | None:
    for run, status, kills in _entries(report):
        if run == number:
            return Termination(exit_status.of_shell(status), out_of_memory=kills > 0)
    return None


def _is_restarted(report: str) -> bool:
    return any(run == _NEW_CONTAINER for run, _, _ in _entries(report))


def _entries(report: str) -> Iterator[tuple[int, int, int]]:
    for line in report.splitlines():
        run, status, kills = map(int, line.split())
        yield run, status, kills

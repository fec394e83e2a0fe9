"""The sandbox that an execution environment runs in, and the common part of all environments with a sandbox."""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping

from htcgrid.runtime.environment import ExecutionEnvironment
from htcgrid.runtime.output_lines import OutputLines
from htcgrid.spi import STDOUT_OR_STDERR, FailureKind, Function, Lease, Outcome

Printed = Callable[[bytes, str], None]
"""Receives a piece of what was printed, and its stream: "stdout", "stderr" or `STDOUT_OR_STDERR`."""

_SAMPLE_SECONDS = 0.05


class Sandbox(ABC):
    """One process, container or pod's container that a runtime runs in: started once, ended once.

    A plane subclasses this and gives it to an `ApiEnvironment` or a `RieEnvironment`, which speak to the
    runtime and supervise it; the sandbox only starts and ends it, and says how it ended. One thread uses it at a time.
    """

    ended_fd: int = -1
    """A descriptor that is readable once the sandbox has ended, so that an end is seen at once; valid
    from `start` to `close`. -1 if there is none: then `has_ended` is called every 50 ms."""

    printed: Printed | None = None
    """Set before `start` if everything that it prints is wanted: then `log_tail`, `memory_mb`, `end` and `close` hand each piece
    that they read to it, in order. A plane whose sandboxes do that has `Capability.OUTPUT`."""

    @abstractmethod
    def start(self, variables: Mapping[str, str]) -> None:
        """Start it, with these variables in addition to the function's own; do not wait until it is ready.

        They are `AWS_LAMBDA_LOG_STREAM_NAME`, with the Runtime API `AWS_LAMBDA_RUNTIME_API` ("host:port"), and the
        function's credentials (`spi.CREDENTIAL_VARIABLES`), which only the handler may see. Raises `Unavailable`
        or `Rejected`, as `htcgrid.spi.Plugin.open` does.
        """

    @abstractmethod
    def has_ended(self) -> bool:
        """Whether it has ended. Called after every answer, so it must take microseconds: no remote call."""

    @abstractmethod
    def end(self) -> int:
        """End it at once if it has not ended, wait for its end, and return its exit status.

        A signal is negative, as `subprocess` has it: a container's 137 is -9. The same when called again.
        """

    @abstractmethod
    def close(self) -> None:
        """End it and release everything that is held for it. Does nothing before `start` or a second time."""

    @abstractmethod
    def log_tail(self) -> bytes:
        """The end of what it printed since this was called last, `limits.LOG_TAIL_BYTES` at most.

        Called once for each answer, so it must take microseconds, and once more after the end.
        """

    def between(self) -> None:
        """Read what was printed since the last answer, for `printed`, before the next task; keep it for the next `log_tail`.

        The default is right if `memory_mb` reads what was printed.
        """
        self.memory_mb()

    @property
    def peers(self) -> Collection[str]:
        """The IP addresses that it calls the Runtime API from; others are not answered."""
        return ("127.0.0.1",)

    def memory_mb(self) -> float:
        """MiB in use now by all its processes together; called up to 20 times a second.

        0 if it cannot be measured cheaply. The environment ends the sandbox above the function's memory,
        so if something else enforces the limit (a cgroup), count as that does, or return 0.
        """
        return 0.0

    def charged_mb(self) -> float:
        """The same as `memory_mb`, as exactly as possible; called when that has grown or is above the limit."""
        return self.memory_mb()

    def is_chatty(self) -> bool:
        """Whether it prints so much that it would soon wait for its log to be read, which `memory_mb` and `log_tail` do."""
        return False

    def is_working(self) -> bool:
        """Whether it has kept a processor busy since the last call, as far as is known. Any thread may call it."""
        return True

    def starved_seconds(self) -> float:
        """How long it waited for a processor; 0 if that is not known."""
        return 0.0

    def was_out_of_memory(self) -> bool:
        """Whether something else has ended it at its memory limit (`OOMKilled`). Called after the end."""
        return False


class SandboxedEnvironment(ExecutionEnvironment):
    """An environment whose process is a `Sandbox`: what transports over HTTP share."""

    def __init__(self, function: Function, sandbox: Sandbox) -> None:
        super().__init__(function)
        self.sandbox = sandbox
        self._sampled = 0.0
        self._printing: Lease | None = None
        """The task that output belongs to now: the one that runs, or has run last."""
        self._lines: dict[str, OutputLines] = {}

    def _measured(
        self, lease: Lease, kind: FailureKind | None, payload: bytes, started: float, elapsed: float
    ) -> Outcome:
        """An answer, with what is known of its invocation. `started` in Unix seconds, `elapsed` in seconds."""
        now = time.monotonic()
        if now - self._sampled > _SAMPLE_SECONDS:
            self._sampled = now
            self._weigh()
        init_ms, self._init_ms = self._init_ms, 0.0
        duration_ms = elapsed * 1000
        log_tail = self._log_tail()
        self._end_line()
        return Outcome(
            lease.task.id,
            payload,
            kind,
            started,
            duration_ms,
            math.ceil(duration_ms + (init_ms or 0.0)),
            math.ceil(self._peak_mb),
            log_tail,
            init_ms or None,
            self.id,
        )

    def close(self) -> None:
        self.sandbox.close()
        self._end_line()

    def _start(self, added: Mapping[str, str]) -> None:
        """Start the sandbox, with these variables too."""
        if self.output.is_wanted:
            self.sandbox.printed = self._print
        self.sandbox.start(self._variables() | dict(added))

    def _begins(self, lease: Lease) -> None:
        """Called before this task runs: what was printed up to now is not its output."""
        if self.output.is_wanted:
            self.sandbox.between()
            self._end_line()
            self._printing = lease

    def _print(self, piece: bytes, stream: str = STDOUT_OR_STDERR) -> None:
        lines = self._lines.get(stream)
        if lines is None:
            lines = self._lines[stream] = OutputLines()
        if whole := self._handlers_own(lines.add(piece)):
            self.output.write(self._printing, self.id, whole, stream)

    def _handlers_own(self, lines: bytes) -> bytes:
        """Only those of these lines that are the handler's."""
        return lines

    def _end_line(self) -> None:
        """Pass on text without a newline as a line."""
        for stream, lines in self._lines.items():
            if rest := self._handlers_own(lines.rest()):
                self.output.write(self._printing, self.id, rest, stream)

    def _has_ended(self) -> bool:
        return self.sandbox.has_ended()

    def _end(self) -> int:
        return self.sandbox.end()

    def _memory_mb(self) -> float:
        return self.sandbox.memory_mb()

    def _log_tail(self) -> bytes:
        return self.sandbox.log_tail()

    def _charged_mb(self) -> float:
        return self.sandbox.charged_mb()

    def _is_chatty(self) -> bool:
        return self.sandbox.is_chatty()

    def is_loading(self) -> bool:
        return self.sandbox.is_working()

    def _starved_seconds(self) -> float:
        return self.sandbox.starved_seconds()

    def _was_out_of_memory(self) -> bool:
        return self.sandbox.was_out_of_memory()

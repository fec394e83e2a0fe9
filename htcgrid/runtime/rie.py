"""An execution environment behind AWS's Runtime Interface Emulator, called as HTC-Grid's agent calls it.

The emulator takes one invocation at a time, so there is one connection with one request at a time.
"""

import http.client
import math
import select
import socket
import time
from abc import abstractmethod
from base64 import b64encode
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from htcgrid.runtime import identity, rie_answers
from htcgrid.runtime.context import client_context
from htcgrid.runtime.environment import InitFailure, Running
from htcgrid.runtime.sandbox import Sandbox, SandboxedEnvironment
from htcgrid.spi import Function, Lease, Outcome, Unavailable, Unstarted

_PATH = "/2015-03-31/functions/function/invocations"
_TRANSFER_SECONDS = 30.0
"""How long the transfer of a request or an answer may take, without the handler's time."""
_PROBE_SECONDS = 0.25
_PAUSE_SECONDS = 0.005


class EmulatorSandbox(Sandbox):
    """A sandbox that runs the emulator with a runtime in it."""

    @property
    @abstractmethod
    def address(self) -> tuple[str, int]:
        """Host and port to call the emulator at; asked after `start`."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    sequence: int
    lease: Lease
    timeout: float
    started: float
    since: float


class RieEnvironment(SandboxedEnvironment):
    """An emulator that is called for one invocation after the other."""

    def __init__(self, function: Function, sandbox: EmulatorSandbox) -> None:
        super().__init__(function, sandbox)
        self._emulator = sandbox
        self._queue: deque[tuple[int, Lease, float]] = deque()
        self._attempt: _Attempt | None = None
        self._connection: http.client.HTTPConnection | None = None

    def start(self) -> None:
        self._start({"AWS_LAMBDA_FUNCTION_TIMEOUT": str(math.ceil(self._function.timeout))})

    def close(self) -> None:
        self._disconnect()  # first: without the sandbox's network, its last packets would be sent elsewhere
        super().close()

    # --- the transport ---

    def _submit(self, timeout: float) -> None:
        self._queue.extend((sequence, lease, timeout) for sequence, lease in self._pending.items())

    def _collect(self, wait: float) -> Sequence[Outcome | Unstarted]:
        if self._init_ms is None:
            self._look_whether_up(wait)
            return ()
        if self._attempt is None and self._queue and not self.sandbox.has_ended():
            self._post(*self._queue.popleft())
        attempt = self._attempt
        if attempt is None or not self._has_answered(wait):
            return ()
        self._attempt = None
        outcome = self._receive(attempt)
        return () if outcome is None else (outcome,)

    def _recall(self, running: Running) -> None:
        self._queue.clear()

    def _init_failure(self) -> InitFailure | None:
        """None: the emulator initialises the runtime on the first invocation, and answers that one with the error."""
        return None

    def _running(self) -> Running | None:
        attempt = self._attempt
        return Running(attempt.sequence, attempt.since) if attempt is not None else None

    def _log_tail(self) -> bytes:
        return rie_answers.handlers_own(self.sandbox.log_tail())

    def _handlers_own(self, lines: bytes) -> bytes:
        return rie_answers.handlers_own(lines)

    # --- the emulator ---

    def _look_whether_up(self, wait: float) -> None:
        """Request a path that does not exist: any reply shows that it serves. A connection alone does not show that, if
        something forwards the port."""
        probe = http.client.HTTPConnection(*self._emulator.address, timeout=_PROBE_SECONDS)
        try:
            probe.request("GET", "/")
            probe.getresponse().read()
        except (OSError, http.client.HTTPException):
            time.sleep(min(wait, _PAUSE_SECONDS))
        else:
            self._init_ms = (time.monotonic() - self._created) * 1000
        finally:
            probe.close()

    def _post(self, sequence: int, lease: Lease, timeout: float) -> None:
        headers = {
            "Content-Type": "application/json",
            "X-Amzn-RequestId": identity.request_id(lease.task.id),
            "X-Amz-Client-Context": b64encode(client_context(lease).encode()).decode(),
        }
        self._begins(lease)
        self._attempt = _Attempt(sequence, lease, timeout, time.time(), time.monotonic())
        try:
            self._connected().request("POST", _PATH, lease.task.payload, headers)
        except OSError as error:
            self._lost(self._attempt, error)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is not None and self._is_stale(self._connection.sock):
            self._disconnect()
        if self._connection is None:
            self._connection = http.client.HTTPConnection(*self._emulator.address, timeout=_TRANSFER_SECONDS)
        return self._connection

    @staticmethod
    def _is_stale(channel: socket.socket | None) -> bool:
        """Whether the emulator has closed the connection since the last answer: it sends nothing else now."""
        if channel is None:
            return True
        poll = select.poll()  # `select` takes no descriptor above 1023, and many environments have more
        poll.register(channel, select.POLLIN)
        return bool(poll.poll(0))

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _has_answered(self, wait: float) -> bool:
        channel = self._connection.sock if self._connection is not None else None
        watched = [source for source in (channel, self.sandbox.ended_fd) if source is not None and source != -1]
        poll = select.poll()
        for source in watched:
            poll.register(source, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(wait * 1000)}
        return channel is not None and channel.fileno() in ready

    def _receive(self, attempt: _Attempt) -> Outcome | None:
        assert self._connection is not None  # noqa: S101 - it has answered
        try:
            response = self._connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._lost(attempt, error)
            return None
        elapsed = time.monotonic() - attempt.since
        request_id = identity.request_id(attempt.lease.task.id)
        kind, document = rie_answers.classify(response.status, body, request_id, attempt.timeout)
        lease = self._pending.pop(attempt.sequence, None)
        return None if lease is None else self._measured(lease, kind, document, attempt.started, elapsed)

    def _lost(self, attempt: _Attempt, error: Exception) -> None:
        """Handle a lost answer: raise `Unavailable`, unless the emulator has ended, which the supervision reports."""
        self._disconnect()
        self._attempt = attempt
        deadline = time.monotonic() + _PROBE_SECONDS
        while not self.sandbox.has_ended():
            if time.monotonic() > deadline:
                message = f"The connection to the Runtime Interface Emulator was lost: {error!r}."
                raise Unavailable(message, begun=[attempt.lease.task.id])
            time.sleep(_PAUSE_SECONDS)

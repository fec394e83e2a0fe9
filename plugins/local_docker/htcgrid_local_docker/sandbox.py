"""A container as a sandbox of the core's execution environments."""

import logging
import os
import select
import signal
import socket
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

from docker.errors import APIError
from htcgrid.planes import EmulatorSandbox, exit_status, parsed
from htcgrid.spi import Rejected, Unavailable, split_credentials
from urllib3.exceptions import HTTPError

from htcgrid_local_docker import ownership, secret_variables
from htcgrid_local_docker.container_log import EMULATORS_LAST, LogStream
from htcgrid_local_docker.container_memory import ContainerMemory
from htcgrid_local_docker.container_spec import RIE_PORT, ContainerSpec, create_arguments
from htcgrid_local_docker.engine import Engine, is_gone
from htcgrid_local_docker.namespace_socket import listen_in
from htcgrid_local_docker.network import check_is_ours

log = logging.getLogger("htcgrid.local_docker.sandbox")

_UNCOUNTED = (
    "Containers have no control group of their own that can be read here: memory in use is shown as 0. With a rootless engine "
    "and control groups version 1, [function] memory, `cpus` and `pids` are not kept either."
)
_KILL_SECONDS = 20.0
_ENDED_SECONDS = 2.0
"""How long after an engine refused to end a container it may say that it had ended."""
_FROM_OUTSIDE = frozenset((-signal.SIGTERM, -signal.SIGKILL))


class ContainerSandbox(EmulatorSandbox):
    """One container, from its creation to its removal.

    Its end is read from the engine's answer to a `wait` that was asked before it started: the
    connection's descriptor is `ended_fd`. On a network that `is_inside`, the socket of the Runtime API, `listener`, is made
    to listen in the container before its program starts.
    """

    def __init__(self, engine: Engine, spec: ContainerSpec, listener: socket.socket | None = None) -> None:
        self._engine = engine
        self._spec = spec
        self._listener = listener
        self._container = ""
        self._status: int | None = None
        self._end: Any = None
        self._log: LogStream | None = None
        self._peer = ""
        self._address = ("", 0)
        self._memory: ContainerMemory | None = None

    # --- its life ---

    def start(self, variables: Mapping[str, str]) -> None:
        client = self._engine.client
        shown, secret = split_credentials(variables)
        with self._engine.speaking(f"start a container of {self._spec.image.reference!r}"):
            arguments = create_arguments(self._spec, client, shown, with_secrets=bool(secret))
            self._container = client.create_container(**arguments)["Id"]
            here = f"/containers/{self._container}"
            last = EMULATORS_LAST if self._spec.options.transport == "rie" else b""
            output = self._engine.stream(f"{here}/attach", stdout=1, stderr=1, stream=1)
            self._log = LogStream(output, self.printed, last)
            # The end is certain only from this: the log also ends when a program closes its output.
            self._end = self._engine.stream(f"{here}/wait", condition="next-exit")
            self.ended_fd = self._end.raw.fileno()
            stdin = secret_variables.attach(client, self._container) if secret else None
            if self._spec.network.is_inside and self._listener is not None:
                self._move_inside(self._listener)
            client.start(self._container)
            if stdin is not None:
                secret_variables.send(stdin, secret)
            self._look(client.inspect_container(self._container))
        log.info("Container %s is started.", self._container[:12])

    def has_ended(self) -> bool:
        if self._status is None and self._end is not None and _is_readable(self.ended_fd):
            self._status = self._read_status()
            if self._status in _FROM_OUTSIDE and not self._ran_out_of_memory():
                self._engine.check()
        return self._status is not None

    def end(self) -> int:
        if self._status is None:
            with self._engine.speaking("end a container"):
                try:
                    self._engine.client.kill(self._container)
                except APIError as error:
                    # Docker answers 409 for one that has ended just now, and Podman 500.
                    if not is_gone(error) and not _is_readable(self.ended_fd, _ENDED_SECONDS):
                        raise
            if not _is_readable(self.ended_fd, _KILL_SECONDS):
                raise Unavailable(
                    f"The Docker Engine did not end the container {self._container[:12]} in {_KILL_SECONDS:.0f} s."
                )
            self._status = self._read_status()
        if self._log is not None:
            self._log.rest()
        return self._status

    def close(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None
            if self._status is None:
                self._status = -signal.SIGKILL  # for a call that still waits for it
        log, self._log = self._log, None
        try:
            if self._container:
                self._remove()
            if log is not None and not self._container and self.printed is not None:
                log.rest()  # the engine may pass on the last lines after their answer; only the end is the end
        finally:
            if log is not None:
                log.close()

    @property
    def is_left(self) -> bool:
        """Whether `close` found the engine away, or unable to remove it: the container is still to be removed, by another `close`."""
        return bool(self._container)

    # --- what it says ---

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    @property
    def peers(self) -> Collection[str]:
        return (self._peer,)

    def log_tail(self) -> bytes:
        return self._log.tail() if self._log is not None else b""

    def forget_log(self) -> None:
        """Leave out of the next tail what was printed between two invocations."""
        if self._log is not None:
            self._log.forget()

    def between(self) -> None:
        if self._log is not None:
            self._log.drain()

    def memory_mb(self) -> float:
        if self._log is not None:
            self._log.drain()
        return self._memory.megabytes() if self._memory is not None else 0.0

    def was_out_of_memory(self) -> bool:
        return self._status == -signal.SIGKILL and self._ran_out_of_memory()

    def has_killed_for_memory(self) -> bool:
        """Whether the kernel has ended a process of it for its memory since this was asked last; it lives on."""
        return self._memory is not None and self._memory.has_killed()

    # --- within ---

    def _remove(self) -> None:
        with suppress(Unavailable):
            try:
                ownership.remove(self._engine, self._container)
            except Rejected as error:
                log.warning("The container %s is still there: %s", self._container[:12], error)
            else:
                self._container = ""

    def _move_inside(self, listener: socket.socket) -> None:
        """Have the Runtime API's socket, which listened here to have a free port, listen at the same port in there."""
        self._engine.prepare(self._container)
        pid = self._engine.client.inspect_container(self._container)["State"]["Pid"]
        host, port = listener.getsockname()
        with listen_in(pid, host, port) as inside:
            inside.setblocking(False)
            os.dup2(inside.fileno(), listener.fileno(), inheritable=False)

    def _look(self, details: Mapping[str, Any]) -> None:
        """Note its address and where its memory is counted."""
        settings, network = details["NetworkSettings"], self._spec.network
        addresses = [each["IPAddress"] for each in settings["Networks"].values() if each["IPAddress"]]
        self._peer = addresses[0] if addresses and not network.is_inside else "127.0.0.1"
        if self._spec.options.transport == "rie":
            self._address = self._emulator((settings.get("Ports") or {}).get(f"{RIE_PORT}/tcp"))
        self._memory = ContainerMemory(details["State"]["Pid"], self._container)
        if details["State"]["Running"] and not self._memory.is_counted():
            self._engine.warn_once(_UNCOUNTED)

    def _emulator(self, published: Sequence[Mapping[str, str]] | None) -> tuple[str, int]:
        """Where the emulator is called. Events go to this container and nobody else, or nowhere."""
        if published and self._engine.is_local:
            return "127.0.0.1", int(published[0]["HostPort"])
        check_is_ours(self._engine, self._spec.network, self._peer)
        return self._peer, RIE_PORT

    def _read_status(self) -> int:
        """The engine's answer to `wait`. Without an answer the engine itself has ended."""
        try:
            answer = parsed(self._end.raw.read1() or b"")
            status = int(answer["StatusCode"])
        except (ValueError, KeyError, TypeError, RecursionError, OSError, HTTPError):
            self._status = -signal.SIGKILL
            message = f"The Docker Engine at {self._engine.address} went away while a container ran. Start it again; run again."
            raise Unavailable(message) from None
        return exit_status.of_shell(status)

    def _ran_out_of_memory(self) -> bool:
        with self._engine.speaking("look at a container"):
            try:
                details = self._engine.client.inspect_container(self._container)
            except APIError as error:
                if is_gone(error):
                    return False
                raise
        return bool(details["State"]["OOMKilled"])


def _is_readable(fd: int, seconds: float = 0.0) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))

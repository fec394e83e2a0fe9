"""Streams of bytes between a plane and a relay on another machine."""

import os
import select
import socket
import struct
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress

_SEND_SECONDS = 30
_END_SECONDS = 5.0
_SAID_BYTES = 2000
_LAST_OUTPUT_SECONDS = 0.5


class Stream(ABC):
    """Both directions of a connection to a relay, which is already open. Every failure is a `ConnectionError`."""

    @abstractmethod
    def send(self, data: bytes) -> None:
        """Send all of it. Any thread may call it."""

    @abstractmethod
    def read(self, size: int, timeout: float) -> bytes:
        """Exactly this many bytes. Raises `ConnectionError` if nothing comes for `timeout` seconds, or at the end."""

    @abstractmethod
    def has_input(self) -> bool:
        """Whether `read` would find data, or the end, at once."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; a running `read` ends. Any thread may call it; a second call does nothing."""


class SocketStream(Stream):
    """A connected socket as a stream."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(True)  # `read` waits by `poll`, so that it has no effect on `send`
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        self._channel = channel
        self._sending = threading.Lock()

    def send(self, data: bytes) -> None:
        try:
            with self._sending:  # a cancel must not be sent between two parts of a batch
                self._channel.sendall(data)
        except OSError as error:
            raise self._broken(f"cannot send: {error.strerror or error}") from None

    def read(self, size: int, timeout: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                if not self._is_readable(timeout):
                    raise self._broken(f"nothing has come for {timeout:g} s")
                more = self._channel.recv(size - len(data))
            except (OSError, ValueError) as error:
                if isinstance(error, ConnectionError) and not error.errno:
                    raise
                raise self._broken(f"cannot read: {error}") from None
            if not more:
                raise self._broken("the other end has closed the connection")
            data += more
        return bytes(data)

    def has_input(self) -> bool:
        try:
            return self._is_readable(0.0)
        except ValueError:
            raise self._broken("it is closed") from None

    def close(self) -> None:
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._channel.close()

    def _is_readable(self, timeout: float) -> bool:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def _broken(self, reason: str) -> ConnectionError:
        return ConnectionError(reason)


class CommandStream(SocketStream):
    """The standard input and output of a program that starts a relay on another machine: `ssh`, `docker exec` or the like.

    `close` ends the program. Every error quotes the last part of its standard error.
    """

    def __init__(self, command: Sequence[str]) -> None:
        here, there = socket.socketpair()
        super().__init__(here)
        self._saying = threading.Lock()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._name = command[0]
        try:
            self._process = subprocess.Popen(command, stdin=there.fileno(), stdout=there.fileno(), stderr=self._said)
        except OSError as error:
            super().close()
            self._said.close()
            raise ConnectionError(f"{self._name} cannot be started: {error.strerror or error}") from None
        finally:
            there.close()

    def close(self) -> None:
        super().close()
        self._process.terminate()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._saying:
            self._said.close()

    def _broken(self, reason: str) -> ConnectionError:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_OUTPUT_SECONDS)
        with self._saying:
            if self._said.closed:  # by `close`, in another thread
                return ConnectionError(reason)
            size = os.fstat(self._said.fileno()).st_size
            last = os.pread(self._said.fileno(), _SAID_BYTES, max(0, size - _SAID_BYTES))
        said = last.decode(errors="replace").strip()
        return ConnectionError(f"{reason}; {self._name} says: {said}" if said else reason)

"""The remote end of a remote plane: an agent on another machine uses a plane that runs here.

    agent, RemoteInvoker ── Stream ──▶ Relay ──▶ plane ──▶ environments

Each connection runs one batch at a time, so the agent has one connection for each environment. `relay_frames.py` has the
frames that both ends send.
"""

import logging
import queue
import socket
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path
from typing import Any, BinaryIO

from htcgrid.planes import code_archive, relay_frames
from htcgrid.planes.relay_frames import Frame
from htcgrid.spi import (
    SPI_VERSION,
    STDOUT_OR_STDERR,
    Credentials,
    CredentialSource,
    FailureKind,
    HandlerOutput,
    Invoker,
    Lease,
    Outcome,
    Rejected,
    Unavailable,
    error_documents,
)

log = logging.getLogger("htcgrid.relay")

HEARTBEAT_SECONDS = 10.0
_HELLO_SECONDS = 10.0
_LOOK_SECONDS = 1.0
_END_SECONDS = 1.0
"""A batch that still runs so long after its client has gone is cancelled again: the plane may have begun it since."""

MakePlane = Callable[[Mapping[str, Any]], Invoker]
"""Makes the plane, without opening it, from what the client's `open` says about it."""


class Relay:
    """A plane, opened by the first client, and the number of clients.

    The client's code is unpacked into `code_folder`; None if the code comes another way. The relay ends if no client
    connects for `first_seconds` at the start, or for `orphan_seconds` later.
    """

    def __init__(
        self,
        make: MakePlane,
        code_folder: Path | None,
        *,
        token: str = "",
        first_seconds: float = 60.0,
        orphan_seconds: float = 60.0,
    ) -> None:
        self.token = token
        self.plane: Invoker | None = None
        self.credentials = _ClientCredentials()
        self.output = _Relayed()
        self._make = make
        self._code_folder = code_folder
        self._orphan_seconds = orphan_seconds
        self._alone_at_most = first_seconds
        self._lock = threading.Lock()
        self._clients = 0
        self._alone_since = time.monotonic()
        self._tasks_lock = threading.Lock()
        self._tasks: dict[str, Connection] = {}
        """The connection whose client waits for a task, by the task's id."""

    def open_plane(self, wanted: Frame) -> Invoker:
        """Unpack the code, if the client sends it, and open the plane; a second call returns the same plane."""
        if wanted.head.get("spi") != SPI_VERSION:
            raise Rejected(
                f"The relay has version {SPI_VERSION} of the plugin interface, and its client has version "
                f"{wanted.head.get('spi')}. Install the same htcgrid at both ends."
            )
        with self._lock:
            if self.plane is None:
                if self._code_folder is not None:
                    code_archive.unpack(wanted.body, self._code_folder)
                plane = self._make(wanted.head)
                plane.credentials = self.credentials
                if wanted.head.get("output"):
                    plane.output = self.output
                try:
                    plane.open()
                except BaseException:
                    plane.close()
                    raise
                self.plane = plane
            return self.plane

    def joined(self) -> None:
        with self._lock:
            self._clients += 1
            self._alone_at_most = self._orphan_seconds

    def left(self) -> None:
        with self._lock:
            self._clients -= 1
            self._alone_since = time.monotonic()

    def begin(self, connection: "Connection", task_ids: Collection[str]) -> None:
        """These tasks begin for this connection. A run of one of them for another is ended: its client has given it up."""
        with self._tasks_lock:
            again = self._tasks.keys() & task_ids
            self._tasks |= dict.fromkeys(task_ids, connection)
            if again:
                self.cancel(again)

    def finish(self, connection: "Connection", *, cancel: bool) -> None:
        """No client waits any more for the tasks of this connection; `cancel` those that still run."""
        with self._tasks_lock:
            task_ids = [task_id for task_id, other in self._tasks.items() if other is connection]
            if cancel and task_ids and self.plane is not None:
                self.cancel(task_ids)
            else:
                for task_id in task_ids:
                    del self._tasks[task_id]

    def cancel(self, task_ids: Collection[str]) -> None:
        """Stop these, which run for a client. A plane that is unavailable is asked again by the client's next cancel."""
        if self.plane is not None:
            try:
                self.plane.cancel(task_ids)
            except Unavailable as error:
                log.warning("%d tasks could not be cancelled: %s", len(task_ids), error)

    def is_orphaned(self) -> bool:
        """Whether no client has been connected for too long."""
        with self._lock:
            return not self._clients and time.monotonic() - self._alone_since > self._alone_at_most

    def listen(self, port: int) -> None:
        """Serve on this machine's loopback until no client has been connected for too long."""
        with socket.create_server(("127.0.0.1", port)) as listener:
            listener.settimeout(_LOOK_SECONDS)
            while not self.is_orphaned():
                try:
                    channel, _ = listener.accept()
                except TimeoutError:
                    continue
                threading.Thread(target=serve_socket, args=(self, channel), daemon=True).start()


class _ClientCredentials(CredentialSource):
    """The credentials that the clients send: the relay's machine cannot get any."""

    def __init__(self) -> None:
        self.held = Credentials()

    def current(self, timeout: float) -> Credentials:
        return self.held


class _Relayed(HandlerOutput):
    """Sends what handlers print to the client whose tasks the calling thread runs."""

    is_wanted = True

    def __init__(self) -> None:
        self._calling = threading.local()

    def send_by(self, send: Callable[[Frame], None]) -> None:
        """Use `send` for what handlers print in this thread from now on."""
        self._calling.send = send

    def write(self, lease: Lease | None, environment: str, text: bytes, stream: str = STDOUT_OR_STDERR) -> None:
        send = getattr(self._calling, "send", None)
        if send is not None:
            with suppress(OSError):  # the next report finds that the client has gone
                send(relay_frames.output_frame(lease, environment, text, stream))


class Connection:
    """One client's connection: it runs one batch at a time, and may cancel tasks of it."""

    def __init__(
        self, relay: Relay, reader: BinaryIO, write: Callable[[bytes], object], hang_up: Callable[[], object]
    ) -> None:
        self._relay = relay
        self._reader = reader
        self._write = write
        self._hang_up = hang_up
        self._sending = threading.Lock()
        self._wanted: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        """Tasks of the last batch that were cancelled; the plane may not have begun them yet."""
        self._has_gone = False

    def serve(self, hello_came: Callable[[], object] = lambda: None) -> None:
        """Serve until the client hangs up and its last batch has ended. Calls `hello_came` once the client is admitted."""
        worker = threading.Thread(target=self._work, daemon=True)
        try:
            if not self._is_admitted():
                return
            hello_came()
            self._relay.joined()
            worker.start()
            threading.Thread(target=self._beat, daemon=True).start()
            try:
                while True:
                    self._take(relay_frames.read_frame(self._read))
            finally:
                self._relay.left()
        except (OSError, ValueError, KeyError):
            return
        finally:
            self._has_gone = True
            self._wanted.put(None)
            self._hang_up()
            while worker.is_alive():
                self._relay.finish(self, cancel=True)
                worker.join(_END_SECONDS)

    def _is_admitted(self) -> bool:
        """Whether the client knows the token: other programs may use the same loopback."""
        hello = relay_frames.read_frame(self._read, relay_frames.HELLO_BYTES)
        return hello.say == "hello" and compare_digest(str(hello.head.get("token")), self._relay.token)

    def _take(self, frame: Frame) -> None:
        match frame.say:
            case "open":
                self._wanted.put(frame)
            case "invoke":
                self._cancelled.clear()
                self._wanted.put(frame)
            case "credentials":
                self._relay.credentials.held = relay_frames.credentials_of(frame)
            case "cancel":
                self._cancelled.update(frame.head["task_ids"])
                self._relay.cancel(frame.head["task_ids"])

    def _work(self) -> None:
        while (frame := self._wanted.get()) is not None:
            try:
                done = self._open(frame) if frame.say == "open" else self._invoke(frame)
                self._send(Frame("done", done))
            except Unavailable as error:
                head = {"message": str(error), "retry_after": error.retry_after, "begun": sorted(error.begun)}
                self._send(Frame("unavailable", head))
            except Rejected as error:
                self._send(Frame("rejected", {"message": str(error)}))
            except OSError as error:
                log.warning("The connection to a client broke: %r", error)
                self._hang_up()
            except BaseException:  # noqa: BLE001 - the client, which waits for an answer, shows the bug of the plane
                message = f"The plane behind the relay has a bug:\n{traceback.format_exc()}"
                self._send(Frame("rejected", {"message": message}))

    def _open(self, frame: Frame) -> Mapping[str, Any]:
        try:
            plane = self._relay.open_plane(frame)
        except OSError as error:  # a full disk, for example: the connection has not broken
            raise Rejected(f"The plane behind the relay cannot be opened: {error}.") from error
        return {"capabilities": sorted(plane.capabilities), "max_concurrency": plane.max_concurrency}

    def _invoke(self, frame: Frame) -> Mapping[str, Any]:
        plane = self._relay.plane
        if plane is None:
            raise Rejected("The relay was sent tasks before it was told to open its plane.")
        self._relay.output.send_by(self._send)
        leases = relay_frames.leases_of(frame)
        self._relay.begin(self, {lease.task.id for lease in leases})
        try:
            self._run(plane, [lease for lease in leases if not self._is_cancelled(lease)], frame.head["timeout"])
        finally:
            self._relay.finish(self, cancel=False)
        return {}

    def _is_cancelled(self, lease: Lease) -> bool:
        """Whether this task must not begin; then that is reported."""
        if self._has_gone:
            raise ConnectionError("the client has gone")
        if lease.task.id not in self._cancelled:
            return False
        outcome = Outcome(lease.task.id, error_documents.cancelled(), FailureKind.CANCELLED, started=time.time())
        self._send(relay_frames.report_frame(outcome))
        return True

    def _run(self, plane: Invoker, leases: list[Lease], timeout: float) -> None:
        if not leases:
            return
        reports = iter(plane.invoke(leases, timeout))
        try:
            for report in reports:
                self._send(relay_frames.report_frame(report))
        finally:
            if hasattr(reports, "close"):
                reports.close()  # ends what still runs if the client has gone

    def _beat(self) -> None:
        """Send heartbeats, so that the client can tell a dead connection from a handler that takes long."""
        with suppress(OSError):
            while True:
                time.sleep(HEARTBEAT_SECONDS)
                self._send(Frame("alive"))

    def _send(self, frame: Frame) -> None:
        with self._sending:
            self._write(bytes(frame))

    def _read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise ConnectionError("the client has gone")
        return data


def serve_socket(relay: Relay, channel: socket.socket) -> None:
    """Serve one client that has connected."""

    def hang_up() -> None:
        with suppress(OSError):
            channel.shutdown(socket.SHUT_RDWR)

    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    channel.settimeout(_HELLO_SECONDS)
    with channel, channel.makefile("rb") as reader:
        Connection(relay, reader, channel.sendall, hang_up).serve(lambda: channel.settimeout(None))

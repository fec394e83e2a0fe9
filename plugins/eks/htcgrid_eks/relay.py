"""What runs beside the Lambda containers of a pod that `eks` has made: its sidecar plane, served on the pod's loopback.

`eks` reaches it through the API server. Nothing listens beyond the pod. It ends, and the pod with it, when nobody has
been connected for a while: what a killed `eks` leaves behind goes away by itself.
"""

import argparse
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from hmac import compare_digest
from pathlib import Path
from typing import Any

from htcgrid.spi import Credentials, CredentialSource, Function, HtcgridError, Rejected, Unavailable

from htcgrid_eks import code, relay_frames
from htcgrid_eks.relay_frames import Frame
from htcgrid_eks.sandbox import Termination, Terminations
from htcgrid_eks.sidecar import EksSidecarInvoker, complain

PORT = 4275
HEARTBEAT_SECONDS = 10.0
_HELLO_SECONDS = 10.0
ASK_SECONDS = 60.0
"""Longer than a client may take: an answer that comes later would be taken for that to the next question."""
_LOOK_SECONDS = 1.0


class Relay:
    """The plane, opened by the first client that has brought the code, and the count of those connected."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.token: str = settings["token"]
        self.code_folder = Path(settings["code"]) if settings["code"] else None
        self._orphan_seconds: float = settings["orphan_seconds"]
        function = Function.model_validate(settings["function"])
        config = EksSidecarInvoker.Config.model_validate(settings["sidecar"])
        # The first client comes once all pods of its run are up, which may take the others longer.
        self._patience = config.start_seconds + self._orphan_seconds
        self.plane = _Relayed(config, function)
        self._lock = threading.Lock()
        self._is_open = False
        self._clients = 0
        self._alone_since = time.monotonic()

    def open_plane(self, archive: bytes) -> None:
        """Once: unpack the code, where it comes this way, and open the plane."""
        with self._lock:
            if self._is_open:
                return
            if self.code_folder is not None:
                code.unpack(archive, self.code_folder)
            self.plane.open()
            self._is_open = True

    def joined(self) -> None:
        with self._lock:
            self._clients += 1
            self._patience = self._orphan_seconds

    def left(self) -> None:
        with self._lock:
            self._clients -= 1
            self._alone_since = time.monotonic()

    def is_orphaned(self) -> bool:
        with self._lock:
            return not self._clients and time.monotonic() - self._alone_since > self._patience


class _Brought(CredentialSource):
    """The credentials that the clients bring: the pod itself can get none."""

    def __init__(self) -> None:
        self.held = Credentials()

    def current(self, timeout: float) -> Credentials:
        return self.held


class _Relayed(EksSidecarInvoker):
    """The sidecar plane, whose client reads the pod's status: the pod itself has no rights at all."""

    def __init__(self, config: EksSidecarInvoker.Config, function: Function) -> None:
        super().__init__(config, function)
        self.asking = _Asking()
        self.credentials = self.brought = _Brought()

    def terminations(self, index: int) -> Terminations:
        return lambda: self.asking.ask(index)


class _Asking(threading.local):
    """Each thread that invokes asks the client it invokes for."""

    ask: Callable[[int], Termination | None] = staticmethod(lambda _index: None)


class Connection:
    """One client's connection: it has one batch under way at a time, and may cancel meanwhile."""

    def __init__(self, relay: Relay, channel: socket.socket) -> None:
        self._relay = relay
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._channel = channel
        self._stream = channel.makefile("rb")
        self._sending = threading.Lock()
        self._batches: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._terminations: queue.SimpleQueue[Termination | None] = queue.SimpleQueue()

    def serve(self) -> None:
        """Until the client hangs up."""
        worker = threading.Thread(target=self._work, daemon=True)
        beat = threading.Thread(target=self._beat, daemon=True)
        try:
            if not self._is_admitted():
                return
            self._relay.joined()
            worker.start()
            beat.start()
            try:
                while True:
                    self._take(relay_frames.read_frame(self._read))
            finally:
                self._relay.left()
        except (OSError, ValueError, KeyError):
            return
        finally:
            self._batches.put(None)
            self._terminations.put(None)
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)
            if worker.ident is not None:
                worker.join()
            self._stream.close()
            self._channel.close()

    def _is_admitted(self) -> bool:
        """Other containers of the pod share the loopback, but not the token."""
        self._channel.settimeout(_HELLO_SECONDS)
        hello = relay_frames.read_frame(self._read, relay_frames.HELLO_BYTES)
        self._channel.settimeout(None)
        return hello.say == "hello" and compare_digest(str(hello.head.get("token")), self._relay.token)

    def _take(self, frame: Frame) -> None:
        match frame.say:
            case "open" | "invoke":
                self._batches.put(frame)
            case "credentials":
                self._relay.plane.brought.held = relay_frames.credentials_of(frame)
            case "cancel":
                self._relay.plane.cancel(frame.head["task_ids"])
            case "termination":
                head = frame.head
                known = Termination(head["status"], head["out_of_memory"]) if head else None
                self._terminations.put(known)

    def _work(self) -> None:
        while (frame := self._batches.get()) is not None:
            try:
                if frame.say == "open":
                    self._relay.open_plane(frame.body)
                else:
                    self._invoke(frame)
                self._send(Frame("done"))
            except Unavailable as error:
                head = {"message": str(error), "retry_after": error.retry_after, "begun": sorted(error.begun)}
                self._send(Frame("unavailable", head))
            except Rejected as error:
                self._send(Frame("rejected", {"message": str(error)}))
            except OSError as error:
                complain(f"relay: {error!r}")
                with suppress(OSError):
                    self._channel.shutdown(socket.SHUT_RDWR)

    def _invoke(self, frame: Frame) -> None:
        self._relay.plane.asking.ask = self._ask
        reports = self._relay.plane.invoke(relay_frames.leases_of(frame), frame.head["timeout"])
        try:
            for report in reports:
                self._send(relay_frames.report_frame(report))
        finally:
            reports.close()  # type: ignore[attr-defined]

    def _ask(self, index: int) -> Termination | None:
        """Have the client look into the pod's status."""
        self._send(Frame("terminated", {"container": index}))
        try:
            return self._terminations.get(timeout=ASK_SECONDS)
        except queue.Empty:
            return None

    def _beat(self) -> None:
        """Say now and then that we are here, so that a way that is dead is told from a handler that takes long."""
        with suppress(OSError):
            while True:
                time.sleep(HEARTBEAT_SECONDS)
                self._send(Frame("alive"))

    def _send(self, frame: Frame) -> None:
        with self._sending:
            self._channel.sendall(bytes(frame))

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise ConnectionError("the client has gone")
        return data


def _end(_number: int, _frame: object) -> None:
    os._exit(0)  # the first process of a container has no default of its own for SIGTERM


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=json.loads)
    relay = Relay(parser.parse_args().settings)
    signal.signal(signal.SIGTERM, _end)
    listener = socket.create_server(("127.0.0.1", PORT))
    listener.settimeout(_LOOK_SECONDS)
    while not relay.is_orphaned():
        try:
            channel, _ = listener.accept()
        except TimeoutError:
            continue
        threading.Thread(target=Connection(relay, channel).serve, daemon=True).start()
    complain("relay: nobody has been connected for a while; ending")
    relay.plane.quit()


if __name__ == "__main__":
    try:
        main()
    except HtcgridError as error:
        sys.exit(str(error))

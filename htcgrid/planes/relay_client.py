"""The client's end of a connection to a relay: a plane here uses one environment on another machine."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from htcgrid.planes import relay_frames
from htcgrid.planes.relay import HEARTBEAT_SECONDS
from htcgrid.planes.relay_frames import Frame
from htcgrid.planes.relay_streams import Stream
from htcgrid.spi import (
    SPI_VERSION,
    Credentials,
    CredentialSource,
    HandlerOutput,
    Lease,
    Outcome,
    Rejected,
    Unavailable,
    Unstarted,
)

_SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS


class RelayClient:
    """Only one thread at a time may use it; any thread may call `cancel` and `close`."""

    def __init__(self, stream: Stream, token: str, source: CredentialSource, output: HandlerOutput) -> None:
        self._stream = stream
        self._source = source
        self._output = output
        self._leases: dict[str, Lease] = {}
        """The leases of the last batch by task id: what a handler prints comes with the task's id."""
        self._sent = Credentials()
        self._send(Frame("hello", {"token": token}))

    def open(self, wanted: Mapping[str, Any], archive: bytes, timeout: float) -> Mapping[str, Any]:
        """Make the relay open its plane, with this code; returns the plane's capabilities and concurrency.

        Raises `ConnectionError`, `Unavailable` or `Rejected`.
        """
        self._send_credentials(timeout)
        self._send(Frame("open", {**wanted, "spi": SPI_VERSION, "output": self._output.is_wanted}, archive))
        for frame in self._frames():
            if frame.say == "done":
                return frame.head
        raise ConnectionError("the relay's answer does not fit the request")

    def is_alive(self) -> bool:
        """Whether the connection is still open; reads what the relay has sent since the last call."""
        try:
            while self._stream.has_input():
                self._take(self._next())
        except ConnectionError:
            return False
        return True

    def invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str] = frozenset()
    ) -> Iterator[Outcome | Unstarted]:
        """Raises `ConnectionError` if the connection broke; then tasks that were not reported may have run.

        `cancelled` are tasks that were cancelled before they are sent; later ones are cancelled with `cancel`.
        """
        done = False
        try:
            self._send_credentials(timeout)
            self._leases = {lease.task.id: lease for lease in batch}
            self._send(relay_frames.invoke_frame(batch, timeout))
            if cancelled:
                self.cancel(cancelled)
            for frame in self._frames():
                if frame.say == "done":
                    break
                yield relay_frames.report_of(frame)
            done = True
        except (Unavailable, Rejected):
            done = True
            raise
        finally:
            if not done:
                self.close()  # then the relay ends what runs

    def cancel(self, task_ids: Collection[str]) -> None:
        """Any thread may call it."""
        try:
            self._send(Frame("cancel", {"task_ids": sorted(task_ids)}))
        except ConnectionError:
            return  # the thread that reads the answer meets the same error

    def close(self) -> None:
        self._stream.close()

    def _send_credentials(self, timeout: float) -> None:
        held = self._source.current(timeout)
        if held != self._sent:
            self._send(relay_frames.credentials_frame(held))
            self._sent = held

    def _frames(self) -> Iterator[Frame]:
        """The frames up to "done". Raises the error that the relay reports."""
        while True:
            frame = self._next()
            match frame.say:
                case "outcome" | "unstarted" | "done":
                    yield frame
                case "output":
                    self._take(frame)
                case "unavailable":
                    head = frame.head
                    raise Unavailable(head["message"], head["retry_after"], head["begun"])
                case "rejected":
                    raise Rejected(frame.head["message"])

    def _take(self, frame: Frame) -> None:
        """Pass on what a handler printed. While `write` waits for its reader, the relay and the handler wait too."""
        if frame.say == "output":
            head = frame.head
            self._output.write(self._leases.get(head["task_id"]), head["environment"], frame.body, head["stream"])

    def _next(self) -> Frame:
        return relay_frames.read_frame(lambda size: self._stream.read(size, _SILENCE_SECONDS))

    def _send(self, frame: Frame) -> None:
        self._stream.send(bytes(frame))

"""One Lambda container of a pod, as `eks` uses it from outside: a connection to the relay beside it."""

from collections.abc import Callable, Collection, Iterator, Sequence

from htcgrid.spi import Credentials, CredentialSource, Lease, Outcome, Rejected, Unavailable, Unstarted

from htcgrid_eks import relay_frames
from htcgrid_eks.port_forward import PortForward
from htcgrid_eks.relay import HEARTBEAT_SECONDS
from htcgrid_eks.relay_frames import Frame
from htcgrid_eks.sandbox import Termination

_SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS
Ask = Callable[[int], Termination | None]
"""How the pod's Lambda container of that index ended."""


class RelayClient:
    """Used by one thread at a time, `cancel` and `close` excepted."""

    def __init__(self, forward: PortForward, token: str, ask: Ask, source: CredentialSource) -> None:
        self._forward = forward
        self._ask = ask
        self._source = source
        self._brought = Credentials()
        self._send(Frame("hello", {"token": token}))

    def open(self, archive: bytes) -> None:
        """Have the plane behind it opened, with this code. Raises `ConnectionError`, `Unavailable` or `Rejected`."""
        self._send(Frame("open", body=archive))
        for _ in self._reports():
            raise ConnectionError("the relay answers something else than it was asked")

    def is_alive(self) -> bool:
        """Whether the way is still open; what the relay has said meanwhile is taken in."""
        try:
            while self._forward.has_input():
                self._next()
        except ConnectionError:
            return False
        return True

    def invoke(
        self, batch: Sequence[Lease], timeout: float, cancelled: Collection[str] = frozenset()
    ) -> Iterator[Outcome | Unstarted]:
        """Raises `ConnectionError` where the way broke; then what was not reported may have run.

        What is in `cancelled` once the tasks are sent was cancelled before they were: `cancel` tells of the others.
        """
        done = False
        try:
            self._bring_credentials(timeout)
            self._send(relay_frames.invoke_frame(batch, timeout))
            if cancelled:
                self.cancel(cancelled)
            yield from self._reports()
            done = True
        except (Unavailable, Rejected):
            done = True
            raise
        finally:
            if not done:
                self.close()  # the relay ends what runs

    def cancel(self, task_ids: Collection[str]) -> None:
        """From any thread."""
        try:
            self._send(Frame("cancel", {"task_ids": sorted(task_ids)}))
        except ConnectionError:
            return  # whoever waits for the answer finds out

    def close(self) -> None:
        self._forward.close()

    def _bring_credentials(self, timeout: float) -> None:
        held = self._source.current(timeout)
        if held != self._brought:
            self._send(relay_frames.credentials_frame(held))
            self._brought = held

    def _reports(self) -> Iterator[Outcome | Unstarted]:
        while True:
            frame = self._next()
            match frame.say:
                case "outcome" | "unstarted":
                    yield relay_frames.report_of(frame)
                case "terminated":
                    self._tell(self._ask(frame.head["container"]))
                case "done":
                    return
                case "unavailable":
                    head = frame.head
                    raise Unavailable(head["message"], head["retry_after"], head["begun"])
                case "rejected":
                    raise Rejected(frame.head["message"])

    def _tell(self, ended: Termination | None) -> None:
        head = {"status": ended.status, "out_of_memory": ended.out_of_memory} if ended else {}
        self._send(Frame("termination", head))

    def _next(self) -> Frame:
        return relay_frames.read_frame(lambda size: self._forward.read(size, _SILENCE_SECONDS))

    def _send(self, frame: Frame) -> None:
        self._forward.send(bytes(frame))

"""A plane whose environments are on other machines and are used through relays there. Its author writes a launcher."""

import queue
import time
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from htcgrid.planes import code_archive
from htcgrid.planes.relay_client import RelayClient
from htcgrid.planes.relay_streams import Stream
from htcgrid.planes.unexplained import UnexplainedExit
from htcgrid.runtime.calls import Calls
from htcgrid.spi import (
    Capability,
    Function,
    HtcgridError,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Rejected,
    Unavailable,
    Unstarted,
)

_PAUSE_SECONDS = 0.1
_CONNECTING_THREADS = 16
_NOT_OPEN = "The plane is not open."


@dataclass(slots=True)
class _Place:
    """A place where one batch runs at a time, with the client of its relay while it is connected."""

    number: int
    client: RelayClient | None = None
    relay: str = ""


class RemoteInvoker(Invoker):
    """Environments on other machines; each place has its own connection to a relay.

    A subclass writes `size` and `connect`. This class handles the code, credentials, heartbeats, broken connections,
    cancels and replacement. The relay's own plane runs the handlers, and reports how they ended.
    """

    max_batch = 32
    capabilities = frozenset(Capability)
    start_seconds: float = 60.0
    """How long a relay may take to answer when the plane is opened."""
    restart_seconds: float = 2.0
    """How long it may take when a broken connection is replaced while a task waits; then `invoke` raises `Unavailable`."""
    token: str = ""
    """The first thing that is sent to a relay that listens on a port: it serves only clients that send it."""

    def __init__(self, config: Plugin.Config, function: Function) -> None:
        super().__init__(config, function)
        self._calls = Calls()
        self._archive = b""
        self._places: list[_Place] = []
        self._idle: queue.LifoQueue[_Place | None] = queue.LifoQueue()
        """It gives None while the plane is not open, to every call that waits."""
        self._idle.put(None)

    # --- what a subclass defines ---

    @abstractmethod
    def size(self) -> int:
        """How many environments there are. Called when the plane is opened."""

    @abstractmethod
    def connect(self, place: int) -> Stream:
        """A new connection to the relay that serves this place (from 0); starts the relay if it does not run yet.

        Raises `ConnectionError` if a call may succeed a moment later: then it is called again for a while.
        `Unavailable` and `Rejected` are passed on to the caller that wanted to use the place.
        """

    def wanted(self) -> Mapping[str, Any]:
        """Which plane the relay opens. By default environments on its own machine, one for each connection."""
        here = {"code", "layers", "credentials", "external_id", "session_policy", "session_tags"}
        function = self.function.model_dump(mode="json", exclude=here, exclude_defaults=True)
        return {
            "plane": "process",
            "options": {"workers": 1},
            "function": function,
            "with_layers": bool(self.function.layers),
        }

    def archive(self) -> bytes:
        """The code and its layers, which are sent to each relay. Raises `Rejected`."""
        return code_archive.pack(self.function.code, self.function.layers)

    def relays(self) -> int:
        """How many relays serve the places: place N belongs to relay N modulo `relays()`. By default each has its own."""
        return self.size()

    def relay_of(self, place: int) -> str:
        """The name of the relay that serves this place now. A connection to a relay of another name is replaced."""
        return ""

    def mend(self, place: int) -> None:
        """Called before a broken connection is replaced: start the relay again if it has ended."""

    def check(self, place: int) -> None:
        """Called while a relay does not answer yet: raise `Rejected` if it never will, `Unavailable` if it has ended."""

    def corrected(self, outcome: UnexplainedExit, place: int) -> Outcome:
        """The outcome of an environment that was ended from outside, corrected with what the plane can learn about the reason."""
        return outcome

    # --- htcgrid.spi.Invoker ---

    def open(self) -> None:
        self.credentials.current(self.function.timeout)  # if there are none, this raises, and nothing is started
        self._archive = self.archive()
        self.max_concurrency = self.size()
        self._places = [_Place(number) for number in range(self.max_concurrency)]
        self._idle = queue.LifoQueue()
        with ThreadPoolExecutor(min(_CONNECTING_THREADS, len(self._places))) as pool:
            first, rest = self._places[: self.relays()], self._places[self.relays() :]
            said = list(pool.map(self._started, first))  # these send the code
            list(pool.map(self._started, rest))
        self.capabilities &= {Capability(each) for each in said[0]["capabilities"]}
        for place in reversed(self._places):
            self._idle.put(place)

    def close(self) -> None:
        places, self._places = self._places, []
        for place in places:
            if place.client is not None:
                place.client.close()
        self._idle.put(None)
        self.credentials.close()

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome | Unstarted]:
        with self._calls.call() as cancelled:
            idle = self._idle
            place = idle.get()
            if place is None:
                idle.put(None)
                raise Unavailable(_NOT_OPEN)
            unreported = {lease.task.id: None for lease in batch}
            try:
                client = self._client_of(place)
                try:
                    for report in client.invoke(batch, timeout, cancelled):
                        unreported.pop(report.task_id, None)
                        if isinstance(report, UnexplainedExit):
                            yield self.corrected(report, place.number)
                        else:
                            yield report
                except Unavailable:
                    client.close()  # so that the relay is checked before it is used again
                    raise
            except ConnectionError as error:
                where = place.relay or f"of environment {place.number}"
                message = f"The connection to the relay {where} broke: {error}."
                raise Unavailable(message, begun=list(unreported)) from None
            finally:
                idle.put(place if self._places else None)

    def cancel(self, task_ids: Collection[str]) -> None:
        self._calls.cancel(task_ids)  # for those that have no client yet
        for place in list(self._places):
            if (client := place.client) is not None:
                client.cancel(task_ids)

    # --- clients ---

    def _client_of(self, place: _Place) -> RelayClient:
        """The client of this place, with a new connection if the last one has broken."""
        client = place.client
        if client is not None and place.relay == self.relay_of(place.number) and client.is_alive():
            return client
        if client is not None:
            client.close()
            place.client = None
        try:
            self.mend(place.number)
            self._connected(place, self.restart_seconds)
        except Rejected as error:
            raise Unavailable(str(error), retry_after=1.0) from None
        assert place.client is not None  # noqa: S101 - it was connected
        return place.client

    def _started(self, place: _Place) -> Mapping[str, Any]:
        return self._connected(place, self.start_seconds)

    def _connected(self, place: _Place, seconds: float) -> Mapping[str, Any]:
        """Connect as soon as the relay answers; returns its plane's capabilities and concurrency."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._opened(place)
            except ConnectionError as error:
                reason = str(error)
            if not self._is_open(place):
                raise Unavailable(_NOT_OPEN)
            self.check(place.number)
            if time.monotonic() > deadline:
                where = self.relay_of(place.number) or f"of environment {place.number}"
                raise Unavailable(f"The relay {where} cannot be reached: {reason}.")
            time.sleep(_PAUSE_SECONDS)

    def _opened(self, place: _Place) -> Mapping[str, Any]:
        relay = self.relay_of(place.number)
        stream = self.connect(place.number)
        try:
            client = RelayClient(stream, self.token, self.credentials, self.output)
            said = client.open(self.wanted(), self._archive, self.function.timeout)
        except (ConnectionError, HtcgridError):
            stream.close()
            raise
        place.client, place.relay = client, relay
        if not self._is_open(place):  # `close` may not have seen this client
            client.close()
            raise Unavailable(_NOT_OPEN)
        return said

    def _is_open(self, place: _Place) -> bool:
        """Whether the plane is open, and has not been opened again since this place was made."""
        return any(each is place for each in self._places[place.number : place.number + 1])

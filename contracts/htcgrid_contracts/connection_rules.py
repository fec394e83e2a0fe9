"""A plane whose service is reached over a network: connections that break, and what stands between."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from htcgrid.spi import (
    Capability,
    FailureKind,
    HtcgridError,
    Invoker,
    Lease,
    Outcome,
    Rejected,
    Throttled,
    Unavailable,
    Unstarted,
)

from htcgrid_contracts.common import eventually, not_asked
from htcgrid_contracts.invoker_helpers import InvokerHelpers, lease
from htcgrid_contracts.network_rules import FROZEN_SECONDS, through_relay
from htcgrid_contracts.tcp_relay import TcpRelay, service_address

_PAGE = b"<html><body><h1>This page is not available</h1></body></html>"
_SECONDS = 7
"""What the service asks to wait for."""
_TRIES = 8
Ended = Outcome | Unstarted | Exception


class Relayed(NamedTuple):
    """A plane that is open, and reaches its service by this relay."""

    plane: Invoker
    relay: TcpRelay


class ConnectionRules(InvokerHelpers):
    """Asked where a key of the config is an address with a port, such as http://127.0.0.1:8000, that is not encrypted."""

    def test_a_connection_that_breaks_is_no_second_execution(self, invoker: Invoker, tmp_path: Path) -> None:
        """Where the connection breaks while a handler runs, the call must not be sent again: `Unavailable` names the task in
        `begun`, and the agent counts the attempt. SDKs and HTTP libraries repeat such calls by default.
        Read: spi.Unavailable, spi.Invoker."""
        seen = self.marks(tmp_path)
        if seen is None:
            not_asked(
                "give --marks, or override `marks(folder)`: the path at which handlers see a folder of this machine"
            )
        asked = lease("sleep", seconds=1.0 * self.wait_factor, mark=f"{seen}/began")
        with self.relayed(invoker) as (plane, relay):
            self.works(plane)
            ended: list[Ended] = []

            def run() -> None:
                ended.append(_one(plane, asked))

            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            eventually((tmp_path / "began").exists, 30 * self.wait_factor, "the mark of a handler that has begun")
            relay.cut()
            thread.join(60 * self.wait_factor)
            assert ended, "`invoke` had not ended a minute after its connection broke"
            time.sleep(1.5 * self.wait_factor)  # a service may try again by itself when the handler has ended
            self._recovers(plane)
        begun = len((tmp_path / "began").read_text().split())
        assert begun == 1, f"the handler was begun {begun} times in one attempt: the call was sent again"
        self._has_begun(ended[0], asked.task.id)

    def test_an_answer_that_breaks_off_is_no_answer(self, invoker: Invoker) -> None:
        """Where the connection breaks within an answer, the task must not have a part of it as its answer: `Unavailable`
        names it in `begun`. Read: spi.Unavailable."""
        size = min(self.largest_answer or 500_000, 500_000)
        asked = lease("big", bytes=size)
        with self.relayed(invoker) as (plane, relay):
            self.works(plane)
            with relay.breaking_answers_after(size // 2):
                ended = _one(plane, asked)
            self._recovers(plane)
        if isinstance(ended, Outcome):
            got = len(ended.payload)
            assert ended.failure or got == size, (
                f"the handler answered {size} bytes, the connection broke, and {got} came as its answer"
            )
        self._has_begun(ended, asked.task.id)

    def test_a_call_that_was_not_sent_has_not_begun(self, invoker: Invoker) -> None:
        """Where the service refuses the connection, `Unavailable` must name no task in `begun`: an outage of some minutes would
        use up the attempts of tasks that never ran. Read: spi.Unavailable."""
        with self.relayed(invoker) as (plane, relay):
            self.works(plane)
            with relay.refusing():
                for _ in range(3):  # the first may find out by a connection that was kept
                    error = _one(plane, lease("echo", value=1))
            self._recovers(plane)
        assert isinstance(error, Unavailable), (
            f"the connection was refused, and `invoke` ended with {error!r}; it is Unavailable"
        )
        assert not error.begun, f"the connection was refused, and `begun` of Unavailable is {sorted(error.begun)}"

    def test_a_connection_that_was_closed_meanwhile_is_no_execution(self, invoker: Invoker) -> None:
        """A service closes connections that were not used for a while. The next call must open another one, or raise `Unavailable`
        without its task in `begun`, since nothing was sent. Read: spi.Unavailable."""
        with self.relayed(invoker) as (plane, relay):
            self.works(plane)
            relay.end_connections()
            time.sleep(0.3 * self.wait_factor)  # until the plane can know
            ended = _one(plane, lease("echo", value=1))
            self._recovers(plane)
        if not isinstance(ended, Outcome):
            what = "the connection was closed before the call"
            assert isinstance(ended, Unavailable), f"{what}, and `invoke` ended with {ended!r}; it is Unavailable"
            assert not ended.begun, f"{what}, and `begun` of Unavailable is {sorted(ended.begun)}"

    @pytest.mark.capability(Capability.CANCEL)
    def test_a_cancel_that_was_refused_is_made_again(self, invoker: Invoker) -> None:
        """Where `cancel` cannot reach the service, it may raise `Unavailable`; the agent then calls it again, and the task must be
        stopped. Read: spi.Invoker.cancel."""
        asked = lease("sleep", seconds=30 * self.wait_factor)
        with self.relayed(invoker, http=True) as (plane, relay):
            self.works(plane)

            def refused() -> None:
                with relay.refusing_more(), suppress(Unavailable):
                    plane.cancel([asked.task.id])

            outcome, _ = self.cancelled(plane, asked, refused)
        self.failed(outcome, FailureKind.CANCELLED)

    def test_a_service_that_is_frozen_is_unavailable(self, invoker: Invoker) -> None:
        """Where the service accepts a connection and answers nothing, `open` and `invoke` must raise `Unavailable` in the end, and
        name the task in `begun`. Libraries wait for ever by default. Read: spi.Unavailable, spi.Invoker.invoke."""
        timeout = self.short_timeout
        most = timeout + FROZEN_SECONDS
        asked = lease("echo", value=1)
        with self.relayed(invoker) as (plane, relay):
            self.works(plane)
            ended: list[Ended] = []
            thread = threading.Thread(target=lambda: ended.append(_one(plane, asked, timeout)), daemon=True)
            with relay.silent():
                thread.start()
                until = time.monotonic() + most
                self.opens_or_says_why(plane)
                thread.join(until - time.monotonic())
                has_ended = bool(ended)
            thread.join(10 * self.wait_factor)
            self._recovers(plane)
        assert has_ended, f"the service was silent, the timeout is {timeout:g} s, and `invoke` waited for {most:g} s"
        if not _is(ended[0], FailureKind.TIMEOUT):
            self._has_begun(ended[0], asked.task.id, "the service was silent")

    @pytest.mark.capability(Capability.METERING)
    def test_the_way_to_the_service_is_not_in_the_duration(self, invoker: Invoker) -> None:
        """`duration_ms` must be the handler's own time, as the place measured it where the handler ran: a client's clock counts
        the network and the service's queue. Read: spi.Outcome."""
        late = 0.8 * self.wait_factor
        with self.relayed(invoker) as (plane, relay):
            self.works(plane)
            with relay.delaying_answers_by(late):
                outcome = self.call(plane, "count", seconds=0.1)
            answer = self.answer(outcome)
        more = outcome.duration_ms / 1000 - (answer["ended"] - answer["began"])
        assert more < 0.7 * late, (
            f"the answer came {late:g} s late over the network, and duration_ms is {more:.1f} s more than the handler took"
        )

    @pytest.mark.parametrize("status", ["500 Internal Server Error", "502 Bad Gateway"])
    def test_the_page_of_a_proxy_is_unavailable(self, invoker: Invoker, status: str) -> None:
        """A proxy or load balancer in front of the service answers with a page of HTML while the service is away: `open` and
        `invoke` must raise `Unavailable`. `begun` names the task: it may have run. Read: spi.Unavailable."""
        with self.relayed(invoker, http=True) as (plane, relay):
            self.works(plane)
            with relay.answering(_response(status, _PAGE, "text/html")):
                second = self.again(plane)
                try:
                    self.opens_or_says_why(second)
                finally:
                    second.close()
                error = self._refusal(plane, relay)
            self._recovers(plane)
        what = f"the service answered with {status} and a page of HTML"
        assert isinstance(error, Unavailable), f"{what}, and `invoke` ended with {error!r}; it is Unavailable"
        assert error.begun, f"{what}: the task may have run, and `begun` of Unavailable names none"

    @pytest.mark.parametrize(
        ("status", "kind"), [("429 Too Many Requests", Throttled), ("503 Service Unavailable", Unavailable)]
    )
    def test_the_wait_that_a_service_asks_for_is_passed_on(
        self, invoker: Invoker, status: str, kind: type[Unavailable]
    ) -> None:
        """Where the service refuses a call and says when to come again (`Retry-After`), `retry_after` must say so: the agent
        waits that long. 429 is `Throttled`. Read: spi.Unavailable.retry_after, spi.Throttled."""
        with self.relayed(invoker, http=True) as (plane, relay):
            self.works(plane)
            with relay.answering(_response(status, b"{}", "application/json", f"Retry-After: {_SECONDS}\r\n")):
                error = self._refusal(plane, relay)
            self._recovers(plane)
        assert isinstance(error, kind), f"the service answered with {status}, and `invoke` ended with {error!r}"
        assert error.retry_after == _SECONDS, (
            f"the service answered with {status} and Retry-After: {_SECONDS}, and retry_after is {error.retry_after}"
        )

    @pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "404 Not Found"])
    def test_a_call_that_is_refused_for_good_stops_the_agent(self, invoker: Invoker, status: str) -> None:
        """Where the service refuses a call because the login is no longer valid or the function is gone, `invoke` must raise
        `Rejected`: the agent stops, and the tasks stay in the queue. Read: spi.Rejected."""
        with self.relayed(invoker, http=True) as (plane, relay):
            self.works(plane)
            with relay.answering(_response(status, b"{}", "application/json")):
                error = self._refusal(plane, relay)
        assert isinstance(error, Rejected), (
            f"the service answered with {status}, and `invoke` ended with {error!r}; it is Rejected"
        )

    # --- helpers ---

    @contextmanager
    def relayed(self, invoker: Invoker, *, http: bool = False) -> Iterator[Relayed]:
        """A plane of the same config, opened, that reaches its service by a relay."""
        found = service_address(invoker)
        if http and (found is None or not found.is_http):
            not_asked("no key of the config is the address of an HTTP service, with a port and not encrypted")
        with through_relay(invoker) as (plane, relay):
            yield Relayed(plane, relay)

    def _recovers(self, plane: Invoker) -> None:
        """Checks that the plane serves again with all its slots: an error may have taken one."""
        self.comes_back(lambda: self.works(plane), 20, "service")
        self.all_slots_run(plane, "its service was disturbed")

    def _refusal(self, plane: Invoker, relay: TcpRelay) -> Ended:  # noqa: RET503 - not_asked raises
        """What `invoke` raises for an answer of the relay; a connection that was kept is broken at the first try."""
        for _ in range(_TRIES):
            before = relay.replies
            error = _one(plane, lease("echo", value=1))
            if relay.replies > before:
                return error
            assert isinstance(error, Unavailable), (
                f"a connection that was kept has broken, and `invoke` ended with {error!r}"
            )
        not_asked("its calls do not go to the address in its config")

    @staticmethod
    def _has_begun(ended: Ended, task_id: str, what: str = "the connection broke") -> None:
        if isinstance(ended, Outcome):
            assert ended.failure is None, (
                f"{what}, and the task is reported as {ended.failure}: whether it failed is unknown"
            )
            return
        assert isinstance(ended, Unavailable), f"{what}, and `invoke` ended with {ended!r}; it is Unavailable"
        assert set(ended.begun) == {task_id}, (
            f"{what} while the task ran, and `begun` of Unavailable is {sorted(ended.begun)}: its attempt counts"
        )


def _one(plane: Invoker, asked: Lease, timeout: float | None = None) -> Ended:
    """What one call ends with: its report, or the error."""
    try:
        (report,) = plane.invoke([asked], timeout or plane.function.timeout)
    except HtcgridError as error:
        return error
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the verdict
        return error
    return report


def _is(ended: Ended, kind: FailureKind) -> bool:
    return isinstance(ended, Outcome) and ended.failure is kind


def _response(status: str, body: bytes, kind: str, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{headers}Connection: close\r\n\r\n"
    return head.encode() + body

"""For every rule about connections a plane that breaks it. Run by test_broken.py; not collected by itself."""
# ruff: noqa: N801 - a broken plugin is an attribute of its case

import http.client
import json
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import pytest
from htcgrid_contracts import contract_function
from htcgrid_contracts.connection_rules import ConnectionRules
from pydantic import Field

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import (
    Capability,
    FailureKind,
    Function,
    HtcgridError,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Rejected,
    Task,
    Throttled,
    Unavailable,
)


class Service(ThreadingHTTPServer):
    """A function service: it runs the event of each POST."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Calls)
        self.plane = ProcessInvoker(ProcessInvoker.Config(workers=2), contract_function())
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        self.plane.open()
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()
        self.plane.close()


class _Calls(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def do_POST(self) -> None:
        event = self.rfile.read(int(self.headers["Content-Length"]))
        (outcome,) = self.server.plane.invoke([Lease(Task(self.headers["Task-Id"], event))], 30)
        assert isinstance(outcome, Outcome)
        self.send_response(200)
        self.send_header("Content-Length", str(len(outcome.payload)))
        self.send_header("Duration-Ms", str(outcome.duration_ms))
        self.send_header("Failure", outcome.failure or "")
        self.end_headers()
        self.wfile.write(outcome.payload)

    def do_DELETE(self) -> None:
        self.server.plane.cancel([self.headers["Task-Id"]])
        self.send_response(204)
        self.end_headers()

    def log_message(self, *what: Any) -> None:
        pass


class Network(Invoker):
    """A good plane: each call has a connection of its own."""

    class Config(Plugin.Config):
        url: str = Field(pattern="^[^@]*$")

    config: Config
    capabilities = frozenset({Capability.METERING, Capability.CANCEL})
    max_concurrency = 2
    tries = 1
    most_seconds: float | None = 12.0  # the kit lets two handlers run for 8 s, where a machine is busy

    def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
        (lease,) = batch
        yield self.sent(lease)

    def cancel(self, task_ids: Collection[str]) -> None:
        for task_id in task_ids:
            connection = self.connection()
            try:
                connection.request("DELETE", "/", headers={"Task-Id": task_id})
                connection.getresponse().close()
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"The service cannot be reached: {error}") from None
            finally:
                connection.close()

    def connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.config.url).netloc, timeout=self.most_seconds)

    def sent(self, lease: Lease) -> Outcome:
        for left in reversed(range(self.tries)):
            connection = self.connection()
            try:
                connection.connect()
            except OSError as error:
                raise self.refused(lease, error) from None
            try:
                connection.request("POST", "/", lease.task.payload, {"Task-Id": lease.task.id})
                with connection.getresponse() as response:
                    body = self.read(response)
            except (OSError, http.client.HTTPException) as error:
                if not left:
                    raise self.lost(lease, error) from None
            else:
                return self.answered(response, body, lease)
            finally:
                connection.close()
        raise AssertionError

    def read(self, response: http.client.HTTPResponse) -> bytes:
        return response.read()

    def refused(self, lease: Lease, error: Exception) -> Exception:
        return Unavailable(f"The service refuses the connection: {error}")

    def lost(self, lease: Lease, error: Exception) -> Exception:
        return Unavailable(f"The connection broke: {error}", begun=[lease.task.id])

    def answered(self, response: http.client.HTTPResponse, body: bytes, lease: Lease) -> Outcome:
        if response.status == 200:
            failure = response.headers["Failure"]
            kind = FailureKind(failure) if failure else None
            return Outcome(lease.task.id, body, kind, duration_ms=float(response.headers["Duration-Ms"]))
        raise self.refusal(response.status, response.headers.get("Retry-After"), body, lease)

    def refusal(self, status: int, after: str | None, body: bytes, lease: Lease) -> HtcgridError:
        if status in {401, 403, 404}:
            return Rejected(f"The service answers with {status}.")
        wait = float(after) if after else None
        if status == 429:
            return Throttled("There are too many calls.", wait)
        return Unavailable(f"The service answers with {status}.", wait, begun=[lease.task.id])


class Case(ConnectionRules):
    breaks = ""
    says = ""
    broken: type[Any] = Network
    service: ClassVar[Service]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _served(cls) -> Iterator[None]:
        with Service() as cls.service:
            yield

    @pytest.fixture
    def invoker(self, function: Function) -> Invoker:
        invoker: Invoker = self.broken(self.broken.Config(url=self.service.url), function)
        return invoker

    def marks(self, folder: Path) -> str:
        return str(folder)


class TestReference(Case):
    """Holds every rule."""


class TestSendsItAgain(Case):
    breaks = "test_a_connection_that_breaks_is_no_second_execution"
    says = "the handler was begun 2 times in one attempt"

    class broken(Network):
        tries = 2


class TestCountsNoAttempt(Case):
    breaks = "test_a_connection_that_breaks_is_no_second_execution"
    says = "`begun` of Unavailable is []"

    class broken(Network):
        def lost(self, lease: Lease, error: Exception) -> Exception:
            return Unavailable(f"The connection broke: {error}")


class TestTakesWhatCame(Case):
    breaks = "test_an_answer_that_breaks_off_is_no_answer"
    says = "came as its answer"

    class broken(Network):
        def read(self, response: http.client.HTTPResponse) -> bytes:
            try:
                return response.read()
            except http.client.IncompleteRead as error:
                return error.partial


class TestPassesTheLibrarysErrorOn(Case):
    breaks = "test_an_answer_that_breaks_off_is_no_answer"
    says = "it is Unavailable"

    class broken(Network):
        def lost(self, lease: Lease, error: Exception) -> Exception:
            return error


class TestCountsWhatWasNotSent(Case):
    breaks = "test_a_call_that_was_not_sent_has_not_begun"
    says = "the connection was refused, and `begun`"

    class broken(Network):
        def refused(self, lease: Lease, error: Exception) -> Exception:
            return self.lost(lease, error)


class TestReadsErrorsAsJson(Case):
    breaks = "test_the_page_of_a_proxy_is_unavailable"
    says = "JSONDecodeError"

    class broken(Network):
        def refusal(self, status: int, after: str | None, body: bytes, lease: Lease) -> HtcgridError:
            return super().refusal(status, after, json.loads(body), lease)


class TestCountsNoAttemptForFaults(Case):
    breaks = "test_the_page_of_a_proxy_is_unavailable"
    says = "the task may have run"

    class broken(Network):
        def refusal(self, status: int, after: str | None, body: bytes, lease: Lease) -> HtcgridError:
            error = super().refusal(status, after, body, lease)
            return type(error)(str(error), error.retry_after) if isinstance(error, Unavailable) else error


class TestDoesNotReadTheWait(Case):
    breaks = "test_the_wait_that_a_service_asks_for_is_passed_on"
    says = "retry_after is None"

    class broken(Network):
        def refusal(self, status: int, after: str | None, body: bytes, lease: Lease) -> HtcgridError:
            return super().refusal(status, None, body, lease)


class TestWaitsForAFunctionThatIsGone(Case):
    breaks = "test_a_call_that_is_refused_for_good_stops_the_agent"
    says = "it is Rejected"

    class broken(Network):
        def refusal(self, status: int, after: str | None, body: bytes, lease: Lease) -> HtcgridError:
            return Unavailable(f"The service answers with {status}.")


class TestWaitsForEver(Case):
    breaks = "test_a_service_that_is_frozen_is_unavailable"
    says = "the service was silent, the timeout is"

    class broken(Network):
        most_seconds = None


class TestCountsNoAttemptForSilence(Case):
    breaks = "test_a_service_that_is_frozen_is_unavailable"
    says = "`begun` of Unavailable is []"

    class broken(Network):
        def lost(self, lease: Lease, error: Exception) -> Exception:
            return Unavailable(f"The service does not answer: {error}")


class TestUsesAConnectionThatWasClosed(Case):
    breaks = "test_a_connection_that_was_closed_meanwhile_is_no_execution"
    says = "the connection was closed before the call, and `begun` of Unavailable is"

    class broken(Network):
        def open(self) -> None:
            super().open()
            self.kept: list[http.client.HTTPConnection] = []

        def sent(self, lease: Lease) -> Outcome:
            connection = self.kept.pop() if self.kept else self.connection()
            try:
                connection.request("POST", "/", lease.task.payload, {"Task-Id": lease.task.id})
                with connection.getresponse() as response:
                    body = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                raise self.lost(lease, error) from None
            self.kept.append(connection)
            return self.answered(response, body, lease)

        def close(self) -> None:
            while self.kept:
                self.kept.pop().close()


class TestCancelsOnce(Case):
    breaks = "test_a_cancel_that_was_refused_is_made_again"
    says = "and gave no outcome, when its task was cancelled"

    class broken(Network):
        def open(self) -> None:
            super().open()
            self.cancelled: set[str] = set()

        def cancel(self, task_ids: Collection[str]) -> None:
            new = set(task_ids) - self.cancelled
            self.cancelled |= new
            super().cancel(new)


class _TakesASlot(Network):
    """Has a slot for each call that may be under way, and does not free it when a call fails as named."""

    fails = ""

    def open(self) -> None:
        super().open()
        self.slots = threading.Semaphore(self.max_concurrency)

    def sent(self, lease: Lease) -> Outcome:
        self.slots.acquire()
        outcome = super().sent(lease)
        self.slots.release()
        return outcome

    def refused(self, lease: Lease, error: Exception) -> Exception:
        self._free("refused")
        return super().refused(lease, error)

    def lost(self, lease: Lease, error: Exception) -> Exception:
        self._free("lost")
        return super().lost(lease, error)

    def refusal(self, status: int, after: str | None, body: bytes, lease: Lease) -> HtcgridError:
        self._free("refusal")
        return super().refusal(status, after, body, lease)

    def _free(self, how: str) -> None:
        if how != self.fails:
            self.slots.release()


class TestABrokenConnectionTakesASlot(Case):
    breaks = "test_a_connection_that_breaks_is_no_second_execution"
    says = "after its service was disturbed, the plane's 2 slots do not all work"
    wait_factor = 0.2

    class broken(_TakesASlot):
        fails = "lost"


class TestAnErrorOfTheServiceTakesASlot(Case):
    breaks = "test_the_page_of_a_proxy_is_unavailable"
    says = "after its service was disturbed, the plane's 2 slots do not all work"
    wait_factor = 0.2

    class broken(_TakesASlot):
        fails = "refusal"


class TestMeasuresByItsOwnClock(Case):
    breaks = "test_the_way_to_the_service_is_not_in_the_duration"
    says = "more than the handler took"

    class broken(Network):
        def invoke(self, batch: Sequence[Lease], timeout: float) -> Iterator[Outcome]:
            began = time.monotonic()
            for outcome in super().invoke(batch, timeout):
                yield replace(outcome, duration_ms=1000 * (time.monotonic() - began))

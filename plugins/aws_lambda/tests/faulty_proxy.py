"""A proxy before the fake service that does to each Invoke what it is told to: the faults of a bad network."""

import asyncio
from collections.abc import Callable
from enum import Enum, auto

from fake_lambda import refusal
from http_loop import HttpLoop, Request, Response, read_request


class Fault(Enum):
    NONE = auto()
    THROTTLE = auto()
    ERROR = auto()
    CUT_BEFORE = auto()
    """The connection ends before the service has seen the request."""
    CUT_AFTER = auto()
    """The service has run the handler; its answer never comes."""
    CUT_IN_BODY = auto()
    """The answer breaks off in the middle."""
    SLOW = auto()


class FaultyProxy(HttpLoop):
    """Passes everything to `upstream`; `choose` gives the fault of the n-th Invoke, from 0."""

    def __init__(self, upstream: str) -> None:
        self._host, _, port = upstream.removeprefix("http://").partition(":")
        self._port = int(port)
        self.choose: Callable[[int], Fault] = lambda _: Fault.NONE
        self.invokes = 0

    async def answer(self, request: Request) -> Response | None:
        if request.headers.get("x-amz-invocation-type") != "RequestResponse":
            return await self._pass_on(request)
        fault = self.choose(self.invokes)
        self.invokes += 1
        if fault is Fault.THROTTLE:
            return refusal(429, "TooManyRequestsException", "Rate Exceeded.", reason="CallerRateLimitExceeded")
        if fault is Fault.ERROR:
            return refusal(500, "ServiceException", "Internal error")
        if fault is Fault.CUT_BEFORE:
            return None
        response = await self._pass_on(request)
        if fault is Fault.SLOW:
            await asyncio.sleep(0.3)
        if fault is Fault.CUT_IN_BODY:
            return Response(response.status, response.body[:-1], {**response.headers, "Content-Length": "9999"})
        return None if fault is Fault.CUT_AFTER else response

    async def _pass_on(self, request: Request) -> Response:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=1 << 24)
        try:
            writer.write(request.raw)
            await writer.drain()
            answer = await read_request(reader)  # a status line has three words too
        finally:
            writer.close()
        assert answer is not None
        headers = {name: text for name, text in answer.headers.items() if name != "content-length"}
        return Response(int(answer.path), answer.body, headers)

"""A small AWS Lambda: its Invoke API and what `open` asks, for speed and for faults that the real one never shows.

The event says what comes back: `{"seconds": 0.1, "answer": ..., "failed": true, "log": "..."}`, and with `"held": true`
not before the test lets it. Started as a program it serves until its standard input closes, for `bench/`.
"""

import asyncio
import base64
import json
import sys
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from http_loop import HttpLoop, Request, Response

READY = {"State": "Active", "Timeout": 30, "MemorySize": 512, "Architectures": ["x86_64"]}


@dataclass(frozen=True)
class Call:
    """An invocation that was let in."""

    path: str
    query: str
    event: Any
    context: dict[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: int, code: str, message: str = "no message", **headers: str) -> Response:
    """An error as the service answers it."""
    reason = {"Reason": headers.pop("reason")} if "reason" in headers else {}
    body = json.dumps({"Message": message, "message": message, "Type": "User", **reason}).encode()
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(status, body, {"X-Amzn-ErrorType": code, **named})


class FakeLambda(HttpLoop):
    """One function. `limit` is the account's concurrency; `refusals` are answered first, one a call."""

    def __init__(self, limit: int = 1000) -> None:
        self.limit = limit
        self.in_flight = 0
        self.most_in_flight = 0
        self.throttled = 0
        self.calls: list[Call] = []
        self.probes = 0
        self._freed = asyncio.Event()
        self.refusals: deque[Response] = deque()
        self._outage: Response | None = None
        self._refused: Counter[str] = Counter()
        self.configuration: dict[str, Any] | None = dict(READY)
        self.reserved: int | None = None
        self.account: dict[str, Any] | None = {"UnreservedConcurrentExecutions": 1000}

    def refuse(self, answer: Response | None) -> Counter[str]:
        """Answer every Invoke so from now on, until it is None; returns what counts them, by path."""
        self._outage, self._refused = answer, Counter()
        return self._refused

    def release(self) -> None:
        """Of all that is held, now and later."""
        self._loop.call_soon_threadsafe(self._freed.set)

    async def answer(self, request: Request) -> Response | None:
        if request.path.endswith("/invocations"):
            return await self._invocation(request)
        if request.path.endswith("/configuration"):
            return _described(self.configuration)
        if request.path.endswith("/concurrency"):
            return _described({} if self.reserved is None else {"ReservedConcurrentExecutions": self.reserved})
        return _described(self.account and {"AccountLimit": self.account})

    async def _invocation(self, request: Request) -> Response | None:
        if self.refusals:
            return self.refusals.popleft()
        if self._outage is not None:
            self._refused[request.path] += 1
            return self._outage
        if request.headers.get("x-amz-invocation-type") == "DryRun":
            self.probes += 1
            return Response(204)
        if self.in_flight >= self.limit:
            self.throttled += 1
            return refusal(
                429, "TooManyRequestsException", "Rate Exceeded.", reason="ConcurrentInvocationLimitExceeded"
            )
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._run(request)
        finally:
            self.in_flight -= 1

    async def _run(self, request: Request) -> Response:
        event = json.loads(request.body)
        context = json.loads(base64.b64decode(request.headers["x-amz-client-context"]))
        self.calls.append(Call(request.path, request.query, event, context, request.headers))
        asked = event if isinstance(event, dict) else {}
        await asyncio.sleep(asked.get("seconds", 0))
        if asked.get("held"):
            await self._freed.wait()
        name = str(uuid4())
        log = asked.get("log", _log(name, asked.get("billed_ms", 100), asked.get("printed", "")))
        headers = {
            "x-amzn-RequestId": name,
            "X-Amz-Executed-Version": "7",
            "X-Amz-Log-Result": base64.b64encode(log.encode()[-4096:]).decode(),
        }
        if asked.get("failed"):
            headers["X-Amz-Function-Error"] = "Unhandled"
        return Response(200, json.dumps(asked.get("answer", event)).encode(), headers)


def _log(name: str, billed_ms: int, printed: str) -> str:
    return (
        f"START RequestId: {name} Version: 7\n{printed}END RequestId: {name}\n"
        f"REPORT RequestId: {name}\tDuration: {billed_ms - 0.5} ms\tBilled Duration: {billed_ms} ms\t"
        "Memory Size: 512 MB\tMax Memory Used: 81 MB\t\n"
    )


def _described(found: dict[str, Any] | None) -> Response:
    if found is None:
        return refusal(403, "AccessDeniedException", "User is not authorized to perform: lambda:Get")
    return Response(200, json.dumps(found).encode())


async def _serve() -> None:
    fake = FakeLambda(limit=10_000)
    async with await fake.listen() as server:
        sys.stdout.write(fake.url + "\n")
        sys.stdout.flush()
        await server.start_serving()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())

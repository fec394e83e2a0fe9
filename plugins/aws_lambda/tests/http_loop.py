"""A small HTTP/1.1 server on asyncio in a thread of its own, for the fake service and the faulty proxy."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Thread
from typing import Self


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    raw: bytes


@dataclass(frozen=True)
class Response:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    def raw(self) -> bytes:
        head = [f"HTTP/1.1 {self.status} X", f"Content-Length: {len(self.body)}"]
        head += [f"{name}: {text}" for name, text in self.headers.items()]
        return "\r\n".join([*head, "", ""]).encode() + self.body


async def read_request(reader: asyncio.StreamReader) -> Request | None:
    """The next request of a connection; None where the client has closed it."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = first.split(" ")
    path, _, query = target.partition("?")
    return Request(method, path, query, headers, body, head + body)


class HttpLoop:
    """Serves on a port of its own choosing while it is open. Subclasses answer; None cuts the connection."""

    url = ""

    async def answer(self, request: Request) -> Response | None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(self.listen())
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)
        self._loop.close()

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._converse, "127.0.0.1", 0, limit=1 << 24, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        return server

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await read_request(reader)) is not None:
                response = await self.answer(request)
                if response is None:
                    break
                writer.write(response.raw())
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _stop(self) -> None:
        self._server.close()
        open_connections = asyncio.all_tasks() - {asyncio.current_task()}
        for task in open_connections:
            task.cancel()
        await asyncio.gather(*open_connections, return_exceptions=True)

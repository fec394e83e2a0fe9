"""A TCP proxy that is some milliseconds away: each byte is as late as it would be, and as many pass a second as before."""

import asyncio
import threading
from typing import Self


class DelayProxy:
    """Connections to `port` go to `to` on this machine; there and back takes `seconds` longer."""

    def __init__(self, to: int, seconds: float) -> None:
        self._to = to
        self._one_way = seconds / 2
        self._loop = asyncio.new_event_loop()
        self.port = 0

    def __enter__(self) -> Self:
        ready = threading.Event()

        def run() -> None:
            self._loop.run_until_complete(self._listen())
            ready.set()
            self._loop.run_forever()

        threading.Thread(target=run, daemon=True).start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pass_on(reader, to_writer), self._pass_on(to_reader, writer))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self._loop.call_later(self._one_way, writer.write, data)
        self._loop.call_later(self._one_way, writer.close)

"""A TCP proxy that is some milliseconds away: each byte is as late as it would be, and as many pass a second as before.

python bench/delay_proxy.py PORT SECONDS

It prints the port that it listens on, passes connections on to PORT of this machine, there and back SECONDS later, and serves
until it is killed: a process of its own, so that it takes nothing of the agent's time.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def delayed(port: int, seconds: float) -> Iterator[int]:
    """The port of such a proxy, for as long as this lasts."""
    program = [sys.executable, __file__, f"{port}", f"{seconds}"]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.kill()


async def serve(port: int, seconds: float) -> None:
    loop = asyncio.get_running_loop()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            loop.call_later(seconds / 2, writer.write, data)
        loop.call_later(seconds / 2, writer.close)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pass_on(reader, to_writer), pass_on(to_reader, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))

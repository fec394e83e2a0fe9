"""Measure what `htcgrid serve` adds to a call: no-op calls through it, and the same on the plane itself.

python bench/serve.py
"""

import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Task

HANDLERS = Path(__file__).parent / "handlers"
HTCGRID = Path(sys.executable).with_name("htcgrid")
EVENT = json.dumps({"n": 1}).encode()
CALLS = 3000


def median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def on_the_plane() -> float:
    function = Function(handler="bench_handler.noop", code=HANDLERS)
    with ProcessInvoker(ProcessInvoker.Config(workers=1), function) as plane:
        return median_ms(lambda: list(plane.invoke([Lease(Task("t", EVENT))], 30)))


def through_serve() -> float:
    with tempfile.TemporaryDirectory() as folder:
        config = f'[function]\nhandler = "bench_handler.noop"\ncode = "{HANDLERS}"\n'
        (Path(folder) / "htcgrid.toml").write_text(f'{config}[planes.local]\nplugin = "process"\nworkers = 1\n')
        program = [HTCGRID, "serve", "--port", "0"]
        with subprocess.Popen(program, cwd=folder, stderr=subprocess.PIPE, text=True) as server:
            try:
                assert server.stderr
                port = re.findall(r":(\d+)$", server.stderr.readline())[0]
                connection = http.client.HTTPConnection("127.0.0.1", int(port))

                def call() -> None:
                    connection.request("POST", "/2015-03-31/functions/bench_handler/invocations", EVENT)
                    answer = connection.getresponse()
                    assert (answer.status, answer.read()) == (200, EVENT)

                return median_ms(call)
            finally:
                server.kill()


def main() -> None:
    plane, served = on_the_plane(), through_serve()
    print(f"on the plane       {plane:.3f} ms, the median of {CALLS:,} calls one after the other")
    print(f"through serve      {served:.3f} ms, one connection, the client's own time included")
    print(f"added by serve     {served - plane:.3f} ms   under 1 ms")


if __name__ == "__main__":
    main()

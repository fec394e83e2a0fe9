"""No-op invocations a second: AWS's Python client through our Runtime API against AWS's emulator, in one run.

Every side has one client and one caller that waits for each answer, but the last, which hands tasks over
ahead as the agent does. The emulator is called by a bare loop on a kept connection, the least a caller can
cost, and by our own transport. Rounds alternate, so that what else the machine does meets all; the median
counts, and on a machine that is busy with other things the ninth decile is the better guess.

    python bench/runtime_api.py [--rounds 40] [--seconds 0.25]
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Outcome, Task

HERE = Path(__file__).parent
EVENT = b'{"spot": 100.0, "strike": 95.0}'


def plane(code: Path, **config: object) -> ProcessInvoker:
    function = Function(handler="noop.handler", code=code, timeout=10)
    return ProcessInvoker(ProcessInvoker.Config(workers=1, **config), function)


def rate(call: Callable[[int], int], seconds: float) -> float:
    """Invocations a second of a call that makes some and says how many."""
    done = 0
    began = time.perf_counter()
    while (elapsed := time.perf_counter() - began) < seconds:
        done += call(done)
    return done / elapsed


def through(invoker: ProcessInvoker, batch: int) -> Callable[[int], int]:
    """Call a plane with `batch` tasks at once; those it gives back for taking long are not counted."""

    def call(done: int) -> int:
        leases = [Lease(Task(str(done + number), EVENT)) for number in range(batch)]
        outcomes = [outcome for outcome in invoker.invoke(leases, 10) if isinstance(outcome, Outcome)]
        assert all(outcome.payload == b"1" for outcome in outcomes)
        return len(outcomes)

    return call


def bare(address: tuple[str, int]) -> Callable[[int], int]:
    """Call an emulator with as little as can be."""
    channel = socket.create_connection(address)
    channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    path = "/2015-03-31/functions/function/invocations"
    request = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(EVENT)}\r\n\r\n".encode() + EVENT

    def call(_: int) -> int:
        channel.sendall(request)
        reply = channel.recv(4096)
        assert reply.endswith(b"\r\n\r\n1"), reply
        return 1

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=0.25)
    options = parser.parse_args()
    script = HERE.parent / "tests" / "parts" / "rie.py"
    rie = subprocess.run([sys.executable, script], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder)
        (code / "noop.py").write_text("def handler(event, context):\n    return 1\n")
        with plane(code, transport="http") as api, plane(code, transport="rie", rie=rie) as emulator:
            through(emulator, 1)(0)  # it is up, and its address is known
            (environment,) = emulator._all
            sides = {
                "emulator, bare caller": bare(environment._emulator.address),
                "emulator, our transport": through(emulator, 1),
                "Runtime API, one at a time": through(api, 1),
                "Runtime API, 32 handed over": through(api, 32),
            }
            for call in sides.values():
                rate(call, 0.5)
            rounds = [
                {name: rate(call, options.seconds) for name, call in sides.items()} for _ in range(options.rounds)
            ]
    columns = {name: sorted(each[name] for each in rounds) for name in sides}
    base = columns["emulator, bare caller"]
    middle, high = len(base) // 2, len(base) * 9 // 10
    print(f"{'':28}{'median':>10}{'':>9}{'9th decile':>12}")
    for name, rates in columns.items():
        ratios = [f"{rates[at]:8.0f}/s {rates[at] / base[at]:6.2f} x" for at in (middle, high)]
        print(f"{name:28}{ratios[0]} {ratios[1]}")


if __name__ == "__main__":
    main()

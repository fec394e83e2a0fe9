"""Invocations a second of one container: through our Runtime API and through AWS's emulator, in turns, same image.

    python bench/containers.py --base-image local/lambda-python:3.11

Prints the rates of each round and their ratio, and how long a first answer and a start side by side take.
"""

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.spi import Function, Lease, Outcome, Task

HANDLER = "def handler(event, context):\n    return event\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-image", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=300)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "noop.py").write_text(HANDLER)
        function = Function(handler="noop.handler", code=Path(folder), memory=256)
        compare_transports(arguments.base_image, function, arguments.rounds, arguments.calls)
        compare_starts(arguments.base_image, function, arguments.rounds)


def compare_transports(image: str, function: Function, rounds: int, calls: int) -> None:
    api, rie = plane(image, function, "http"), plane(image, function, "rie")
    with api, rie:
        rates: dict[str, list[float]] = {"http": [], "rie": []}
        for invoker in (api, rie):
            invoke(invoker, 50)
        for _ in range(rounds):
            rates["http"].append(calls / invoke(api, calls))
            rates["rie"].append(calls / invoke(rie, calls))
    ratio = statistics.median(a / r for a, r in zip(rates["http"], rates["rie"], strict=True))
    for name, figures in rates.items():
        print(
            f"{name}: {statistics.median(figures):.0f} invocations/s  ({', '.join(f'{rate:.0f}' for rate in figures)})"
        )
    print(f"ratio: {ratio:.2f}")


def compare_starts(image: str, function: Function, rounds: int) -> None:
    firsts, ones, fours = [], [], []
    for _ in range(rounds):
        began = time.monotonic()
        with plane(image, function, "http") as invoker:
            invoke(invoker, 1)
            firsts.append(time.monotonic() - began)
        ones.append(started(image, function, 1))
        fours.append(started(image, function, 4))
    print(f"first answer, from open: {statistics.median(firsts):.2f} s")
    print(
        f"one container: {statistics.median(ones):.2f} s, four side by side: {statistics.median(fours):.2f} s, ", end=""
    )
    print(f"ratio {statistics.median(four / one for four, one in zip(fours, ones, strict=True)):.2f}")


def started(image: str, function: Function, count: int) -> float:
    """Seconds until each of `count` containers has answered once."""
    with plane(image, function, "http", count) as invoker, ThreadPoolExecutor(count) as threads:
        began = time.monotonic()
        list(threads.map(lambda _: invoke(invoker, 1), range(count)))
        return time.monotonic() - began


def plane(image: str, function: Function, transport: str, workers: int = 1) -> LocalDockerInvoker:
    return LocalDockerInvoker(Options(base_image=image, transport=transport, workers=workers), function)


def invoke(invoker: LocalDockerInvoker, calls: int) -> float:
    """Seconds that so many calls take, one after the other."""
    began = time.monotonic()
    for number in range(calls):
        for report in invoker.invoke([Lease(Task(f"bench-{number}", b"{}"))], 20):
            assert isinstance(report, Outcome), report
            assert report.failure is None, report
    return time.monotonic() - began


if __name__ == "__main__":
    main()

"""How long one event takes from `Grid.map` to its answer, beside `ProcessPoolExecutor.submit().result()` in the same run.

    python bench/latency.py [--calls 300]

Embedded: the agent is in this process. On a sqlite queue it is another process of this machine; each submit and each
result is on the disk before it counts, so the row has what the disk takes beside it.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from peers import noop

from htcgrid import Grid

HERE = Path(__file__).parent
HTCGRID = Path(sys.executable).with_name("htcgrid")
EVENT = {"x": 1, "y": "abc"}
FUNCTION = {"handler": "bench_handler.noop", "code": str(HERE / "handlers")}
PLANE = {"plane": "local", "planes": {"local": {"plugin": "process", "workers": 2}}}


def timed(call, calls: int) -> list[float]:
    """Milliseconds of each call."""
    for _ in range(20):
        call()
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1000)
    return times


def p(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]


def row(what: str, times: list[float], more: str = "") -> None:
    print(
        f"{what:<46} p50 {p(times, 50):7.2f} ms   p90 {p(times, 90):7.2f}   p99 {p(times, 99):7.2f}   {more}",
        flush=True,
    )


def synced(folder: Path, calls: int) -> list[float]:
    """What one write to the disk takes here."""
    with (folder / "synced").open("wb", buffering=0) as file:

        def write() -> None:
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())

        return timed(write, calls)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=300)
    calls = parser.parse_args().calls
    ratios = []
    for _ in range(3):
        with ProcessPoolExecutor(2) as pool:
            peer = timed(lambda: pool.submit(noop, EVENT).result(), calls)
        with Grid.open(settings={"function": FUNCTION, **PLANE}) as grid:
            ours = timed(lambda: list(grid.map([EVENT])), calls)
        ratios.append(p(ours, 50) / p(peer, 50))
        row("ProcessPoolExecutor.submit().result()", peer)
        row("Grid.map of one event, embedded", ours)
    print(f"  embedded against it: {statistics.median(ratios):.2f} x (at most 2 x)", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        row("one write of 4 KiB to this disk", synced(folder, calls))
        sqlite = {"plugin": "sqlite", "path": str(folder / "grid.db")}
        settings = {"function": FUNCTION, **PLANE, "source": sqlite, "sink": sqlite}
        config = folder / "htcgrid.toml"
        config.write_text(
            f'[function]\nhandler = "{FUNCTION["handler"]}"\ncode = "{FUNCTION["code"]}"\n[planes.local]\nplugin = "process"\n'
            f'workers = 2\n[source]\nplugin = "sqlite"\npath = "{sqlite["path"]}"\n'
            f'[sink]\nplugin = "sqlite"\npath = "{sqlite["path"]}"\n'
        )
        agent = subprocess.Popen([HTCGRID, "run", "--quiet", "--config", config], stderr=subprocess.DEVNULL)
        try:
            with Grid.open(settings=settings) as grid:
                row(
                    "Grid.map of one event, sqlite, agent elsewhere",
                    timed(lambda: list(grid.map([EVENT])), calls),
                    "at most 5; p99 20",
                )
        finally:
            agent.terminate()
            agent.wait()


if __name__ == "__main__":
    main()

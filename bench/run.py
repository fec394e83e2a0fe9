"""Measure htcgrid against its peers, side by side in one run, and print every ratio.

    python bench/run.py [--quick]

Figures of one machine at one time: quote the ratios. Each row says what the project holds itself to.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import peers

ROUNDS = 3
HERE = Path(__file__).parent
HTCGRID = Path(sys.executable).with_name("htcgrid")

CONFIG = """\
[function]
handler = "bench_handler.{handler}"
code = "{code}"
[source]
plugin = "jsonl"
path = "tasks.jsonl"
[sink]
plugin = "jsonl"
path = "results.jsonl"
[planes.local]
plugin = "process"
workers = 2
"""


def job(folder: Path, handler: str, event: dict, tasks: int) -> tuple[float, dict]:
    """Seconds that `htcgrid run` takes, start-up included, and its summary."""
    (folder / "htcgrid.toml").write_text(CONFIG.format(handler=handler, code=peers.HANDLERS))
    (folder / "results.jsonl").unlink(missing_ok=True)
    with (folder / "tasks.jsonl").open("w") as file:
        file.writelines([json.dumps(event) + "\n"] * tasks)
    began = time.perf_counter()
    done = subprocess.run([HTCGRID, "run", "--quiet"], cwd=folder, check=True, stderr=subprocess.PIPE)
    return time.perf_counter() - began, json.loads(done.stderr)["summary"]


def first_answer(folder: Path) -> float:
    """Seconds from a cold start of `htcgrid invoke` to its end, the median of nine."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        subprocess.run([HTCGRID, "invoke", "{}"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def row(what: str, figure: str, held_to: str) -> None:
    print(f"{what:<58} {figure:>14}   {held_to}", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="a tenth of the calls")
    scale = 10 if options.parse_args().quick else 1
    rie = Path(
        subprocess.run(
            [sys.executable, HERE.parent / "tests/parts/rie.py"], check=True, capture_output=True, text=True
        ).stdout.strip()
    )
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name), scale, rie)


def against_peers(folder: Path, scale: int, rie: Path) -> None:
    """Rounds of all sides in turn, so that a machine whose speed wanders meets all alike; medians count."""
    tasks = 400_000 // scale
    sides: dict[str, tuple[int, Callable[[], float | None]]] = {
        "two emulators over HTTP keep-alive": (30, lambda: peers.emulators(rie, 6_000 // scale)),
        "ProcessPoolExecutor(2).submit": (8, lambda: peers.process_pool_executor(60_000 // scale)),
        "Pool(2).imap_unordered, chunks of one": (1, lambda: peers.imap_unordered(200_000 // scale)),
        "two Ray actors": (14, lambda: peers.ray_actors(20_000 // scale)),
    }
    ours: list[float] = []
    theirs: dict[str, list[float | None]] = {what: [] for what in sides}
    for _ in range(ROUNDS):
        for what, (_, rate) in sides.items():
            theirs[what].append(rate())
        seconds, _ = job(folder, "noop", peers.EVENT, tasks)
        ours.append(tasks / seconds)
    row(
        "no-op tasks/s, file to file, two workers",
        f"{statistics.median(ours):,.0f}",
        f"{tasks:,} tasks, start-up included; the median of {ROUNDS} rounds",
    )
    for what, (least, _) in sides.items():
        rates = [rate for rate in theirs[what] if rate is not None]
        if rates:
            ratio = statistics.median(our / rate for our, rate in zip(ours, rates, strict=True))
            row(f"  against {what}: {statistics.median(rates):,.0f}/s", f"{ratio:.2f} x", f"at least {least} x")
        else:
            row(f"  against {what}", "not installed", f"at least {least} x")


def measure(folder: Path, scale: int, rie: Path) -> None:
    against_peers(folder, scale, rie)
    for handler in ("spin", "sleep"):
        for ms, least in ((10, "97 %"), (1, "90 %")):
            _, summary = job(folder, handler, {"ms": ms}, 20_000 // ms // scale)
            row(f"busy share, {ms} ms handler that {handler}s", f"{summary['busy_share']:.1%}", f"at least {least}")
    _, small = job(folder, "noop", peers.EVENT, 100_000 // scale)
    _, large = job(folder, "noop", peers.EVENT, 1_000_000 // scale)
    row(f"agent's peak memory, {100_000 // scale:,} tasks", f"{small['agent_memory_mb']:.0f} MB", "")
    row(
        f"agent's peak memory, {1_000_000 // scale:,} tasks", f"{large['agent_memory_mb']:.0f} MB", "flat, under 150 MB"
    )
    row("first answer of htcgrid invoke, cold", f"{first_answer(folder):.3f} s", "under 0.5 s")


if __name__ == "__main__":
    main()

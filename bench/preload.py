"""What a heavy import costs with many workers: time and memory, beside a fork server that has the modules loaded.

    python bench/preload.py [--workers 32] [--path FOLDER]

`--path` is where pandas and scikit-learn are installed (`pip install --target FOLDER pandas scikit-learn`); without them
the module makes tables of its own. Memory is that of all processes together, each page once.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROUNDS = 3
HERE = Path(__file__).parent
HTCGRID = Path(sys.executable).with_name("htcgrid")
CONFIG = """\
[function]
handler = "heavy_handler.handler"
code = "{code}"
timeout = 5
environment = {{ PYTHONPATH = "{path}" }}
[source]
plugin = "jsonl"
path = "tasks.jsonl"
[sink]
plugin = "jsonl"
path = "results.jsonl"
[planes.local]
plugin = "process"
workers = {workers}
preload = {preload}
"""
PEER = """\
import json, multiprocessing
def call(event):
    import heavy_handler  # loaded already, before the fork
    return heavy_handler.handler(event, None)
if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["heavy_handler"])
    with context.Pool({workers}) as pool, open("tasks.jsonl") as tasks, open("results.jsonl", "w") as results:
        for answer in pool.imap_unordered(call, map(json.loads, tasks)):
            results.write(json.dumps(answer) + "\\n")
            results.flush()
"""


def measured(command: list, folder: Path, environment: dict) -> tuple[float, float, float]:
    """Seconds to the first result and to the end, and the most memory in MiB."""
    results = folder / "results.jsonl"
    results.unlink(missing_ok=True)
    began = time.perf_counter()
    program = subprocess.Popen(command, cwd=folder, env=os.environ | environment, stderr=subprocess.PIPE)
    first, peak, sampled = 0.0, 0.0, 0.0
    while program.poll() is None:
        if not first and results.exists() and results.stat().st_size:
            first = time.perf_counter() - began
        if time.perf_counter() - sampled > 0.3:
            sampled = time.perf_counter()
            peak = max(peak, sum(map(share_mb, family(program.pid))))
        time.sleep(0.01)
    _, errors = program.communicate()
    if program.returncode:
        raise SystemExit(f"{command} failed: {errors.decode()[-2000:]}")
    return first, time.perf_counter() - began, peak


def family(pid: int) -> list[int]:
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [pid, *(each for child in children for each in family(int(child)))]
    return []


def share_mb(pid: int) -> float:
    with suppress(OSError):
        found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        return int(found[1]) / 1024 if found else 0.0
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--path", type=Path, default=Path())
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    path = options.path.resolve()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tasks.jsonl").write_text('{"ms": 500}\n' * 4 * options.workers)
        (folder / "peer.py").write_text(PEER.format(workers=options.workers))
        for preload in ("true", "false"):
            (folder / f"{preload}.toml").write_text(
                CONFIG.format(code=HERE / "handlers", path=path, workers=options.workers, preload=preload)
            )
        code = {"PYTHONPATH": f"{HERE / 'handlers'}:{path}"}
        sides = {
            "a fork server with the module loaded": ([sys.executable, "peer.py"], code),
            "preload = true": ([HTCGRID, "run", "--quiet", "--config", "true.toml"], {}),
            "preload = false": ([HTCGRID, "run", "--quiet", "--config", "false.toml"], {}),
        }
        figures: dict[str, list[tuple[float, float, float]]] = {what: [] for what in sides}
        for _ in range(options.rounds):
            for what, (command, environment) in sides.items():
                figures[what].append(measured(command, folder, environment))
    peer, *_ = figures.values()
    for what, rounds in figures.items():
        first, end, memory = (statistics.median(column) for column in zip(*rounds, strict=True))
        times, mega = (
            statistics.median(our[n] / their[n] for our, their in zip(rounds, peer, strict=True)) for n in (1, 2)
        )
        print(f"{what:<40} first {first:6.1f} s   end {end:6.1f} s ({times:.2f} x)   {memory:6.0f} MiB ({mega:.2f} x)")
    print(f"{options.workers} workers; preload = true is held to 1.3 x the time and the memory of the first row")


if __name__ == "__main__":
    main()

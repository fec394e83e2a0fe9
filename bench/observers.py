"""What observers cost: tasks a second of the real program with none, with one that does nothing, and with Prometheus.

Side by side in one run, in turns, since a machine is not equally quick all the time. The processor's time is that of the
agent and its workers, which depends less on what else runs.

python bench/observers.py [rounds] [tasks]
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROUNDS, TASKS = 7, 150_000
HANDLERS = Path(__file__).with_name("handlers")
PORT = 19464

IDLE = """
from htcgrid.spi import Observer
class Idle(Observer):
    def observe(self, observations):
        pass
"""

CONFIG = f"""
[function]
handler = "bench_handler.noop"
code = "{HANDLERS}"
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

SIDES = {
    "no observer": (),
    "an observer that does nothing": ("--set", 'observers.idle.plugin="idle"'),
    "prometheus, scraped each second": ("--set", f'observers.prometheus.address="127.0.0.1:{PORT}"'),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", nargs="?", type=int, default=ROUNDS)
    parser.add_argument("tasks", nargs="?", type=int, default=TASKS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "htcgrid.toml").write_text(CONFIG)
        (folder / "tasks.jsonl").write_text("".join(f'{{"n": {number}}}\n' for number in range(given.tasks)))
        site = install_idle(folder)
        scraped = scraping()
        found: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
        for turn in range(given.rounds):
            for side in sorted(SIDES, key=lambda side, turn=turn: hash((side, turn))):
                found[side].append(run(folder, site, SIDES[side]))
    base = found["no observer"]
    print(
        f"{given.tasks:,} tasks that do nothing, jsonl to jsonl; medians of {given.rounds} rounds; {len(scraped)} scrapes"
    )
    for side, values in found.items():
        rate = statistics.median(value[0] for value in values)
        ratio = statistics.median(value[0] / none[0] for value, none in zip(values, base, strict=True))
        processor = statistics.median(value[1] for value in values) / given.tasks * 1e6
        more = statistics.median(value[1] - none[1] for value, none in zip(values, base, strict=True))
        print(
            f"{side:<34}{rate:>10,.0f}/s  {ratio:.2f} x (at least 0.90 x)  {processor:5.1f} us of processor a task, "
            f"{more / given.tasks * 1e6:+.2f} us"
        )


def run(folder: Path, site: Path, arguments: tuple[str, ...]) -> tuple[float, float]:
    """Tasks a second, and the seconds of the processor."""
    for old in folder.glob("results.jsonl*"):
        old.unlink()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "htcgrid", "run", "--quiet", *arguments]
    env = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert "dropped" not in done.stderr, done.stderr
    [summary] = [json.loads(line)["summary"] for line in done.stderr.splitlines() if line.startswith('{"summary"')]
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return summary["tasks_per_second"], used


def install_idle(folder: Path) -> Path:
    site = folder / "site"
    info = site / "idle_observer-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: idle-observer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[htcgrid.observer]\nidle = idle_observer:Idle\n")
    (site / "idle_observer.py").write_text(IDLE)
    return site


def scraping() -> list[int]:
    """Read the metrics once a second, where there are any; returns the lengths as they come."""
    lengths: list[int] = []

    def scrape() -> None:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as answer:
                    lengths.append(len(answer.read()))
            except OSError:
                pass  # a run without Prometheus
            time.sleep(1)

    threading.Thread(target=scrape, daemon=True).start()
    return lengths


if __name__ == "__main__":
    main()

"""Peak memory of the agent and of the commands, for payloads of several sizes in and out.

python bench/memory.py [--quick] [run] [slow] [results] [map]
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

HTCGRID = Path(sys.executable).with_name("htcgrid")
HANDLERS = Path(__file__).with_name("handlers")
LIMIT = "under 200 MB"

CONFIG = """\
[function]
handler = "bench_handler.noop"
code = "{code}"
[source]
plugin = "{plugin}"
path = "{tasks}"
[sink]
plugin = "{plugin}"
path = "{results}"
[planes.local]
plugin = "process"
workers = 2
"""

SLOW = """\
import json, sys, threading, time
from htcgrid.agent.agent import Agent
from htcgrid.builtin.jsonl_source import JsonlSource
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, ResultSink
from pathlib import Path

class Slow(ResultSink):
    max_batch = 10_000
    def put(self, results):
        time.sleep(float(sys.argv[2]))

function = Function(handler="bench_handler.noop", code=Path(sys.argv[1]))
source = JsonlSource(JsonlSource.Config(path=Path("tasks.jsonl")), function)
with source, ProcessInvoker(ProcessInvoker.Config(workers=2), function) as plane, Slow(Slow.Config(), function) as sink:
    agent = Agent(source, plane, sink)
    threading.Timer(float(sys.argv[3]), lambda: agent.drain(60)).start()
    agent.run()
"""

MAP = """\
import sys
from htcgrid import Grid
count = int(sys.argv[2])
settings = {"function": {"handler": "bench_handler.noop", "code": sys.argv[1]}}
with Grid.open(settings=settings) as grid:
    assert sum(1 for _ in grid.map({"n": n} for n in range(count))) == count
"""


def row(what: str, figure: str, held_to: str = "") -> None:
    print(f"{what:<66} {figure:>14}   {held_to}", flush=True)


def peak_mb(command: Sequence[str | Path], folder: Path) -> float:
    """The most memory that this command itself has had, without its workers."""
    program = (
        "import os, sys; pid = os.spawnvp(os.P_NOWAIT, sys.argv[1], sys.argv[1:]); _, status, used = os.wait4(pid, 0)\n"
        "print(used.ru_maxrss, file=sys.stderr); sys.exit(status != 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command],
        cwd=folder,
        check=False,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stderr.splitlines()[-1]) / 1024


def events(file: Path, tasks: int, size: int) -> None:
    with file.open("w") as lines:
        lines.writelines(json.dumps({"x": "y" * size}) + "\n" for _ in range(tasks))


def config(folder: Path, plugin: str) -> None:
    names = {"jsonl": ("tasks.jsonl", "results.jsonl"), "sqlite": ("queue.db", "results.db")}[plugin]
    text = CONFIG.format(code=HANDLERS, plugin=plugin, tasks=names[0], results=names[1])
    (folder / "htcgrid.toml").write_text(text)


def run(plugin: str, tasks: int, size: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events(folder / "tasks.jsonl", tasks, size)
        config(folder, plugin)
        drain: list[str] = []
        if plugin == "sqlite":
            submitting = peak_mb([HTCGRID, "submit", "tasks.jsonl"], folder)
            row(f"submit, {tasks:,} of {size // 1000:,} KB", f"{submitting:.0f} MB", LIMIT)
            drain = ["--set", "source.drain=true"]
        row(
            f"{plugin}: agent, {tasks:,} of {size // 1000:,} KB in and out",
            f"{peak_mb([HTCGRID, 'run', '--quiet', *drain], folder):.0f} MB",
            LIMIT,
        )
        if plugin == "sqlite":
            reading = peak_mb([HTCGRID, "results"], folder)
            row(f"results, {tasks:,} of {size // 1000:,} KB", f"{reading:.0f} MB", LIMIT)


def slow(tasks: int, size: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        events(folder / "tasks.jsonl", tasks, size)
        (folder / "slow.py").write_text(SLOW)
        peak = peak_mb([sys.executable, "slow.py", HANDLERS, f"{seconds}", f"{seconds * 3}"], folder)
        row(f"agent, a sink of {seconds:g} s for each put, {tasks:,} of {size // 1000} KB", f"{peak:.0f} MB", LIMIT)


def grid_map(count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "map.py").write_text(MAP)
        peak = peak_mb([sys.executable, "map.py", HANDLERS, f"{count}"], Path(name))
        row(f"Grid.map over a generator of {count:,} events", f"{peak:.0f} MB", LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["run", "slow", "map"])
    parser.add_argument("--quick", action="store_true", help="a tenth of the tasks")
    options = parser.parse_args()
    scale = 10 if options.quick else 1
    if "run" in options.what:
        for plugin in ("jsonl", "sqlite"):
            run(plugin, 5_000 // scale, 100_000)
            run(plugin, 500 // scale, 1_000_000)
        run("sqlite", 250 // scale, 2_000_000)
    if "slow" in options.what:
        slow(2_000 // scale, 500_000, 5.0 / scale)
    if "map" in options.what:
        grid_map(1_000_000 // scale)


if __name__ == "__main__":
    main()

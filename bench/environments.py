"""What many environments cost: the processor's time while they sleep, and how busy they are with short sleeps.

python bench/environments.py [sleeping] [busy]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime
from pathlib import Path

from htcgrid.agent.agent import Agent
from htcgrid.agent.options import AgentOptions
from htcgrid.builtin.jsonl_sink import JsonlSink
from htcgrid.builtin.jsonl_source import JsonlSource
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function

HANDLERS = Path(__file__).with_name("handlers")
HTCGRID = Path(sys.executable).with_name("htcgrid")
CONFIG = """
[function]
handler = "bench_handler.sleep"
code = "{code}"
timeout = 600
[source]
plugin = "jsonl"
path = "tasks.jsonl"
[sink]
plugin = "jsonl"
path = "results.jsonl"
[planes.local]
plugin = "process"
workers = {workers}
"""


def row(what: str, figure: str, held_to: str = "") -> None:
    print(f"{what:<66} {figure:>14}   {held_to}", flush=True)


def agent_of(folder: Path, workers: int, tasks: int, ms: float) -> tuple[Agent, list]:
    (folder / "tasks.jsonl").write_text((json.dumps({"ms": ms}) + "\n") * tasks)
    function = Function(handler="bench_handler.sleep", code=HANDLERS, timeout=600)
    source = JsonlSource(JsonlSource.Config(path=folder / "tasks.jsonl"), function)
    sink = JsonlSink(JsonlSink.Config(path=folder / "results.jsonl"), function)
    plane = ProcessInvoker(ProcessInvoker.Config(workers=workers), function)
    for plugin in (source, sink, plane):
        plugin.open()
    return Agent(source, plane, sink, AgentOptions()), [plane, sink, source]


def sleeping(workers: int, seconds: float) -> None:
    """The processor's time of the agent's process while each environment runs one long task."""
    with tempfile.TemporaryDirectory() as name:
        agent, plugins = agent_of(Path(name), workers, workers, 50_000)
        thread = threading.Thread(target=agent.run)
        thread.start()
        while agent._invoker.busy() < workers:
            time.sleep(0.1)
        time.sleep(5 + workers / 40)  # all are initialised
        used, began = time.process_time(), time.monotonic()
        time.sleep(seconds)
        share = (time.process_time() - used) / (time.monotonic() - began)
        row(f"{workers} sleeping environments, share of a core", f"{share:.1%}", "under 2 %")
        thread.join()
        for plugin in plugins:
            plugin.close()


def busy(workers: int, ms: float, least: str) -> None:
    settled, whole = share(workers, ms, max(4, round(8000 / ms)))
    what = f"busy share, {workers} environments, sleeps of {ms:g} ms"
    row(what, f"{settled:.1%}", f"{least}; {whole:.1%} with their start")


def share(workers: int, ms: float, rounds: int) -> tuple[float, float]:
    """The share of time in which the environments of `htcgrid run` run a handler: from the first task that each was given, and
    from the start of the run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tasks.jsonl").write_text((json.dumps({"ms": ms}) + "\n") * workers * rounds)
        (folder / "htcgrid.toml").write_text(CONFIG.format(code=HANDLERS, workers=workers))
        done = subprocess.run([HTCGRID, "run", "--quiet"], cwd=folder, capture_output=True, text=True, check=True)
        summary = json.loads(done.stderr.splitlines()[-1])["summary"]
        return settled_share(folder / "results.jsonl"), summary["busy_share"]


def settled_share(results: Path) -> float:
    """The busy share from when every environment has begun its first task until one of them has begun its last: the start
    of the environments is left out, as it is for the Pool."""
    runs: dict[int, list[tuple[float, float]]] = {}
    for line in results.read_text().splitlines():
        result = json.loads(line)
        began = datetime.fromisoformat(result["started"]).timestamp()
        runs.setdefault(result["output"], []).append((began, result["duration_ms"] / 1000))
    start = max(min(some)[0] for some in runs.values())
    end = min(max(some)[0] for some in runs.values())
    busy = sum(max(0.0, min(began + took, end) - max(began, start)) for some in runs.values() for began, took in some)
    return busy / (end - start) / len(runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["sleeping", "busy"])
    options = parser.parse_args()
    if "sleeping" in options.what:
        sleeping(512, 8)
    if "busy" in options.what:
        busy(2, 1000, "at least 99.5 %")
        busy(64, 10, "at least 95 %")
        busy(256, 100, "at least 97 %")
        busy(512, 1000, "at least 98 %")


if __name__ == "__main__":
    main()

"""What handler logs cost: tasks a second, and the processors' time for a task, with a printed line for each and without.

python bench/handler_logs.py [tasks] [pairs]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HANDLER = """\
def silent(event, context):
    return None

def prints(event, context):
    print("the quick brown fox jumps over the lazy dog")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", type=int, nargs="?", default=150_000)
    parser.add_argument("pairs", type=int, nargs="?", default=5)
    arguments = parser.parse_args()
    for handler in ("silent", "prints"):
        rates, costs = [], []
        for _ in range(arguments.pairs):
            off, on = run(handler, arguments.tasks), run(handler, arguments.tasks, "--logs", "lines")
            rates.append(on[0] / off[0])
            costs.append(off[1] / on[1])
            print(
                f"{handler}: {off[0]:,.0f} tasks/s without, {on[0]:,.0f} with; {off[1]:.1f} and {on[1]:.1f} us a task"
            )
        rate, cost = statistics.median(rates), statistics.median(costs)
        print(
            f"{handler}: with logs {rate:.0%} of the rate, {cost:.0%} by the processors' time   over 90 % where it prints"
        )


def run(handler: str, tasks: int, *options: str) -> tuple[float, float]:
    """Tasks a second, and microseconds of processors a task, of a whole run with two workers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "job.py").write_text(HANDLER)
        (folder / "tasks.jsonl").write_text("".join(f'{{"x": {number}}}\n' for number in range(tasks)))
        (folder / "htcgrid.toml").write_text(
            f'[function]\nhandler = "job.{handler}"\n[source]\nplugin = "jsonl"\npath = "tasks.jsonl"\n'
            '[sink]\nplugin = "jsonl"\npath = "results.jsonl"\n[planes.local]\nplugin = "process"\nworkers = 2\n'
        )
        used, began = processors(), time.monotonic()
        command = [sys.executable, "-m", "htcgrid", "run", "--quiet", *options]
        done = subprocess.run(command, cwd=folder, stderr=subprocess.PIPE, text=True, check=True)
        seconds, used = time.monotonic() - began, processors() - used
        assert json.loads(done.stderr.splitlines()[-1])["summary"]["succeeded"] == tasks
        lines = sum(1 for file in folder.glob("lines/*") for _ in file.open("rb"))
        assert lines == (tasks if options and handler == "prints" else 0)
        return tasks / seconds, used / tasks * 1e6


def processors() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


if __name__ == "__main__":
    main()

"""A real Prometheus server scrapes a real run: its counters are the summary, and each query of the dashboard has data."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from program_end import output_at_end

DASHBOARDS = Path(__file__).parents[3] / "dashboards"
TASKS = 20_000
LONG = 90.0

pytestmark = [
    pytest.mark.skipif(
        not shutil.which("prometheus"), reason="Prometheus is not installed: apt-get install prometheus"
    ),
    pytest.mark.timeout(240),
]

HANDLER = """
import os, time

def handler(event, context):
    if event["do"] == "exit":
        os._exit(3)
    if event["do"] == "raise":
        raise ValueError("no")
    if event["do"] == "hang":
        time.sleep(60)
    if event["do"] == "fill":
        filled = [b"1" * (1 << 20) for _ in range(512)]
    time.sleep(0.0005)  # several scrapes long, all together
    return event
"""

ODD = {7: "exit", 4_000: "hang", 8_000: "raise", 9_000: "raise", 12_000: "fill", 16_000: "hang"}

CONFIG = """
[function]
handler = "job.handler"
timeout = 1
memory = 128

[source]
plugin = "sqlite"
path = "queue.db"

[sink]
plugin = "sqlite"
path = "results.db"

[planes.local]
plugin = "process"
workers = 2

[observers.prometheus]
address = "127.0.0.1:{port}"
queue_seconds = 1
"""

SCRAPE = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: htcgrid
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


class Server:
    """A Prometheus server on this machine's loopback."""

    def __init__(self, folder: Path, scraped_port: int) -> None:
        self._address = f"127.0.0.1:{free_port()}"
        config = folder / "prometheus.yml"
        config.write_text(SCRAPE.format(port=scraped_port, rules=DASHBOARDS / "alerts.yaml"))
        command = [
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self._address}",
            "--log.level=error",
        ]
        self.program = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def now(self, query: str) -> dict[str, float]:
        """The values of a query, by the values of its labels."""
        return {
            " ".join(v for k, v in sorted(each["metric"].items()) if k not in {"__name__", "instance", "job"}): float(
                each["value"][1]
            )
            for each in self._asked("query", query=query)
        }

    def over_time(self, query: str) -> list[float]:
        """All values of the last minutes."""
        now = self.now("vector(time())")[""]  # by its own clock
        found = self._asked("query_range", query=query, start=now - 300, end=now, step=1)
        return [float(value) for each in found for _, value in each["values"]]

    def without_data(self, queries: Sequence[str]) -> list[str]:
        """Those of these queries that give no number at any time."""
        return [query for query in queries if not any(math.isfinite(value) for value in self.over_time(query))]

    def alerts_are_loaded(self) -> bool:
        with urllib.request.urlopen(f"http://{self._address}/api/v1/rules") as answer:
            return bool(json.load(answer)["data"]["groups"])

    def _asked(self, kind: str, **parameters: Any) -> list[Mapping[str, Any]]:
        url = f"http://{self._address}/api/v1/{kind}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found: list[Mapping[str, Any]] = json.load(answer)["data"]["result"]
        return found


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LONG
    while True:
        try:
            if condition():
                return
        except OSError:
            pass  # the server is not up yet
        assert time.monotonic() < end, what
        time.sleep(0.3)


@pytest.fixture
def project(tmp_path: Path) -> tuple[Path, int]:
    port = free_port()
    (tmp_path / "job.py").write_text(HANDLER)
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(port=port))
    lines = [json.dumps({"do": ODD.get(number, "")}) for number in range(TASKS)]
    (tmp_path / "events.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path, port


def htcgrid(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "htcgrid", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def dashboard_queries() -> list[str]:
    panels = json.loads((DASHBOARDS / "grafana.json").read_text())["panels"]
    return [target["expr"].replace("$__rate_interval", "30s") for panel in panels for target in panel["targets"]]


def test_the_counters_in_prometheus_equal_the_summary_and_every_query_of_the_dashboard_has_data(
    project: tuple[Path, int],
) -> None:
    folder, port = project
    submit = htcgrid(folder, "submit", "events.jsonl")
    output_at_end(submit, seconds=LONG)
    assert submit.returncode == 0
    server = Server(folder, port)
    run = htcgrid(folder, "run", "--quiet")
    try:
        until(lambda: sum(server.now("htcgrid_tasks_total").values()) == TASKS, "all tasks are in Prometheus")
        until(lambda: server.now("htcgrid_leases_held") == {"": 0}, "nothing is held any more")
        tasks, retries = server.now("htcgrid_tasks_total"), server.now("htcgrid_retries_total")
        attempts = server.now("htcgrid_attempts_total")
        billed = server.now("htcgrid_task_billed_seconds_sum")[""]
        most_memory = server.now("htcgrid_task_memory_bytes_bucket")
        queries = dashboard_queries()
        until(lambda: not server.without_data(queries[-1:]), "the last query has data")
        assert server.without_data(queries) == []
        assert server.alerts_are_loaded()
        run.send_signal(signal.SIGTERM)
        _, err = output_at_end(run, seconds=LONG)
    finally:
        server.program.kill()
        server.program.wait()
        run.kill()
        run.wait()
    [line] = [line for line in err.splitlines() if line.startswith('{"summary"')]
    summary = json.loads(line)["summary"]
    assert "dropped" not in err
    assert tasks.pop("succeeded") == summary["succeeded"] == TASKS - len(ODD)
    assert {kind: number for kind, number in tasks.items() if number} == summary["failures"]
    assert summary["failures"] == {"exit": 1, "handler_error": 2, "out_of_memory": 1, "timeout": 2}
    assert sum(retries.values()) == summary["retried"]
    # Two of the exit and one of the memory, but for those whose task was returned before: that counts as an attempt too.
    assert 1 <= summary["retried"] <= 3
    assert sum(attempts.values()) == TASKS + summary["retried"]
    assert round(billed * 1000) == summary["billed_ms"]
    assert most_memory["+Inf"] == TASKS

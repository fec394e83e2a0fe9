"""`htcgrid run --dashboard`: the figures of the summary, for whoever has the token, and for nobody else."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from htcgrid_contracts.observer_rules import KitFigures
from program_end import output_at_end

from htcgrid.report.live import Live
from htcgrid.service.page_api import served_page
from htcgrid.spi import (
    AgentStarted,
    EnvironmentEnded,
    EnvironmentStarted,
    FailureKind,
    Function,
    Lease,
    Outcome,
    PluginUnavailable,
    QueueStats,
    Result,
    Retried,
    States,
    Stored,
    Task,
    Unavailable,
)

HTCGRID = Path(sys.executable).with_name("htcgrid")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HANDLER = """
import os
import time

def handler(event, context):
    if event == "wait":
        while not os.path.exists("RELEASE"):
            time.sleep(0.02)
    if event == "bad":
        raise ValueError("no price for it")
    return event
"""


class Figures(KitFigures):
    def __init__(self, queue: QueueStats | None = None) -> None:
        self._queue = queue

    def queue(self) -> QueueStats:
        if self._queue is None:
            raise Unavailable("the queue is away")
        return self._queue


def tiles(page: str) -> Mapping[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", page))


def asked(address: str, method: str = "GET", **headers: str) -> tuple[int, http.client.HTTPMessage, str]:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection("127.0.0.1", parts.port or 0, timeout=20)
    connection.request(method, parts.path, headers={name.replace("_", "-"): text for name, text in headers.items()})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, answer.headers, text


@pytest.fixture
def address() -> Iterator[str]:
    with served_page(lambda: "<p>figures</p>", print) as found:
        yield found


def test_a_run_shows_the_figures_of_its_summary(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(HANDLER.replace("RELEASE", str(tmp_path / "release")))
    events = ["good"] * 30 + ["bad"] * 5 + ["wait"]
    (tmp_path / "tasks.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    (tmp_path / "htcgrid.toml").write_text("""
[function]
handler = "work.handler"
[planes.local]
plugin = "process"
workers = 2
[source]
plugin = "jsonl"
path = "tasks.jsonl"
[sink]
plugin = "jsonl"
path = "results.jsonl"
""")
    command: list[str | Path] = [HTCGRID, "run", "--dashboard", "--quiet"]
    process = subprocess.Popen(command, cwd=tmp_path, text=True, stderr=subprocess.PIPE)
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", line)
    assert found is not None, line
    deadline = time.monotonic() + 30
    while tiles(page := asked(found[0])[2]).get("Succeeded") != "30" or tiles(page)["Failed"] != "5":
        assert time.monotonic() < deadline, page
        time.sleep(0.1)
    seen = tiles(page)
    assert seen["State"] == "running"
    assert seen["Slots busy"] == "1 of 2"
    assert "no price for it" in page
    (tmp_path / "release").touch()
    _, rest = output_at_end(process, seconds=30)
    summary = json.loads(rest.splitlines()[-1])["summary"]
    assert (summary["succeeded"], summary["failed"]) == (31, 5)
    assert found[0] not in rest


def test_now_says_what_is_busy_held_and_waiting() -> None:
    live = Live(Function(handler="a.b"), "results.db")
    lease = Lease(Task("t", b"1"))
    good, bad = Outcome("t", b"1", started=time.time(), duration_ms=5.0), Outcome("u", b"{}", FailureKind.TIMEOUT)
    now = time.time()
    queue = Figures(QueueStats(States(waiting=1234, leased=7), oldest_seconds=90.0))
    live.observe(
        [
            AgentStarted(now, 4, queue),
            *(EnvironmentStarted(now, name) for name in ("e1", "e2", "e3")),
            EnvironmentEnded(now, "e3"),
            Retried(now, [lease], bad, 0.1),
            Stored(now, [Result(Task("t", b"1"), good), Result(Task("u", b"1"), bad)], 0.1),
        ]
    )
    live.dropped = 3
    deadline = time.monotonic() + 20
    while "Queue: waiting" not in tiles(live.page()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    seen = tiles(live.page())
    assert (seen["Environments"], seen["Environments started"]) == ("1 busy, 1 idle", "3")
    assert (seen["Slots busy"], seen["Tasks held"], seen["Tried again"]) == ("1 of 4", "3", "1")
    assert (seen["Queue: waiting"], seen["Queue: leased"], seen["Oldest waits"]) == ("1,234", "7", "90 s")
    assert (seen["Succeeded"], seen["Failed"]) == ("1", "1")
    assert "3 tasks&#x27; observations were dropped" in live.page()


@pytest.mark.parametrize(("started", "is_away"), [(90.0, True), (110.0, False)])
def test_the_plane_is_unavailable_until_a_task_that_began_later_has_answered(started: float, is_away: bool) -> None:
    """The slot that was refused may end without another call."""
    live = Live(Function(handler="a.b"), "results.db")
    answer = Result(Task("t", b"1"), Outcome("t", b"1", started=started))
    live.observe([PluginUnavailable(100.0, "plane", "429 Too Many Requests", 0.2), Stored(120.0, [answer], 0.1)])
    assert ("The plane is unavailable: 429 Too Many Requests" in live.page()) == is_away


def test_a_queue_that_is_away_is_named_and_holds_up_no_page() -> None:
    live = Live(Function(handler="a.b"), "results.db")
    live.observe([AgentStarted(time.time(), 4, Figures())])
    deadline = time.monotonic() + 20
    while "The queue did not answer: the queue is away" not in live.page():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert tiles(live.page())["State"] == "running"


def test_whoever_has_the_address_reads_the_page(address: str) -> None:
    for headers in ({}, {"Sec_Fetch_Site": "same-origin"}, {"Host": "localhost:80"}):
        status, answered, text = asked(address, **headers)
        assert (status, text) == (200, "<p>figures</p>")
        assert answered["Cache-Control"] == "no-store"
        assert answered["Referrer-Policy"] == "no-referrer"
        assert answered["X-Frame-Options"] == "DENY"
    assert asked(address, "HEAD")[2] == ""


@pytest.mark.parametrize("path", ["", "x/", "%2e/", "//"])
def test_without_the_token_nothing_is_shown(address: str, path: str) -> None:
    root = address.rpartition("/")[0].rpartition("/")[0]
    for wrong in (f"{root}/{path}", f"{address[:-2]}/", f"{address}{path}x", f"{root}/?{address}"):
        status, _, text = asked(wrong)
        assert (status, "figures" in text) == (403, False), wrong


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:80"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
    ],
)
def test_a_page_of_somebody_else_reads_nothing(address: str, headers: dict[str, str]) -> None:
    status, _, text = asked(address, **headers)
    assert (status, "figures" in text) == (403, False)


def test_it_can_only_be_read(address: str) -> None:
    assert asked(address, "POST")[0] == 405


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_fetches_the_page_again_and_has_no_complaint(tmp_path: Path) -> None:
    live = Live(Function(handler="a.b"), "results.db")
    live.observe([AgentStarted(time.time(), 4, Figures(QueueStats()))])
    looks = 0

    def page() -> str:
        nonlocal looks
        looks += 1
        task, live._made = Task(f"t-{looks}", b"1"), 0.0
        outcome = Outcome(task.id, b"1", started=time.time(), duration_ms=1.0, environment="e")
        live.observe([Stored(time.time(), [Result(task, outcome)], 0.1)])
        return live.page()

    with served_page(page, print) as found:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=7000"]
        command = [str(CHROMIUM), *flags, f"--user-data-dir={tmp_path / 'user'}", "--dump-dom", found]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert looks > 1
    assert int(tiles(done.stdout)["Succeeded"]) > 1
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []

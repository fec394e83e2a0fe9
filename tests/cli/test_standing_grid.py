"""`htcgrid dashboard` and `htcgrid top`: a standing grid, from its queue, its store and its agents' metrics."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from program_end import output_at_end
from test_live_page import asked, tiles

from htcgrid.cli.main import status_of

HTCGRID = Path(sys.executable).with_name("htcgrid")
CONFIG = """
[function]
handler = "work.handler"
[planes.local]
plugin = "process"
workers = 1
[source]
plugin = "sqlite"
path = "grid.db"
drain = true
[sink]
plugin = "sqlite"
path = "grid.db"
"""
METRICS = """# HELP htcgrid_slots How many tasks can run at once.
htcgrid_slots 4.0
htcgrid_environments{state="busy"} 3.0
htcgrid_environments{state="idle"} 1.0
htcgrid_leases_held 17.0
htcgrid_tasks_total{outcome="succeeded"} 90.0
htcgrid_tasks_total{outcome="timeout"} 12.0
"""


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four tasks have run, one of them failed; then three more came."""
    (tmp_path / "htcgrid.toml").write_text(CONFIG)
    (tmp_path / "work.py").write_text("def handler(event, context):\n    return 1 / event\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "events.jsonl").write_text("1\n2\n0\n4\n")
    assert status_of(["submit", "events.jsonl", "--session", "first"]) == 0
    assert status_of(["run", "--quiet"]) == 1
    (tmp_path / "events.jsonl").write_text("1\n2\n3\n")
    assert status_of(["submit", "events.jsonl", "--session", "second"]) == 0
    return tmp_path


@pytest.fixture
def agent() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(METRICS.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_top_once_says_what_the_queue_the_store_and_the_agents_say(
    grid: Path, agent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert status_of(["top", "--once", "--agent", agent]) == 0
    out = capsys.readouterr().out
    assert re.search(r"Queue: waiting +3\n", out)
    assert re.search(r"Stored +4\n", out)
    assert re.search(r"Stored failures +1\n", out)
    assert re.search(r"by kind +handler_error 1\n", out)
    assert re.search(rf"{agent} +answers +102 +12 +4 +3 busy, 1 idle +17", out)


def test_top_names_what_does_not_answer_in_its_exit_code(
    grid: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status_of(["top", "--once", "--agent", "127.0.0.1:1"]) == 0
    assert "does not answer" in capsys.readouterr().out
    (grid / "grid.db").write_bytes(b"no database at all" * 100)
    assert status_of(["top", "--once"]) != 0


def test_an_address_where_no_metrics_are_is_named_beside_the_agents_that_answer(
    agent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = f"127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=speak_no_http, args=(listener,))
        thread.start()
        status = status_of(["top", "--once", "--agent", other, "--agent", agent, "--agent", "127.0.0.1:metrics"])
        thread.join()
    shown = capsys.readouterr()
    assert status == 0, shown.err
    assert f"{other}  " in shown.out
    assert "is not the address of an agent's metrics: BadStatusLine" in shown.out
    assert "is not the address of an agent's metrics: InvalidURL" in shown.out
    assert re.search(rf"{agent} +answers +102", shown.out)


def speak_no_http(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def test_top_writes_a_line_for_each_look_where_there_is_no_terminal(grid: Path) -> None:
    process = subprocess.Popen([HTCGRID, "top", "--every", "0.2"], cwd=grid, text=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(2)]
    process.send_signal(signal.SIGINT)
    output_at_end(process, seconds=30)
    assert process.returncode == 0
    for line in lines:
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, waiting 3, .*stored 4, stored failures 1", line), line
        assert "\x1b" not in line


def test_top_on_a_terminal_draws_the_same_place_again(grid: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen([HTCGRID, "top", "--every", "0.2"], cwd=grid, stdout=theirs)
    os.close(theirs)
    seen = b""
    while seen.count(b"\x1b[H\x1b[J") < 2:
        assert select.select([ours], [], [], 30)[0]
        seen += os.read(ours, 4096)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    os.close(ours)
    assert b"Queue: waiting  3" in seen


def test_a_config_with_nothing_to_show_says_so(grid: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (grid / "htcgrid.toml").write_text(CONFIG.partition("[source]")[0])
    assert status_of(["top", "--once"]) == 2
    assert "This config has nothing to show" in capsys.readouterr().err


def test_the_dashboard_shows_the_queue_the_results_and_the_agents(grid: Path, agent: str) -> None:
    command: list[str | Path] = [HTCGRID, "dashboard", "--every", "1", "--agent", agent]
    process = subprocess.Popen(command, cwd=grid, text=True, stderr=subprocess.PIPE)
    assert process.stderr is not None
    found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", line := process.stderr.readline())
    assert found is not None, line
    deadline = time.monotonic() + 30
    while tiles(page := asked(found[0])[2]).get("Succeeded") != "3":
        assert time.monotonic() < deadline, page
        time.sleep(0.1)
    seen = tiles(page)
    assert (seen["Queue: waiting"], seen["Stored"], seen["Stored failures"], seen["Failed"]) == ("3", "4", "1", "1")
    assert "ZeroDivisionError" in page
    assert "3 busy, 1 idle" in page
    assert "second" in page
    subprocess.run([HTCGRID, "run", "--quiet"], cwd=grid, check=False, stderr=subprocess.DEVNULL)
    while tiles(page := asked(found[0])[2])["Succeeded"] != "6":  # what was stored since is read, and nothing twice
        assert time.monotonic() < deadline + 30, page
        time.sleep(0.2)
    assert tiles(page)["Failed"] == "1"
    process.send_signal(signal.SIGINT)
    output_at_end(process, seconds=30)
    assert process.returncode == 0
    assert asked_fails(found[0])


def asked_fails(address: str) -> bool:
    try:
        asked(address)
    except OSError:
        return True
    return False

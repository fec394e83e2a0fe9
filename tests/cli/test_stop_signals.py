"""A signal ends a program that waits, whichever of its threads the kernel gives the signal to."""

import ctypes
import platform
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from program_end import output_at_end

from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.cli.main import INTERRUPTED, TERMINATED, Terminated, status_of
from htcgrid.stop_request import StopRequest

HTCGRID = Path(sys.executable).with_name("htcgrid")
CONFIG = """
plane = "local"
[function]
handler = "pricing.handler"
[planes.local]
plugin = "process"
[source]
plugin = "sqlite"
path = "grid.sqlite"
[sink]
plugin = "sqlite"
path = "grid.sqlite"
"""
COMMANDS = {
    "serve --port 0": "Serving pricing",
    "dashboard": "the grid is shown",
    "run --verbose": "The agent starts",
}
"""And what each says once it waits."""
OPENS = """
import sys, time
from htcgrid.builtin.sqlite_source import SqliteSource
from htcgrid.cli import main
def slow_open(self):
    print("opening", file=sys.stderr)
    time.sleep(60)
SqliteSource.open = slow_open
SqliteSource.close = lambda self: print("closed", file=sys.stderr)
sys.argv[1:] = ["run"]
main()
"""
TGKILL = {"x86_64": 234, "aarch64": 131}[platform.machine()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "htcgrid.toml").write_text(CONFIG)
    (tmp_path / "pricing.py").write_text("def handler(event, context):\n    return event\n")
    return tmp_path


def send_to_another_thread(process: int, number: signal.Signals) -> None:
    """To any but the main thread, which goes on waiting. Python's `os.kill` leaves the choice to the kernel."""
    threads = {int(each.name) for each in Path(f"/proc/{process}/task").iterdir()} - {process}
    assert ctypes.CDLL(None, use_errno=True).syscall(TGKILL, process, min(threads), number) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_waits_ends_on_a_signal_that_another_thread_receives(
    folder: Path, command: str, number: signal.Signals
) -> None:
    with subprocess.Popen([HTCGRID, *command.split()], cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert COMMANDS[command] in process.stderr.readline()
        send_to_another_thread(process.pid, number)
        output_at_end(process, seconds=30)
        assert process.returncode >= 0, "the signal was not handled"


def test_sigterm_while_a_plugin_is_opened_ends_the_program_once_that_is_closed(folder: Path) -> None:
    """The first process of a container has no other end than by a handler."""
    command = [sys.executable, "-c", OPENS]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "opening\n"
        process.send_signal(signal.SIGTERM)
        _, errors = output_at_end(process, seconds=30)
        assert (process.returncode, errors) == (TERMINATED, "closed\n")


def test_a_relay_ends_on_a_signal_that_another_thread_receives() -> None:
    relay = [sys.executable, "-m", "htcgrid.planes.relay_program"]
    with subprocess.Popen(relay, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while len(list(Path(f"/proc/{process.pid}/task").iterdir())) < 2:
            assert process.poll() is None
        send_to_another_thread(process.pid, signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_stop_that_was_asked_for_before_the_wait_is_not_lost() -> None:
    stop = StopRequest()
    stop.make()
    waiting = threading.Thread(target=stop.wait)
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.parametrize(("end", "status"), [(KeyboardInterrupt, INTERRUPTED), (Terminated, TERMINATED)])
def test_an_error_that_a_signal_leads_to_is_the_end_by_that_signal(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    end: type[BaseException],
    status: int,
) -> None:
    """As Python's Condition raises, when Ctrl-C comes in its `wait` while it does not hold its lock."""

    def wait(_self: SqliteSink, _seconds: float) -> bool:
        lock = threading.Lock()
        with lock:
            lock.release()
            raise end

    monkeypatch.chdir(folder)
    monkeypatch.setattr(SqliteSink, "wait_for_more", wait)
    assert status_of(["results", "--follow"]) == status
    assert "Traceback" not in capfd.readouterr().err

"""Standard input, output and error that are closed, full, stalled or watched by a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from program_end import output_at_end

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Project

    Until = Callable[[Callable[[], object]], None]

pytestmark = pytest.mark.slow  # most start programs, of which some wait for seconds

PRINTING = {
    "an answer": ["invoke", "1"],
    "the check": ["check"],
    "a list": ["plugins"],
    "the help": ["--help"],
    "what stands": ["status"],
}


def shell(project: Project, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`htcgrid` as "$@" in a line of the shell."""
    program = [sys.executable, "-m", "htcgrid", *arguments]
    done = subprocess.run(
        ["sh", "-c", command, "sh", *program], cwd=project.folder, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    return done


@pytest.mark.parametrize(
    ("closed", "transport"),
    [(">&-", "socket"), ("2>&-", "socket"), ("<&- >&- 2>&-", "socket"), ("<&- >&- 2>&-", "http")],
)
def test_a_handler_prints_where_the_agents_own_streams_are_closed(
    project: Project, closed: str, transport: str
) -> None:
    project.tasks({"print": "hello"}, {"print": "again"})
    done = shell(project, f'"$@" {closed}', "run", "--quiet", "--set", f"planes.local.transport={transport}")
    assert (done.returncode, done.stdout) == (0, "")
    assert [result["status"] for result in project.results()] == ["succeeded", "succeeded"]


@pytest.mark.parametrize("transport", ["socket", "http"])
def test_how_a_handler_ended_is_known_also_if_the_end_of_children_was_ignored_before(
    project: Project, transport: str
) -> None:
    project.tasks({"exit": 3})
    run = ["run", "--quiet", "--set", f"planes.local.transport={transport}", "--set", "agent.attempts.exit=1"]
    done = shell(project, 'trap "" CHLD; exec "$@"', *run)
    assert done.returncode == 1
    assert "exit status 3" in project.results()[0]["error"]["errorMessage"]


def test_a_run_that_was_started_with_blocked_signals_ends_when_it_is_asked_to(project: Project, until: Until) -> None:
    project.tasks({"touch": "runs", "sleep": 60})
    program = project.start("run", "--quiet", "--set", "agent.grace=0", preexec_fn=_block_all)
    until((project.folder / "runs").exists)
    program.terminate()
    assert program.wait(30) == 143


def _block_all() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set(signal.Signals))


@pytest.mark.parametrize("what", PRINTING)
def test_what_cannot_be_printed_is_one_sentence_and_no_success(project: Project, what: str) -> None:
    full = shell(project, '"$@" > /dev/full', *PRINTING[what])
    assert full.returncode == 3
    assert full.stderr.splitlines() == [
        "htcgrid: Standard output cannot be written: No space left on device. What was to be printed is lost."
    ]


def test_a_closed_standard_output_is_told_where_something_is_printed(project: Project) -> None:
    done = shell(project, '"$@" >&-', "invoke", "1")
    assert done.returncode == 3
    assert "Standard output cannot be written: it is closed." in done.stderr


@pytest.mark.parametrize("what", PRINTING)
def test_a_reader_that_went_away_is_quiet_and_141(project: Project, what: str) -> None:
    read, write = os.pipe()
    os.close(read)
    program = project.start(*PRINTING[what], stdout=write)
    os.close(write)
    _, err = output_at_end(program)
    assert (program.returncode, err) == (141, "")


def test_stored_results_whose_reader_went_away_are_quiet_and_141(project: Project) -> None:
    store = ["--set", "sink.plugin=sqlite", "--set", "sink.path=r.db"]
    assert project.htcgrid("run", *store).status == 0
    read, write = os.pipe()
    os.close(read)
    program = project.start("results", *store, stdout=write)
    os.close(write)
    _, err = output_at_end(program)
    assert (program.returncode, err) == (141, "")
    full = shell(project, '"$@" > /dev/full', "results", *store)
    assert full.returncode == 3
    assert full.stderr == "htcgrid: Standard output cannot be written: No space left on device. Nothing is lost.\n"


def test_results_into_a_closed_standard_output_are_refused_before_anything_runs(project: Project) -> None:
    project.tasks({"touch": "ran"})
    done = shell(project, '"$@" >&-', "run", "--set", "sink.path=-")
    assert done.returncode == 2
    assert '[sink] path = "-": standard output is closed.' in done.stderr
    assert not (project.folder / "ran").exists()


@pytest.mark.parametrize("arguments", [["run", "--set", "source.path=-"], ["invoke", "--event-file", "-"]])
@pytest.mark.parametrize("stream", ["<&-", "0> write-only"])
def test_a_standard_input_that_cannot_be_read_is_refused(project: Project, arguments: list[str], stream: str) -> None:
    done = shell(project, f'"$@" {stream}', *arguments)
    assert done.returncode == 2
    assert "cannot be read" in done.stderr


def test_messages_that_nobody_can_be_told_change_nothing(project: Project) -> None:
    assert shell(project, '"$@" 2> /dev/full', "run").returncode == 0
    assert len(project.results()) == 3


@pytest.mark.parametrize(
    ("stop", "status", "said"),
    [
        ([signal.SIGTERM], 3, "JsonlSink.put did not return"),
        ([signal.SIGINT, signal.SIGINT], 130, "stopped without waiting, because a plugin does not answer."),
    ],
    ids=["SIGTERM", "Ctrl-C twice"],
)
@pytest.mark.slow
def test_a_run_whose_results_nobody_reads_ends_when_it_is_asked_to(
    project: Project, until: Until, stop: list[signal.Signals], status: int, said: str
) -> None:
    project.tasks(*("x" * 2000 for _ in range(200)))
    read, write = os.pipe()
    program = project.start("run", "--quiet", "--set", "sink.path=-", "--set", "agent.grace=0.2", stdout=write)
    os.close(write)
    until(lambda: b"x" in os.read(read, 1))
    for number in stop:
        program.send_signal(number)
        time.sleep(0.1)  # two at once are one
    _, err = output_at_end(program, seconds=30)
    os.close(read)
    assert program.returncode == status
    assert said in err
    assert "Nothing is lost" in err


def test_a_stalled_reader_of_the_messages_stops_neither_the_run_nor_its_end(project: Project, until: Until) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write, b"x" * 65536)
    os.set_blocking(write, True)
    program = project.start("run", stderr=write)
    os.close(write)
    assert program.wait(30) == 0
    os.close(read)
    assert len(project.results()) == 3


def on_a_terminal(project: Project, *arguments: str) -> bytes:
    """What the command writes to it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    program = project.start(*arguments, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    with suppress(OSError):
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    program.wait(30)
    return shown


EVIL = "\x1b]0;owned\x07\x9b31m"


@pytest.mark.parametrize(
    "arguments",
    [
        ["invoke", json.dumps({"print": EVIL, "x": EVIL}), "--log"],
        ["invoke", json.dumps({"raise": EVIL}), "--log"],
        ["check", "--set", f"planes.{EVIL}.plugin=process"],
        ["check", "--set", f"planes.a.plugin={EVIL}"],
        ["check", "-c", f"{EVIL}.toml"],
        ["run", "--set", f"function.handler={EVIL}.x"],
        ["run", "--quiet", "--set", "sink.path=-"],
        ["new-plugin", EVIL, "--kind", "invoker"],
        ["init", EVIL],
        [EVIL],
    ],
    ids=lambda words: " ".join(words)[:18],
)
def test_no_escape_sequence_of_a_name_a_log_or_an_answer_reaches_a_terminal(
    project: Project, arguments: list[str]
) -> None:
    project.tasks({"raise": EVIL}, {"id": EVIL})
    shown = on_a_terminal(project, *arguments).decode()
    assert shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown), shown
    assert "\\u001b" in shown or "\\x1b" in shown


RUNTIME = """\
import http.client, os

api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    answer.read()
    path = f"/2018-06-01/runtime/invocation/{answer.headers['Lambda-Runtime-Aws-Request-Id']}/response"
    api.request("POST", path, '{"x": "\\x9b31m\\x7f\\u202e"}'.encode())
    api.getresponse().read()
"""


@pytest.mark.parametrize("arguments", [["invoke", "1"], ["run", "--quiet", "--set", "sink.path=-"]], ids=lambda w: w[0])
def test_what_a_runtime_answers_raw_is_the_same_json_on_a_terminal(project: Project, arguments: list[str]) -> None:
    project.tasks(1)
    project.write("runtime.py", RUNTIME)
    shown = on_a_terminal(
        project, *arguments, "--set", f"function.command={json.dumps([sys.executable, 'runtime.py'])}"
    ).decode()
    assert not {"\x9b", "\x7f", "\u202e"} & set(shown)
    document = json.loads(shown.splitlines()[0])
    assert document.get("output", document) == {"x": "\x9b31m\x7f\u202e"}


def test_an_answer_that_goes_elsewhere_is_as_it_came(project: Project) -> None:
    done = project.htcgrid("invoke", json.dumps({"x": "\x9b"}))
    assert json.loads(done.out) == {"x": "\x9b"}


def test_the_progress_bar_still_moves(project: Project) -> None:
    shown = on_a_terminal(project, "run")
    assert b"\r" in shown.replace(b"\r\n", b"")
    assert b"\\u000d" not in shown

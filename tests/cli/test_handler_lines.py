"""`--logs` and `[agent] handler_logs`: all that handlers print, where the user wants it; and the run goes on whatever becomes
of it."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program_end import output_at_end

from htcgrid import Grid
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Capability

if TYPE_CHECKING:
    from conftest import Done, Project

Finish = Callable[[Any], "Done"]
Until = Callable[[Callable[[], object]], None]

pytestmark = pytest.mark.slow  # most start programs, of which some wait for seconds

PRINTING = """\
import os

def handler(event, context):
    for number in range(event["lines"]):
        os.write(1, b"%s line %d %s\\n" % (event["name"].encode(), number, b"." * event.get("width", 0)))
    return None
"""


def printing(project: Project, *, tasks: int = 1, lines: int = 1, width: int = 0) -> None:
    project.write("job.py", PRINTING)
    project.tasks(*[{"name": f"task-{number + 1}", "lines": lines, "width": width} for number in range(tasks)])


def handler_lines(text: str) -> list[dict[str, Any]]:
    documents = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    return [document for document in documents if document.get("logger") == "handler"]


def written(folder: Path) -> list[dict[str, Any]]:
    return [line for file in sorted(folder.iterdir()) for line in handler_lines(file.read_text())]


def test_logs_are_json_lines_on_standard_error_beside_those_of_the_agent(project: Project) -> None:
    printing(project, tasks=3, lines=2)
    done = project.htcgrid("run", "--logs", "--verbose")
    lines = handler_lines(done.err)
    assert Counter(line["message"].strip() for line in lines) == Counter(
        f"task-{task} line {number}" for task in (1, 2, 3) for number in (0, 1)
    )
    assert {(line["task"], line["message"].partition(" ")[0]) for line in lines} == {
        ("1", "task-1"),
        ("2", "task-2"),
        ("3", "task-3"),
    }
    assert {line["session"] for line in lines} == {"tasks.jsonl"}
    assert all(line["environment"] and line["attempt"] == 1 for line in lines)
    own = [json.loads(line) for line in done.err.splitlines() if '"level"' in line]
    assert own
    assert all(line.keys() >= {"time", "logger", "message"} for line in (*own, *lines))


def test_on_a_terminal_logs_are_lines_of_text_beside_the_progress_bar(project: Project) -> None:
    project.tasks({"print": "seen \x1b[31m by nobody"})
    ours, theirs = pty.openpty()
    program = project.start("run", "--logs", stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 1 << 16)
        except OSError:
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    assert program.wait(60) == 0
    assert b" 1: seen \\u001b[31m by nobody" in shown
    assert shown.index(b"seen") < shown.index(b"succeeded")


def test_logs_go_to_standard_output_where_that_is_named(project: Project) -> None:
    printing(project, tasks=2)
    done = project.htcgrid("run", "--quiet", "--set", "agent.handler_logs=stdout")
    assert len(handler_lines(done.out)) == len(done.out.splitlines()) == 2
    assert handler_lines(done.err) == []


def test_a_folder_is_beside_the_config_and_that_of_the_option_is_here(project: Project) -> None:
    printing(project)
    (project.folder / "elsewhere").mkdir()
    config = project.folder / "htcgrid.toml"
    config.write_text(config.read_text() + '\n[agent]\nhandler_logs = "configured"\n')
    assert project.htcgrid("run").status == 0
    assert len(written(project.folder / "configured")) == 1
    (project.folder / "results.jsonl").unlink()
    assert project.htcgrid("run", "--logs", "asked").status == 0
    assert len(written(project.folder / "asked")) == 1
    assert len(written(project.folder / "configured")) == 1


def test_results_and_lines_on_standard_output_are_refused(project: Project) -> None:
    for command in (["run"], ["check"]):
        done = project.htcgrid(*command, "--set", "sink.path=-", "--set", "agent.handler_logs=stdout")
        assert done.status == 2
        assert (
            'handler_logs = "stdout", but [sink] path = "-" writes the results to standard output'
            in done.out + done.err
        )
        assert handler_lines(done.out) == []


def test_results_on_standard_output_and_lines_on_standard_error_go_together(project: Project) -> None:
    printing(project, tasks=2)
    done = project.htcgrid("run", "--quiet", "--logs", "--set", "sink.path=-")
    assert [json.loads(line)["id"] for line in done.out.splitlines()] in (["1", "2"], ["2", "1"])
    assert len(handler_lines(done.err)) == 2


def test_a_reader_that_stalls_makes_nobody_deaf_to_sigterm(project: Project, finish: Finish, until: Until) -> None:
    printing(project, tasks=4, lines=40_000, width=80)  # 12 MB each as JSON lines
    program = project.start("run", "--quiet", "--logs", "stdout", "--set", "agent.grace=0.5", "--plane", "single")
    assert program.stdout is not None
    first = os.read(program.stdout.fileno(), 1000)
    assert first.startswith(b'{"time"')
    until(lambda: _is_asleep(program.pid))
    program.send_signal(signal.SIGTERM)
    program.wait(20)
    done = finish(program)
    assert done.status == 143
    assert "lines that handlers printed were not written to standard output." in done.err
    assert project.htcgrid("run", "--quiet").status == 0
    assert project.ids() == [str(number) for number in range(1, 5)]


def _is_asleep(pid: int) -> bool:
    """Whether nothing moves any more."""

    def used() -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().split()[13:17]

    before = used()
    time.sleep(0.5)
    return used()[0] == before[0]


def test_a_reader_that_goes_ends_no_run(project: Project, finish: Finish) -> None:
    printing(project, tasks=20, lines=1000)
    program = project.start("run", "--quiet", "--logs", "stdout")
    assert program.stdout is not None
    os.read(program.stdout.fileno(), 1000)
    program.stdout.close()
    program.stdout = None
    done = finish(program)
    assert done.status == 0
    assert len(project.results()) == 20
    assert done.err.count("standard output cannot be written: Broken pipe. The run goes on") == 1


def test_a_full_disk_is_told_once_and_the_run_goes_on(project: Project, finish: Finish) -> None:
    printing(project, tasks=10, lines=1000, width=100)

    def no_file_above_1_mb() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = finish(project.start("run", "--quiet", "--logs", "logs", preexec_fn=no_file_above_1_mb))
    assert done.status == 0
    assert len(project.results()) == 10
    assert done.err.count("cannot be written: File too large. The run goes on") == 1
    lines = written(project.folder / "logs")  # each is JSON
    lost = 10_000 - len(lines)
    assert lost
    assert f"{lost:,} lines that handlers printed were not written" in done.err


def test_an_attempt_that_is_run_again_has_lines_of_its_own(project: Project) -> None:
    project.tasks({"print": "again", "exit": 1})
    done = project.htcgrid("run", "--logs", "logs", "--set", "agent.attempts.exit=3", "--set", "agent.retry_delay=0")
    assert done.status == 1
    lines = written(project.folder / "logs")
    assert [(line["attempt"], line["message"]) for line in lines] == [(1, "again"), (2, "again"), (3, "again")]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_of_100_mb_by_8_workers_that_are_killed_each_whole_line_is_there_once(project: Project, until: Until) -> None:
    """Some tasks kill their worker in the middle of a line; the run itself is stopped in the middle and started again."""
    width, lines, tasks = 200, 2500, 200
    project.write(
        "job.py",
        "import os, signal\n"
        "def handler(event, context):\n"
        "    attempt = context.client_context.custom['attempt']\n"
        "    for number in range(event['lines']):\n"
        f"        os.write(1 + number % 2, b'%s %d %d %s\\n' % (event['name'].encode(), attempt, number, b'.' * {width}))\n"
        "        if number == event['dies'] and attempt == 1:\n"
        "            os.write(1, b'cut')\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n",
    )
    project.tasks(*[{"name": f"{n + 1}", "lines": lines, "dies": 1000 + n if n % 5 == 0 else -1} for n in range(tasks)])
    settings = ["--quiet", "--logs", "logs", "--set", "planes.local.workers=8", "--set", "agent.retry_delay=0"]
    program = project.start("run", *settings, "--set", "agent.handler_logs_bytes=10000000")
    until(lambda: sum(file.stat().st_size for file in _files(project)) > 40_000_000)
    program.send_signal(signal.SIGTERM)
    _, err = output_at_end(program)
    assert program.returncode == 143
    done = project.htcgrid("run", *settings)
    assert done.status == 0
    for text in (err, done.err):
        [summary] = [json.loads(line)["summary"] for line in text.splitlines() if line.startswith('{"summary"')]
        assert summary["agent_memory_mb"] < 150
    seen: dict[tuple[str, str, int], list[int]] = {}
    cut = 0
    for line in written(project.folder / "logs"):
        if line["message"] == "cut":
            cut += 1
            continue
        name, attempt, number, _ = line["message"].split(" ")
        assert (name, int(attempt)) == (line["task"], line["attempt"])
        seen.setdefault((line["environment"], name, int(attempt)), []).append(int(number))
    assert all(numbers == list(range(len(numbers))) for numbers in seen.values())
    whole = {name for (_, name, _), numbers in seen.items() if len(numbers) == lines}
    assert whole == {str(number + 1) for number in range(tasks)}
    # One that died while the run was being stopped had the attempt again, and died again.
    died = [name for (_, name, _), numbers in seen.items() if len(numbers) == 1000 + int(name)]
    assert set(died) == {str(number + 1) for number in range(0, tasks, 5)}
    assert cut == len(died)


def _files(project: Project) -> list[Path]:
    folder = project.folder / "logs"
    return list(folder.iterdir()) if folder.exists() else []


def test_a_plane_that_gives_only_the_ends_says_so_in_check_and_in_a_run(
    project: Project, inside: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessInvoker, "capabilities", frozenset(Capability) - {Capability.OUTPUT})
    checked = inside("check", "--set", "agent.handler_logs=stderr").out
    assert "note   planes.local: [agent] handler_logs: this plane gives only the last 4 KB" in checked
    done = inside("run", "--quiet", "--logs")
    assert "this plane gives only the last 4 KB of what a task prints" in done.err


def test_served_functions_show_what_they_print(project: Project, until: Until) -> None:
    project.write("htcgrid.toml", '[function]\nhandler = "job.handler"\nname = "shown"\n')
    program = project.start("serve", "--port", "0", "--logs", "lines")
    assert program.stderr is not None
    port = re.findall(r"http://127\.0\.0\.1:(\d+)", program.stderr.readline())[0]
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
    connection.request("POST", "/2015-03-31/functions/shown/invocations", b'{"print": "called"}')
    assert connection.getresponse().status == 200
    connection.close()
    until(lambda: (project.folder / "lines").exists() and written(project.folder / "lines"))
    program.send_signal(signal.SIGTERM)
    assert program.wait(60) == 0
    assert [line["message"] for line in written(project.folder / "lines")] == ["called"]


def test_an_embedded_grid_writes_what_its_handlers_print(project: Project) -> None:
    logs = str(project.folder / "lines")
    settings = {"function": {"handler": "job.handler", "code": str(project.folder)}, "agent": {"handler_logs": logs}}
    with Grid.open(settings=settings) as grid:
        assert list(grid.map([{"print": "from Python"}])) == [{"print": "from Python"}]
    assert [line["message"] for line in written(project.folder / "lines")] == ["from Python"]

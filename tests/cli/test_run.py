"""`htcgrid run`, the real program on real files."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program_end import output_at_end

if TYPE_CHECKING:
    from conftest import Done, Project

Finish = Callable[[Any], "Done"]
Until = Callable[[Callable[[], object]], None]


def family(pid: int) -> list[int]:
    """A process and all it has started."""
    found = [pid]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for child in (thread / "children").read_text().split():
                found += family(int(child))
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- the common case ---------------------------------------------------------------------------------


def test_every_task_of_the_file_is_answered_in_the_results_and_the_summary_says_so(project: Project) -> None:
    done = project.htcgrid("run")
    assert (done.status, done.out) == (0, "")
    assert {result["id"]: result["output"] for result in project.results()} == {
        "1": {"x": 1},
        "2": {"x": 2},
        "3": {"x": 3},
    }
    summary = done.summary
    assert (summary["succeeded"], summary["failed"], summary["failures"]) == (3, 0, {})
    assert summary["tasks_per_second"] > 0
    assert 0 < summary["p50_ms"] <= summary["p90_ms"] <= summary["p99_ms"]
    assert 0 < summary["busy_share"] <= 1
    assert summary["max_memory_mb"] > 0
    assert "results.jsonl" in summary["results"]


def test_the_memory_in_the_summary_is_the_agents_own_and_not_that_of_who_started_it(project: Project) -> None:
    project.tasks({"x": 1})
    ballast = b"x" * (300 << 20)
    assert 0 < project.htcgrid("run").summary["agent_memory_mb"] < 200
    del ballast


def test_running_it_again_runs_nothing_twice(project: Project) -> None:
    project.htcgrid("run")
    before = (project.folder / "results.jsonl").read_bytes()
    done = project.htcgrid("run")
    assert (done.status, done.summary["already_stored"], done.summary["succeeded"]) == (0, 3, 0)
    assert (project.folder / "results.jsonl").read_bytes() == before


def test_tasks_that_fail_make_exit_code_1_and_stand_in_the_results_by_kind(project: Project) -> None:
    project.tasks({"raise": "no"}, {"x": 1}, {"exit": 3, "print": "bye"})
    done = project.htcgrid("run")
    assert done.status == 1
    assert done.summary["failures"] == {"exit": 1, "handler_error": 1}
    by_id = {result["id"]: result for result in project.results()}
    assert by_id["1"]["status"] == "failed"
    assert by_id["1"]["failure"] == "handler_error"
    assert (by_id["1"]["error"]["errorType"], by_id["1"]["error"]["errorMessage"]) == ("ValueError", "no")
    assert by_id["2"]["status"] == "succeeded"
    assert (by_id["3"]["failure"], by_id["3"]["attempt"], by_id["3"]["log_tail"]) == ("exit", 3, "bye\n")


def test_a_failure_is_final_for_the_next_run_too(project: Project) -> None:
    project.tasks({"raise": "no"})
    project.htcgrid("run")
    again = project.htcgrid("run")
    assert (again.status, again.summary["already_stored"]) == (1, 1)
    assert len(project.results()) == 1


def test_compressed_tasks_come_to_compressed_results(project: Project) -> None:
    (project.folder / "t.gz").write_bytes(gzip.compress(b"1\n2\n"))
    for already in (0, 2):
        done = project.htcgrid("run", "--set", "source.path=t.gz", "--set", "sink.path=r.gz")
        assert (done.status, done.summary["already_stored"]) == (0, already)
    lines = gzip.decompress((project.folder / "r.gz").read_bytes()).splitlines()
    assert sorted(json.loads(line)["output"] for line in lines) == [1, 2]


def test_standard_input_to_standard_output_carries_results_alone(project: Project) -> None:
    done = project.htcgrid("run", "--set", "source.path=-", "--set", "sink.path=-", stdin='"a"\n"b"\n')
    assert done.status == 0
    assert sorted(json.loads(line)["output"] for line in done.out.splitlines()) == ["a", "b"]


def test_an_event_that_comes_through_a_pipe_is_answered_before_the_pipe_ends(project: Project) -> None:
    program = project.start("run", "--set", "source.path=-", "--set", "sink.path=-", stdin=subprocess.PIPE)
    assert program.stdin is not None
    assert program.stdout is not None
    for text in ("first", "second"):
        program.stdin.write(f'"{text}"\n')
        program.stdin.flush()
        assert json.loads(program.stdout.readline())["output"] == text
    program.stdin.close()
    assert program.wait(20) == 0


def test_a_reader_of_the_results_that_goes_away_ends_the_run_with_a_word(project: Project, finish: Finish) -> None:
    project.tasks(*range(50_000))
    program = project.start("run", "--set", "sink.path=-")
    assert program.stdout is not None
    program.stdout.readline()
    program.stdout.close()
    assert program.stderr is not None
    said = program.stderr.read()
    assert program.wait(30) == 2
    assert "Standard output was closed" in said


def test_ids_from_a_field_are_seen_by_the_handler_and_in_the_results(project: Project) -> None:
    project.tasks({"key": "a", "custom": 1}, {"key": "b", "custom": 1})
    project.htcgrid("run", "--set", "source.id_field=key")
    assert {r["id"]: r["output"] for r in project.results()} == {
        name: {"task_id": name, "session_id": "tasks.jsonl", "attempt": 1} for name in "ab"
    }


# --- stopped and killed ------------------------------------------------------------------------------


def test_a_run_that_is_killed_again_and_again_does_each_task_once_and_leaves_no_worker(
    project: Project, until: Until
) -> None:
    project.tasks(*({"n": n, "sleep": 0.001 * (n % 3)} for n in range(4000)))
    results = project.folder / "results.jsonl"
    chance = random.Random()
    for _ in range(3):
        size = results.stat().st_size if results.exists() else 0
        program = project.start("run", "--quiet", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        more = chance.randrange(1, 80_000)
        until(lambda least=size + more: results.exists() and results.stat().st_size >= least)  # type: ignore[misc]
        processes = family(program.pid)
        assert len(processes) >= 3
        program.kill()
        program.wait()
        until(lambda left=processes: not any(map(is_alive, left)))  # type: ignore[misc]
    done = project.htcgrid("run")
    assert done.status == 0
    assert done.summary["already_stored"] + done.summary["succeeded"] == 4000
    assert done.summary["already_stored"] > 0
    assert project.ids() == [str(number) for number in range(1, 4001)]
    assert {result["output"]["n"] for result in project.results()} == set(range(4000))


def test_sigterm_finishes_what_runs_with_exit_code_143_and_the_next_run_does_the_rest(
    project: Project, finish: Finish, until: Until
) -> None:
    project.tasks(*({"sleep": 4, "touch": f"began-{n}", "n": n} for n in range(8)))
    program = project.start("run", "--set", "agent.grace=30")
    until(lambda: len(list(project.folder.glob("began-*"))) == 2)
    program.send_signal(signal.SIGTERM)
    done = finish(program)
    assert done.status == 143
    assert (done.summary["succeeded"], len(project.results())) == (2, 2)
    assert len(list(project.folder.glob("began-*"))) == 2
    project.write("job.py", "def handler(event, context): return event")
    assert project.htcgrid("run").summary["succeeded"] == 6
    assert project.ids() == [str(number) for number in range(1, 9)]


def test_past_the_grace_what_runs_is_stopped_and_left_to_the_next_run(
    project: Project, finish: Finish, until: Until
) -> None:
    project.tasks({"sleep": 60, "touch": "began"}, {"x": 1})
    program = project.start("run", "--set", "agent.grace=0.3", "--plane", "single")
    until((project.folder / "began").exists)
    program.send_signal(signal.SIGTERM)
    done = finish(program)
    assert (done.status, done.summary["returned"] >= 1) == (143, True)
    assert project.results() == []


@pytest.mark.parametrize(("before", "finished"), [(signal.SIG_DFL, 1), (signal.SIG_IGN, 3)])
def test_the_end_of_the_terminal_is_a_drain_unless_nohup_had_it_ignored(
    project: Project, finish: Finish, until: Until, before: signal.Handlers, finished: int
) -> None:
    project.tasks({"touch": "began", "sleep": 4 if finished == 1 else 0.7}, {"x": 1}, {"x": 2})
    ours = signal.signal(signal.SIGHUP, before)  # what is started inherits it
    try:
        program = project.start("run", "--plane", "single")
    finally:
        signal.signal(signal.SIGHUP, ours)
    until((project.folder / "began").exists)
    program.send_signal(signal.SIGHUP)
    assert finish(program).status == (0 if finished == 3 else 143)
    assert len(project.results()) == finished


def test_ctrl_c_finishes_what_runs_and_exits_130(project: Project, finish: Finish, until: Until) -> None:
    project.tasks(*({"sleep": 4, "touch": f"began-{n}"} for n in range(6)))
    program = project.start("run", "--plane", "single")
    until((project.folder / "began-0").exists)
    os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to every process of the group
    done = finish(program)
    assert done.status == 130
    assert "press Ctrl-C again to stop at once" in done.err
    assert [result["status"] for result in project.results()] == ["succeeded"]


def test_a_second_ctrl_c_stops_at_once(project: Project, finish: Finish, until: Until) -> None:
    project.tasks({"sleep": 600, "touch": "began"}, {"x": 1})
    program = project.start("run", "--plane", "single", "--set", "function.timeout=900", "--set", "agent.grace=900")
    until((project.folder / "began").exists)
    program.send_signal(signal.SIGINT)
    assert program.stderr is not None
    while "Ctrl-C again" not in (said := program.stderr.readline()):
        assert said
    program.send_signal(signal.SIGINT)
    assert finish(program).status == 130
    assert project.results() == []


def test_a_ctrl_c_before_anything_runs_is_130_without_a_traceback(
    project: Project, finish: Finish, until: Until
) -> None:
    program = project.start("run", "--set", "source.path=-", stdin=subprocess.PIPE)
    until(lambda: len(family(program.pid)) > 1)  # while Python itself starts it ends as it will: by the signal, with 1
    program.send_signal(signal.SIGINT)
    assert finish(program).status == 130


def test_a_pipe_that_says_nothing_is_left_in_time_on_sigterm(project: Project, finish: Finish, until: Until) -> None:
    program = project.start("run", "--set", "source.path=-", stdin=subprocess.PIPE)
    assert program.stdin is not None
    program.stdin.write('{"touch": "began"}\n')
    program.stdin.flush()
    until((project.folder / "began").exists)
    program.send_signal(signal.SIGTERM)
    assert program.wait(20) == 143
    assert len(project.results()) == 1


def test_a_plane_that_dies_in_mid_run_loses_no_task(project: Project, finish: Finish, until: Until) -> None:
    project.tasks(*({"sleep": 0.6, "touch": "began"} for _ in range(10)))
    program = project.start("run")
    until((project.folder / "began").exists)
    fork_server = family(program.pid)[1]
    os.kill(fork_server, signal.SIGKILL)
    done = finish(program)
    assert "The program that workers are forked from has ended" in done.err
    assert done.status in {0, 3}
    if done.status == 3:
        assert project.htcgrid("run").status == 0
    assert project.ids() == [str(number) for number in range(1, 11)]


# --- bad input ---------------------------------------------------------------------------------------


def test_a_line_that_is_not_json_is_named_and_the_others_run(project: Project) -> None:
    project.write("tasks.jsonl", '{"x": 1}\n{nonsense\n{"x": 3}\n')
    done = project.htcgrid("run")
    assert done.status == 1
    assert done.summary["failures"] == {"invalid_event": 1}
    by_id = {result["id"]: result for result in project.results()}
    assert by_id["2"]["error"]["errorType"] == "Runtime.UnmarshalError"
    assert "tasks.jsonl, line 2: this is not JSON" in by_id["2"]["error"]["errorMessage"]
    assert (by_id["1"]["output"], by_id["3"]["output"]) == ({"x": 1}, {"x": 3})


def test_an_id_that_stands_twice_is_named_and_the_first_runs(project: Project) -> None:
    project.tasks({"id": "a", "n": 1}, {"id": "a", "n": 2}, {"id": "b"})
    done = project.htcgrid("run", "--set", "source.id_field=id")
    assert done.status == 1
    by_id = {result["id"]: result for result in project.results()}
    assert by_id["a"]["output"]["n"] == 1
    assert "line 1 has the id 'a' already" in by_id["line-2"]["error"]["errorMessage"]
    assert by_id["b"]["status"] == "succeeded"


def test_an_empty_file_is_done_at_once(project: Project) -> None:
    project.write("tasks.jsonl", "")
    done = project.htcgrid("run")
    assert (done.status, done.summary["succeeded"], project.results()) == (0, 0, [])


def test_a_source_that_is_not_there(project: Project) -> None:
    (project.folder / "tasks.jsonl").unlink()
    done = project.htcgrid("run")
    assert done.status == 2
    assert "[source] path = " in done.err
    assert "tasks.jsonl': the file does not exist" in done.err


def test_a_results_path_that_cannot_be_written(project: Project) -> None:
    done = project.htcgrid("run", "--set", "sink.path=no/such/results.jsonl")
    assert done.status == 2
    assert "[sink] path = " in done.err
    assert "cannot be written: No such file or directory" in done.err


def test_results_of_another_job(project: Project) -> None:
    project.htcgrid("run")
    before = (project.folder / "results.jsonl").read_bytes()
    project.tasks({"another": "job"})
    done = project.htcgrid("run")
    assert done.status == 2
    assert "belongs to another job. Name another file in [sink] path, or move this one away." in done.err
    assert (project.folder / "results.jsonl").read_bytes() == before


def test_the_tasks_themselves_as_results_path_are_refused_and_left_whole(project: Project) -> None:
    before = project.write("tasks.jsonl", '{"id":"a"}\n{"id":"b"}').read_bytes()
    done = project.htcgrid("run", "--set", "sink.path=tasks.jsonl")
    assert done.status == 2
    assert "not a result of htcgrid" in done.err
    assert (project.folder / "tasks.jsonl").read_bytes() == before


def test_two_runs_into_one_file(project: Project, finish: Finish, until: Until) -> None:
    project.tasks({"sleep": 60, "touch": "began"})
    first = project.start("run")
    until((project.folder / "began").exists)
    second = project.htcgrid("run")
    assert second.status == 2
    assert "another run is writing to it" in second.err
    first.kill()


def test_a_disk_that_fills_in_mid_run_exits_3_and_nothing_is_lost_or_doubled(project: Project) -> None:
    # The limit is met by the results, and not by the pages that the agent shares with its workers.
    project.tasks(*({"text": "x" * 3000, "n": n} for n in range(500)))
    limited = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, resource.RLIM_INFINITY))\n"
        "from htcgrid.cli import main\n"
        "main(['run', '--set', 'agent.unavailable_limit=0.3'])\n"
    )
    project.write("limited.py", limited)
    command = [sys.executable, "limited.py"]
    full = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=False)
    assert full.returncode == 3, full.stderr
    assert "results.jsonl cannot be written: File too large. Nothing is lost." in full.stderr
    assert (project.folder / "results.jsonl").stat().st_size <= 1_200_000
    assert project.htcgrid("run").status == 0
    assert project.ids() == [str(number) for number in range(1, 501)]


BROKEN = {
    "a handler without a dot": ("handler", "", "Runtime.MalformedHandlerName"),
    "a module that is not there": ("nowhere.handler", "", "Unable to import module 'nowhere'"),
    "a function that is not there": ("job.nothing", "", "Handler 'nothing' missing on module 'job'"),
    "a syntax error": ("job.handler", "def handler(:", "Runtime.UserCodeSyntaxError"),
    "an import that raises": ("job.handler", "raise OSError('no licence')", "no licence"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_function_that_does_not_load_ends_the_run_with_its_document_and_no_result(
    project: Project, case: str
) -> None:
    handler, code, said = BROKEN[case]
    if code:
        project.write("job.py", code)
    project.tasks(*range(100))
    done = project.htcgrid("run", "--set", f"function.handler={handler}")
    assert done.status == 2
    assert "The function cannot be initialised, so no task was run" in done.err
    assert said in done.err
    assert project.results() == []


def test_a_package_that_is_missing_is_named_with_what_to_do_about_it(project: Project) -> None:
    project.write("job.py", "import pandaz")
    project.tasks(1)
    done = project.htcgrid("run")
    assert done.status == 2
    assert "pandaz is not installed where the handler runs: install it there" in done.err


def test_a_handler_without_a_dot_is_told_in_which_form_to_write_it(project: Project) -> None:
    project.tasks(1)
    done = project.htcgrid("run", "--set", "function.handler=handler")
    assert done.status == 2
    assert 'write handler = "MODULE.FUNCTION" in [function]' in done.err


def test_no_handler_at_all(project: Project) -> None:
    done = project.htcgrid("run", "--set", "function.handler=''")
    assert done.status == 2
    assert '[function] handler is missing. Write it as "module.function".' in done.err


def test_a_code_folder_that_is_not_there(project: Project) -> None:
    done = project.htcgrid("run", "--set", "function.code=nowhere")
    assert done.status == 2
    assert "[function] code = " in done.err
    assert "there is no such folder" in done.err


def test_a_bug_of_the_users_plugin_is_shown_whole(project: Project, tmp_path: Path) -> None:
    """Anything but the two errors is a bug, and its traceback is what its author needs."""
    info = tmp_path / "site" / "buggy-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: buggy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[htcgrid.task_source]\nbuggy = buggy:Buggy\n")
    (tmp_path / "site" / "buggy.py").write_text(
        "from htcgrid.spi import TaskSource\n"
        "class Buggy(TaskSource):\n"
        "    def receive(self, max_tasks, wait): raise KeyError('my own bug')\n"
        "    def ack(self, leases): pass\n"
    )
    program = project.start("run", "--source", "buggy", env={"PYTHONPATH": str(tmp_path / "site")})
    _, err = output_at_end(program)
    assert program.returncode == 3
    assert "KeyError: 'my own bug'" in err
    assert "buggy.py" in err

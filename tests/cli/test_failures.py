"""After failures: what a run says of them, `failures`, `redrive`, and exit codes that scripts can trust."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from program_end import output_at_end

from htcgrid import plugins
from htcgrid.failures.again import Again
from htcgrid.spi import FailureKind, Function, Outcome, Result, Task, TaskSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Done, Project

    Inside = Callable[..., Done]

BROKEN = """\
def handler(event, context):
    print("pricing", event["n"])
    if event["n"] % 7 == 0:
        raise ValueError(f"no price for {event['n']}")
    return event["n"]
"""
MENDED = "def handler(event, context): return event['n']\n"


def prepared(project: Project, count: int = 30, handler: str = BROKEN) -> None:
    project.write("job.py", handler)
    project.tasks(*({"n": n} for n in range(1, count + 1)))


def on_a_terminal(project: Project, *arguments: str) -> str:
    """What a command says where its standard error is a terminal."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (50, 200))
    program = project.start(*arguments, stderr=theirs)
    os.close(theirs)
    said = b""
    while True:
        try:
            said += (chunk := os.read(ours, 4096))
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
    os.close(ours)
    program.wait(60)
    return said.decode()


def test_the_summary_shows_what_failed_in_groups_and_what_to_give_next(project: Project) -> None:
    prepared(project)
    said = on_a_terminal(project, "run", "--plane", "single")
    assert "task 7 failed: handler_error: ValueError: no price for 7 at job.py:4 in handler" in said
    assert said.count(" failed: handler_error") == 1
    assert "1. 4 x handler_error: ValueError: no price for N  at job.py:4 in handler" in said
    assert "| pricing 7" in said
    assert "htcgrid failures" in said
    assert "htcgrid redrive" in said


def test_elsewhere_the_groups_stand_in_the_json_line(project: Project) -> None:
    prepared(project)
    summary = project.htcgrid("run", "--quiet", "--plane", "single").summary
    [group] = summary["failure_groups"]
    assert (group["count"], group["example_id"], group["log"]) == (4, "7", ["pricing 7"])
    assert (group["message"], group["place"]) == ("no price for N", "job.py:4 in handler")
    assert summary["commands"]["run again"] == "htcgrid redrive --plane single"


def test_the_exit_code_is_1_as_long_as_the_results_hold_failures(project: Project) -> None:
    prepared(project)
    assert project.htcgrid("run").status == 1
    project.write("job.py", MENDED)
    again = project.htcgrid("run")
    assert (again.status, again.summary["already_stored"]) == (1, 30)
    assert "the results hold failures of earlier runs" in again.err


def test_the_progress_counts_all_tasks_though_some_are_taken_already(project: Project) -> None:
    prepared(project, 300, MENDED)
    assert "300/300" in on_a_terminal(project, "run")


def test_help_and_the_operations_page_name_every_exit_code(project: Project) -> None:
    from pathlib import Path  # noqa: PLC0415

    from htcgrid.cli.main import EXIT_CODES  # noqa: PLC0415

    shown = subprocess.run(
        [sys.executable, "-m", "htcgrid", "--help"], capture_output=True, text=True, check=True, env={"COLUMNS": "999"}
    ).stdout
    words = " ".join(shown.split())
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in words
        assert f"| {code} |" in page


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def failed_lines(project: Project) -> list[bytes]:
    return [
        line for line in (project.folder / "results.jsonl").read_bytes().splitlines() if b'"status":"failed"' in line
    ]


def test_failures_lists_groups_ids_and_tasks(project: Project, inside: Inside) -> None:
    prepared(project)
    project.htcgrid("run")
    listed = inside("failures")
    assert listed.status == 1
    assert "failed 4  (handler_error 4)" in listed.out
    assert "1. 4 x handler_error: ValueError: no price for N" in listed.out
    assert sorted(map(int, inside("failures", "--group", "1").out.split())) == [7, 14, 21, 28]
    [task] = lines(inside("failures", "--id", "14", "--json").out)
    assert (task["event"], task["attempt"], task["error"]["errorType"]) == ({"n": 14}, 1, "ValueError")
    assert task["log"].startswith("pricing 14\n")
    assert task["environment"]
    [document] = lines(inside("failures", "--json").out)
    assert (document["failed"], document["groups"][0]["count"], document["dead_letters"]) == (4, 4, [])


def test_redrive_runs_what_failed_alone_and_leaves_the_others_byte_for_byte(project: Project) -> None:
    prepared(project)
    project.htcgrid("run")
    before = (project.folder / "results.jsonl").read_bytes().splitlines()
    failures = failed_lines(project)
    project.write("job.py", MENDED)
    done = project.htcgrid("redrive")
    assert (done.status, done.summary["succeeded"], done.summary["already_stored"]) == (0, 4, 0)
    after = (project.folder / "results.jsonl").read_bytes().splitlines()
    assert after[:26] == [line for line in before if line not in failures]
    assert len(project.results()) == 30
    assert project.htcgrid("run").status == 0
    nothing = project.htcgrid("redrive")
    assert (nothing.status, nothing.err) == (0, "htcgrid: nothing has failed, so there is nothing to run again.\n")


def test_a_failure_that_fails_again_has_its_new_log_and_may_be_run_again(project: Project) -> None:
    prepared(project)
    project.htcgrid("run")
    project.write("job.py", BROKEN.replace("pricing", "again"))
    assert project.htcgrid("redrive", "7", "--id", "14").status == 1
    by_id = {result["id"]: result for result in project.results()}
    assert (len(by_id), len(project.results())) == (30, 30)
    assert by_id["7"]["log_tail"].startswith("again 7")
    assert by_id["21"]["log_tail"].startswith("pricing 21")
    project.write("job.py", MENDED)
    assert project.htcgrid("redrive").summary["succeeded"] == 4
    assert {result["generation"] for result in project.results() if "generation" in result} == {1, 2}


def test_run_redrive_runs_what_failed_and_what_never_ran(project: Project) -> None:
    prepared(project, 10)
    project.htcgrid("run")
    project.tasks(*({"n": n} for n in range(1, 16)))
    project.write("job.py", MENDED)
    done = project.htcgrid("run", "--redrive")
    assert (done.status, done.summary["succeeded"], done.summary["already_stored"]) == (0, 6, 9)


def test_redrive_by_kind_takes_other_settings(project: Project) -> None:
    project.write(
        "job.py", "import os\n" + BROKEN.replace("return", "return os.environ['AWS_LAMBDA_FUNCTION_MEMORY_SIZE'],")
    )
    project.tasks({"n": 7})
    project.htcgrid("run")
    assert project.htcgrid("redrive", "--kind", "timeout").status == 2
    project.write("job.py", (project.folder / "job.py").read_text().replace("% 7", "% 99"))
    assert project.htcgrid("redrive", "--kind", "handler_error", "--set", "function.memory=2048").status == 0
    assert project.results()[0]["output"] == ["2048", 7]


def test_an_event_that_was_mended_is_taken(project: Project) -> None:
    project.write("tasks.jsonl", '{"n": 1}\n{"n": 2\n')
    assert project.htcgrid("run").status == 1
    project.tasks({"n": 1}, {"n": 2})
    assert project.htcgrid("redrive").status == 0
    assert project.htcgrid("run").status == 0


def test_an_event_that_is_gone_is_named_and_its_failure_stays(project: Project) -> None:
    prepared(project)
    project.htcgrid("run")
    project.tasks(*({"n": n} for n in range(1, 15)))
    project.write("job.py", MENDED)
    done = project.htcgrid("redrive")
    assert (done.status, done.summary["succeeded"]) == (1, 2)
    assert "21, 28: the event is not in the source any more" in done.err
    assert len(failed_lines(project)) == 2


def test_what_cannot_be_redriven_is_a_clear_message_and_changes_nothing(project: Project, inside: Inside) -> None:
    prepared(project)
    project.htcgrid("run")
    before = (project.folder / "results.jsonl").read_bytes()
    group = inside("redrive", "--group", "9")
    assert (group.status, "There is no group 9: there are 1 to 1" in group.err) == (2, True)
    unknown = inside("redrive", "nobody")
    assert (unknown.status, "No failure matches the ids nobody." in unknown.err) == (2, True)
    for command in ("redrive", "failures"):
        unread = inside(command, "--set", "sink.path=-")
        assert (unread.status, "no results can be read from it" in unread.err) == (2, True)
    assert (project.folder / "results.jsonl").read_bytes() == before


def test_failures_may_be_read_and_not_redriven_while_another_run_writes(
    project: Project, inside: Inside, until: Any
) -> None:
    prepared(project, 7)
    project.htcgrid("run")
    project.tasks(*({"n": n} for n in range(1, 8)), {"touch": "began", "sleep": 60})
    project.write("job.py", "import time\n\ndef handler(event, context):\n    open('began', 'w')\n    time.sleep(60)\n")
    project.start("run")
    until((project.folder / "began").exists)
    assert "1. 1 x handler_error" in inside("failures").out
    refused = project.htcgrid("redrive")
    assert (refused.status, "another run is writing to it" in refused.err) == (2, True)


# --- on a queue --------------------------------------------------------------------------------------


def queue_project(project: Project) -> None:
    prepared(project)
    config = (project.folder / "htcgrid.toml").read_text()
    for name, file in (("source", "queue.db"), ("sink", "results.db")):
        start = config.index(f"[{name}]")
        end = config.index("[", start + 1)
        config = config[:start] + f'[{name}]\nplugin = "sqlite"\npath = "{file}"\n\n' + config[end:]
    project.write("htcgrid.toml", config)


def drained(project: Project) -> list[int]:
    """Two agents at a time run all that is in the queue."""
    agents = [project.start("run", "--quiet", "--set", "source.drain=true") for _ in range(2)]
    for agent in agents:
        output_at_end(agent)
    return [agent.returncode for agent in agents]


def test_on_sqlite_with_two_agents_what_failed_is_put_again_and_the_others_stay(
    project: Project, inside: Inside
) -> None:
    queue_project(project)
    session = inside("submit", "tasks.jsonl").out.strip()
    assert drained(project) == [1, 1]
    before = project.htcgrid("results", "--session", session).out.splitlines()
    assert "1. 4 x handler_error: ValueError: no price for N" in inside("failures").out
    [task] = lines(inside("failures", "--id", f"{session}_14", "--json").out)
    assert (task["event"], task["session"]) == ({"n": 14}, session)
    project.write("job.py", MENDED)
    for _ in range(2):  # given again, it puts nothing twice
        done = project.htcgrid("redrive")
        assert (done.status, done.out.startswith("4 tasks are in the queue again.")) == (0, True)
    assert drained(project) == [0, 0]
    assert inside("failures").status == 0
    done = project.htcgrid("results", "--session", session)
    after = done.out.splitlines()
    assert (done.status, len(after)) == (0, 30)
    assert after[:26] == [line for line in before if '"succeeded"' in line]


def test_an_agent_whose_failures_were_redriven_before_its_end_ends_with_0(
    project: Project, inside: Inside, until: Callable[[Callable[[], object]], None]
) -> None:
    queue_project(project)
    mended = project.folder / "mended"
    broken = BROKEN.replace("== 0:", f"== 0 and not __import__('os').path.exists({str(mended)!r}):")
    project.write("job.py", broken)
    inside("submit", "tasks.jsonl")
    agent = project.start("run", "--quiet")
    until(lambda: inside("failures").out.startswith("failed 4 "))
    mended.touch()
    assert inside("redrive").status == 0
    until(lambda: inside("failures").out.startswith("No result is a failure"))
    agent.terminate()
    output_at_end(agent)
    assert agent.returncode == 0


def test_what_the_queue_set_aside_is_listed_and_put_again(project: Project, inside: Inside) -> None:
    queue_project(project)
    project.write("job.py", "import os\n\ndef handler(event, context):\n    os._exit(3)\n")
    project.tasks({"n": 1})
    inside("submit", "tasks.jsonl", "--session", "s")
    drained(project)
    listed = inside("failures")
    assert "dead letters 1\n  task s_1, handed out 3 times: exit at attempt 3" in listed.out
    project.write("job.py", MENDED)
    assert project.htcgrid("run", "--redrive", "--quiet", "--set", "source.drain=true").status == 0
    assert inside("failures").out == "No result is a failure.\n"


def test_cancelled_tasks_are_not_run_again_and_where_named_their_events_are_gone(
    project: Project, inside: Inside
) -> None:
    queue_project(project)
    project.tasks({"n": 1})
    inside("submit", "tasks.jsonl", "--session", "s")
    inside("cancel", "--session", "s")
    assert "nothing has failed but what was cancelled" in project.htcgrid("redrive").err
    named = project.htcgrid("redrive", "--kind", "cancelled")
    assert (named.status, "s_1: the event was not kept with the failure" in named.err) == (1, True)


# --- too many failures -------------------------------------------------------------------------------


def test_above_the_tolerated_share_the_run_stops_with_4_and_run_and_redrive_complete_the_job(project: Project) -> None:
    prepared(project, 5000, BROKEN.replace("% 7", "% 20"))
    done = project.htcgrid("run", "--set", "agent.tolerated_failures=1%")
    assert done.status == 4
    assert "tolerated_failures = 1%" in done.err
    assert 50 < done.summary["failed"] < 250
    assert len(project.results()) < 5000
    project.write("job.py", MENDED)
    assert project.htcgrid("redrive").status == 0
    assert project.htcgrid("run").status == 0
    assert len(project.results()) == 5000


def test_fail_fast_stops_at_the_first_failure(project: Project) -> None:
    project.write(
        "job.py", "import time\n\ndef handler(event, context):\n    time.sleep(0.05)\n    raise ValueError('no')\n"
    )
    project.tasks(*range(40))
    done = project.htcgrid("run", "--fail-fast")
    assert (done.status, len(project.results()) < 20) == (4, True)


def test_as_many_failures_as_are_tolerated_do_not_stop_a_run(project: Project) -> None:
    prepared(project)
    done = project.htcgrid("run", "--set", "agent.tolerated_failures=4")
    assert (done.status, done.summary["failed"], len(project.results())) == (1, 4, 30)


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_share_that_is_tolerated_is_one_of_all_tasks_in_a_run_with_redrive_too(
    project: Project, quiet: tuple[str, ...]
) -> None:
    project.tasks(*[{"raise": "no"}] * 3, *range(397))
    assert project.htcgrid("run").status == 1
    done = project.htcgrid("run", "--redrive", *quiet, "--set", "agent.tolerated_failures=1%")
    assert (done.status, done.summary["failed"]) == (1, 3), done.err


def test_a_redrive_counts_what_it_has_not_received_yet(tmp_path: Path) -> None:
    (tmp_path / "tasks.jsonl").write_text("1\n2\n3\n")
    plugin = plugins.load(TaskSource, "jsonl")
    failures = [Result(Task(each, b""), Outcome(each, b"{}", FailureKind.EXIT)) for each in ("1", "3")]
    with plugin(plugin.Config.model_validate({"path": tmp_path / "tasks.jsonl"}), Function()) as source:
        again = Again(source, failures)
        assert again.stats().states.waiting == 2
        assert len(again.receive(10, 1.0)) == 2
        assert again.stats().states.waiting == 0


def test_tolerated_failures_that_mean_nothing_are_refused(project: Project) -> None:
    for value in ("-1", "many", "101%", "1.%"):
        refused = project.htcgrid("run", "--set", f"agent.tolerated_failures={value}")
        assert (refused.status, "write a count of 0 or more" in refused.err) == (2, True)


# --- one task, looked at closely ---------------------------------------------------------------------


def test_invoke_replays_a_task_of_the_source(project: Project) -> None:
    prepared(project)
    done = project.htcgrid("invoke", "--task", "14")
    assert (done.status, json.loads(done.out)["errorMessage"], done.err) == (1, "no price for 14", "")
    assert "pricing 13" in on_a_terminal(project, "invoke", "--task", "13")
    unknown = project.htcgrid("invoke", "--task", "99")
    assert (unknown.status, "--task 99: there is no such task in the source" in unknown.err) == (2, True)


def test_invoke_replays_a_failure_that_was_kept_with_its_event(project: Project, inside: Inside) -> None:
    queue_project(project)
    inside("submit", "tasks.jsonl", "--session", "s")
    drained(project)
    assert json.loads(project.htcgrid("invoke", "--task", "s_14").out)["errorMessage"] == "no price for 14"


def test_invoke_debug_calls_the_handler_in_this_very_process(project: Project) -> None:
    project.write(
        "job.py",
        "import os\n\ndef handler(event, context):\n    print('asks', input())\n    breakpoint()\n"
        "    return [os.environ['COLOUR'], context.client_context.custom['task_id'], event]\n",
    )
    project.tasks({"n": 1})
    arguments = ("invoke", "--task", "1", "--debug", "--set", 'function.environment={COLOUR="red"}')
    done = project.htcgrid(*arguments, stdin="me\nevent['n'] = 2\ncontinue\n")
    assert done.status == 0, done.err
    assert done.out.startswith("asks me\n")
    assert done.out.endswith('["red", "1", {"n": 2}]\n')


def test_invoke_debug_finds_what_the_functions_layers_hold(project: Project) -> None:
    (project.folder / "layer" / "python").mkdir(parents=True)
    (project.folder / "layer" / "bin").mkdir()
    project.write("layer/python/layered.py", "WORD = 'from the layer'\n")
    project.write("layer/bin/tool", "#!/bin/sh\necho from its bin\n").chmod(0o755)
    project.write(
        "job.py",
        "import subprocess\n\nimport layered\n\ndef handler(event, context):\n"
        "    return [layered.WORD, subprocess.check_output(['tool'], text=True)]\n",
    )
    done = project.htcgrid("invoke", "{}", "--debug", "--set", 'function.layers=["layer"]')
    assert done.status == 0, done.err
    assert done.out == '["from the layer", "from its bin\\n"]\n'


# --- what ran ----------------------------------------------------------------------------------------


def test_a_run_into_a_place_that_holds_no_manifest_says_so(project: Project) -> None:
    project.tasks({"n": 1})
    done = project.htcgrid("run", "--set", "sink.path=/dev/null")
    assert done.status == 0, done.err
    assert "this run is in no manifest: the sink has no place for one" in done.err


def test_each_run_adds_what_ran_to_the_manifest_beside_the_results(project: Project) -> None:
    prepared(project)
    project.htcgrid("run")
    project.htcgrid("run")
    project.write("job.py", MENDED)
    project.htcgrid("redrive", "--set", "function.memory=1024")
    first, second, third = lines((project.folder / "results.jsonl.manifest.jsonl").read_text())
    assert [each["command"] for each in (first, second, third)] == ["run", "run", "redrive"]
    assert [each["exit_code"] for each in (first, second, third)] == [1, 1, 0]
    assert (first["succeeded"], first["failed"], second["already_stored"]) == (26, {"handler_error": 4}, 30)
    assert (third["succeeded"], third["function"]["memory"], third["plane"]["plugin"]) == (4, 1024, "process")
    assert first["code_sha256"] == second["code_sha256"] != third["code_sha256"]
    assert first["config_sha256"] == second["config_sha256"] != third["config_sha256"]

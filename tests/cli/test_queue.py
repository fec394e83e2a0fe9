"""submit, results and what is said of a queue: the real program on a sqlite queue."""

import gzip
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from program_end import output_at_end
from queue_project import HTCGRID, Project, lines

from htcgrid.cli.results import _batches
from htcgrid.spi import Outcome, Result, Task

LIMIT = 120 * 2**20
"""Bytes of memory that a command may take, whatever it handles."""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


# --- submit ------------------------------------------------------------------------------------------


def test_a_session_is_submitted_run_and_read(project: Project) -> None:
    project.events({"n": 1}, {"n": 2}, {"n": 3})
    submitted = project.run("submit", "events.jsonl")
    session = submitted.stdout.strip()
    assert (submitted.returncode, len(session)) == (0, 36)
    assert f"3 tasks of session {session} are in the queue." in submitted.stderr
    assert project.drain().returncode == 0
    read = project.run("results", "--session", session)
    assert read.returncode == 0
    assert [line["output"] for line in lines(read.stdout)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert [line["id"] for line in lines(read.stdout)] == [f"{session}_{n}" for n in (1, 2, 3)]


def test_a_line_that_is_no_event_is_named_and_the_others_are_put(project: Project) -> None:
    done = project.run("submit", "-", "--session", "s", given='{"n": 1}\n{"n": \n\n{"n": 4}\n')
    assert done.returncode == 1
    assert "line 2: this is not JSON" in done.stderr
    assert "2 tasks of session s are in the queue. 1 lines were left out." in done.stderr
    project.drain()
    assert [line["id"] for line in project.results("--session", "s")] == ["s_1", "s_4"]


def test_ids_from_the_events_are_kept_and_an_id_that_is_there_is_refused(project: Project) -> None:
    project.submit({"n": 1, "key": "a"}, {"n": 2, "key": "b"}, options=("--id-field", "key"))
    project.events({"n": 3, "key": "c"}, {"n": 9, "key": "a"})
    again = project.run("submit", "events.jsonl", "--id-field", "key", "--session", "t")
    assert again.returncode == 2
    assert "'a'" in again.stderr
    assert "0 tasks of session t are in the queue." in again.stderr
    project.drain()
    assert sorted(project.ran()) == ["a", "b"]


@pytest.mark.parametrize("options", [("--session", "s"), ()], ids=["a session of its own", "any session"])
def test_a_submit_that_was_killed_is_completed_by_the_same_command(project: Project, options: tuple[str, ...]) -> None:
    project.events(*({"n": n} for n in range(20_000)))
    submitting = project.start("submit", "events.jsonl", *options)
    queue = project.folder / "queue.db"
    while count(queue) == 0:
        assert submitting.poll() is None
    submitting.kill()
    output_at_end(submitting)
    assert 0 < count(queue) < 20_000
    again = project.run("submit", "events.jsonl", *options)
    assert again.returncode == 0, again.stderr
    assert f"20,000 tasks of session {again.stdout.strip()} are in the queue." in again.stderr
    assert count(queue) == 20_000
    assert not list(project.folder.glob(".*"))


def submitted_without_its_session(project: Project) -> str:
    """Submit where the session cannot be printed; returns what was said."""
    with Path("/dev/full").open("w") as full:
        lost = subprocess.run(
            [HTCGRID, "submit", "events.jsonl"],
            cwd=project.folder,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert lost.returncode == 3
    return lost.stderr


def test_a_session_that_could_not_be_printed_is_gone_on_with_and_not_doubled(project: Project) -> None:
    project.events({"n": 1}, {"n": 2})
    submitted_without_its_session(project)
    again = project.run("submit", "events.jsonl")
    assert f"continuing session {again.stdout.strip()}" in again.stderr
    assert count(project.folder / "queue.db") == 2


def test_a_session_that_is_in_part_in_one_queue_is_not_gone_on_with_in_another(project: Project) -> None:
    project.events({"n": 1}, {"n": 2})
    said = submitted_without_its_session(project)
    elsewhere = project.run("submit", "events.jsonl", "--set", "source.path=elsewhere.db")
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert elsewhere.stdout.strip() not in said
    assert "was submitted in part" in elsewhere.stderr
    assert "continuing" not in elsewhere.stderr


def test_a_pipe_may_be_given_by_its_name(project: Project) -> None:
    submitted = project.run("submit", "/dev/stdin", given='{"n": 1}\n{"n": 2}\n')
    assert submitted.returncode == 0, submitted.stderr
    assert f"--session {submitted.stdout.strip()} completes it" in submitted.stderr
    project.drain()
    read = project.run("results", "-o", "/dev/stdout")
    assert sorted(line["output"]["n"] for line in lines(read.stdout)) == [1, 2]


def test_large_results_are_written_a_few_at_a_time() -> None:
    def coming() -> Iterator[Result]:
        for number in range(20):
            made.append(number)
            yield Result(Task(str(number), b""), Outcome(str(number), b"x" * (2 << 20)))

    made: list[int] = []
    first = next(_batches(coming()))
    assert len(made) == len(first) < 10


def test_ids_that_cannot_be_written_are_told(project: Project) -> None:
    project.events({"n": 1})
    done = project.run("submit", "events.jsonl", "--ids", "/dev/full", "--session", "s")
    assert done.returncode == 3
    assert "--ids /dev/full cannot be written: No space left on device" in done.stderr
    assert "1 tasks of session s are in the queue." in done.stderr
    assert "bug" not in done.stderr


def test_a_file_of_ids_that_cannot_be_opened_is_told_before_anything_is_put(project: Project) -> None:
    project.events({"n": 1})
    done = project.run("submit", "events.jsonl", "--ids", ".", "--session", "s")
    assert (done.returncode, done.stderr) == (
        2,
        "htcgrid: --ids . cannot be written: Is a directory. Name another file.\n",
    )
    assert json.loads(project.run("status", "--json").stdout)["queue"]["states"]["waiting"] == 0


@pytest.mark.parametrize(
    "command", [["submit", "events.jsonl"], ["results", "--wait"], ["cancel"], ["failures"], ["redrive"]]
)
def test_a_session_without_a_name_is_refused(project: Project, command: list[str]) -> None:
    """A script has one where its `session=$(htcgrid submit ...)` failed."""
    project.events({"n": 1})
    done = project.run(*command, "--session", "")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Invalid value for '--session': the name is empty." in done.stderr


def test_events_are_not_replaced_by_their_ids(project: Project) -> None:
    project.events({"n": 1})
    events = project.folder / "events.jsonl"
    before = events.read_bytes()
    done = project.run("submit", "events.jsonl", "--ids", "events.jsonl")
    assert done.returncode == 2
    assert "--ids events.jsonl: this file is read, and would be replaced. Name another file." in done.stderr
    assert events.read_bytes() == before


def test_an_id_with_a_space_at_its_end_is_read_as_submit_wrote_it(project: Project) -> None:
    project.submit({"n": 1, "key": "ACME "}, {"n": 2, "key": " b"}, options=("--id-field", "key", "--ids", "ids"))
    project.drain()
    read = project.run("results", "--ids", "ids")
    assert read.returncode == 0, read.stderr
    assert [line["id"] for line in lines(read.stdout)] == ["ACME ", " b"]


def test_a_mark_of_utf_8_is_no_part_of_the_first_id(project: Project) -> None:
    project.submit({"n": 1}, options=("--ids", "ids"))
    project.drain()
    ids = project.folder / "ids"
    ids.write_text(ids.read_text(), encoding="utf-8-sig")
    read = project.run("results", "--ids", "ids")
    assert (read.returncode, len(lines(read.stdout))) == (0, 1), read.stderr


def test_an_id_that_a_file_of_ids_cannot_hold_is_refused_before_it_is_put(project: Project) -> None:
    project.events({"n": 1, "key": "a\nb"})
    done = project.run("submit", "events.jsonl", "--id-field", "key", "--ids", "ids")
    assert done.returncode == 2
    assert "the id 'a\\nb' has a line break" in done.stderr
    assert "0 tasks of session" in done.stderr


def test_a_submit_that_came_to_its_end_is_another_session_the_next_time(project: Project) -> None:
    project.events({"n": 1})
    sessions = {project.run("submit", "events.jsonl").stdout for _ in range(2)}
    assert len(sessions) == 2
    assert count(project.folder / "queue.db") == 2


def count(queue: Path) -> int:
    """How many tasks are in it."""
    try:
        with closing(sqlite3.connect(queue)) as connection:
            return int(connection.execute("SELECT count(*) FROM tasks").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_the_highest_priority_runs_first(project: Project) -> None:
    project.submit({"n": 1}, {"n": 2}, session="low", options=("--priority", "-1"))
    project.submit({"n": 1}, {"n": 2}, session="middle")
    project.submit({"n": 1}, {"n": 2}, session="high", options=("--priority", "7"))
    project.drain()
    assert project.ran() == ["high_1", "high_2", "middle_1", "middle_2", "low_1", "low_2"]


def test_a_file_that_is_not_there_is_wrong_usage(project: Project) -> None:
    done = project.run("submit", "none.jsonl")
    assert (done.returncode, done.stdout) == (2, "")
    assert "none.jsonl" in done.stderr
    assert "the file does not exist" in done.stderr


def test_a_source_that_is_no_queue_is_wrong_usage_and_says_what_to_write(project: Project) -> None:
    project.events({"n": 1})
    done = project.run("submit", "events.jsonl", "--set", "source.plugin=jsonl", "--set", "source.path=x.jsonl")
    assert done.returncode == 2
    assert 'plugin = "sqlite"' in done.stderr


@pytest.mark.slow
def test_many_lines_take_no_more_memory_than_few(project: Project) -> None:
    many = 200_000
    with (project.folder / "events.jsonl").open("w") as file:
        file.writelines(f'{{"n": {n}}}\n' for n in range(many))
    submitted = _in_bounded_memory(project, "submit", "events.jsonl", "--session", "s")
    assert f"{many:,} tasks" in submitted
    cancelled = _in_bounded_memory(project, "cancel", "s_1")
    assert cancelled == "1 tasks cancelled.\n"
    assert len(project.results("s_1")) == 1


@pytest.mark.slow
def test_many_results_take_no_more_memory_than_few(project: Project) -> None:
    many = 200_000
    program = """
import sys
from htcgrid.builtin.sqlite_sink import SqliteSink
from htcgrid.spi import Function, Outcome, Result, Task
with SqliteSink(SqliteSink.Config(path=sys.argv[1]), Function()) as sink:
    for start in range(0, int(sys.argv[2]), 1000):
        numbers = range(start, start + 1000)
        sink.put([Result(Task(f"t{n}", b"", {"session_id": "s"}), Outcome(f"t{n}", b"%d" % n)) for n in numbers])
"""
    subprocess.run([sys.executable, "-c", program, project.folder / "results.db", str(many)], check=True)
    _in_bounded_memory(project, "results", "--session", "s", "-o", "results.jsonl.gz")
    with gzip.open(project.folder / "results.jsonl.gz") as file:
        assert [json.loads(line)["output"] for line in file] == list(range(many))


def _in_bounded_memory(project: Project, *arguments: str) -> str:
    """What a command prints, run with so much memory for its data and no more."""
    limit = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT})); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", limit, HTCGRID, *arguments],
        cwd=project.folder,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + (done.stderr if arguments[0] == "submit" else "")


# --- results -----------------------------------------------------------------------------------------


def test_wait_ends_when_the_session_has_run_though_others_wait(project: Project) -> None:
    project.submit({"n": 1, "sleep": 0.5}, {"n": 2}, session="mine", options=("--priority", "1"))
    project.submit({"n": 3, "sleep": 15}, session="other")
    agent = project.start("run", "--quiet")
    read = project.run("results", "--session", "mine", "--wait")
    assert [line["id"] for line in lines(read.stdout)] == ["mine_1", "mine_2"]
    assert read.returncode == 0
    assert project.results("--session", "other") == []
    agent.send_signal(signal.SIGKILL)
    output_at_end(agent)


def test_wait_by_ids_gives_them_in_their_order(project: Project) -> None:
    project.submit({"n": 1, "sleep": 0.5}, {"n": 2}, {"n": 3}, options=("--ids", "ids.txt"))
    assert (project.folder / "ids.txt").read_text() == "s_1\ns_2\ns_3\n"
    reader = project.start("results", "--ids", "ids.txt", "s_0", "--wait", "--count", "4")
    second = project.start("results", "s_3", "s_1", "--wait")
    project.events({"n": 0, "key": "s_0"})
    project.run("submit", "events.jsonl", "--id-field", "key")
    project.drain()
    assert [line["id"] for line in lines(output_at_end(reader)[0])] == ["s_0", "s_1", "s_2", "s_3"]
    assert [line["id"] for line in lines(output_at_end(second)[0])] == ["s_3", "s_1"]


def test_wait_by_ids_holds_back_what_is_stored_before_its_turn(project: Project) -> None:
    project.submit({"n": 1, "sleep": 2}, {"n": 2}, {"n": 3})
    agent = project.start("run", "--set", "planes.local.workers=2")
    assert [line["id"] for line in lines(project.run("results", "s_2", "s_3", "--wait").stdout)] == ["s_2", "s_3"]
    reader = project.start("results", "s_1", "s_3", "s_2", "--wait")
    assert [line["id"] for line in lines(output_at_end(reader)[0])] == ["s_1", "s_3", "s_2"]
    agent.terminate()
    output_at_end(agent)


def test_follow_goes_on_across_an_empty_queue_until_count(project: Project) -> None:
    reader = project.start("results", "--follow", "--count", "3")
    for number in range(3):
        project.submit({"n": number}, session=f"s{number}")
        project.drain()
    read, _ = output_at_end(reader)
    assert [line["output"]["n"] for line in lines(read)] == [0, 1, 2]
    assert reader.returncode == 0


def test_follow_is_ended_by_ctrl_c_with_130_and_whole_lines(project: Project) -> None:
    project.submit({"n": 1})
    project.drain()
    reader = project.start("results", "--follow")
    assert reader.stdout is not None
    assert json.loads(reader.stdout.readline())["output"] == {"n": 1}
    reader.send_signal(signal.SIGINT)
    rest, said = output_at_end(reader)
    assert (reader.returncode, rest) == (130, ""), said
    assert "Traceback" not in said


def test_a_task_without_a_result_is_named_with_exit_code_1(project: Project) -> None:
    project.submit({"n": 1})
    project.drain()
    read = project.run("results", "s_1", "s_2", "nonsense")
    assert [line["id"] for line in lines(read.stdout)] == ["s_1"]
    assert read.returncode == 1
    assert "no result yet, or no such task: s_2, nonsense." in read.stderr


def test_a_failed_task_shows_its_document_and_exit_code_1(project: Project) -> None:
    project.submit({"n": 1, "raise": True})
    assert project.drain().returncode == 1
    read = project.run("results", "--session", "s")
    assert read.returncode == 1
    (line,) = lines(read.stdout)
    assert (line["status"], line["failure"]) == ("failed", "handler_error")
    assert (line["error"]["errorType"], line["error"]["errorMessage"]) == ("ValueError", "no such price")


def test_the_output_file_may_be_written_again_and_holds_each_result_once(project: Project) -> None:
    project.submit({"n": 1}, {"n": 2})
    project.drain()
    for _ in range(2):
        assert project.run("results", "-o", "out.jsonl.gz").returncode == 0
    with gzip.open(project.folder / "out.jsonl.gz") as file:
        assert [json.loads(line)["output"]["n"] for line in file] == [1, 2]


@pytest.mark.parametrize("arguments", [("s_1", "--session", "s"), ("s_1", "--follow"), ("--count", "0")])
def test_options_that_contradict_are_wrong_usage(project: Project, arguments: tuple[str, ...]) -> None:
    assert project.run("results", *arguments).returncode == 2


# --- check and permissions ---------------------------------------------------------------------------


def test_check_says_what_does_not_fit_a_lease(tmp_path: Path) -> None:
    project = Project(tmp_path, lease=4)
    shown = project.run("check")
    assert shown.returncode == 0
    assert "source: a lease of 4 s is easily lost" in shown.stdout
    assert "the lease of 4 s is not above function.timeout = 20 s" in shown.stdout
    fitting = project.run("check", "--set", "source.lease_seconds=60").stdout
    assert "note" not in fitting


def test_permissions_of_a_grid_without_aws_are_none(project: Project) -> None:
    done = project.run("permissions", "agent")
    assert (done.returncode, done.stdout) == (2, "")
    assert "need no rights on AWS" in done.stderr


def test_a_run_on_one_machine_has_no_bill(project: Project) -> None:
    project.submit({"n": 1})
    assert "usage" not in json.loads(project.drain().stderr)["summary"]

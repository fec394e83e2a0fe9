"""The small commands, through the real program."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Project


# --- invoke ------------------------------------------------------------------------------------------


def test_invoke_prints_the_answer(project: Project) -> None:
    done = project.htcgrid("invoke", '{"x": "é"}')
    assert (done.status, json.loads(done.out), done.err) == (0, {"x": "é"}, "")


def test_invoke_prints_the_error_document_with_exit_code_1(project: Project) -> None:
    done = project.htcgrid("invoke", '{"raise": "no"}')
    assert done.status == 1
    assert json.loads(done.out)["errorType"] == "ValueError"


def test_invoke_reads_the_event_from_a_file_or_standard_input(project: Project) -> None:
    project.write("event.json", "[1]")
    assert project.htcgrid("invoke", "--event-file", "event.json").out == "[1]\n"
    assert project.htcgrid("invoke", "--event-file", "-", stdin="[2]").out == "[2]\n"


def test_invoke_reads_no_more_of_a_device_without_an_end_than_an_event_may_have(project: Project) -> None:
    done = project.htcgrid("invoke", "--event-file", "/dev/zero")
    assert (done.status, done.out) == (2, "")
    assert "--event-file /dev/zero: this is longer than 6,291,456 bytes" in done.err


def test_results_reads_no_more_of_a_device_without_an_end_than_an_id_may_have(project: Project) -> None:
    done = project.htcgrid("results", "--ids", "/dev/zero", "--set", "sink.plugin=sqlite", "--set", "sink.path=r.db")
    assert (done.status, done.out) == (2, "")
    assert "--ids /dev/zero" in done.err


def test_invoke_shows_the_log_as_lambda_writes_it(project: Project) -> None:
    done = project.htcgrid("invoke", '{"print": "hello"}', "--log")
    start, said, end, report = done.err.splitlines()
    request = start.removeprefix("START RequestId: ").removesuffix(" Version: $LATEST")
    assert len(request) == 36
    assert (said, end) == ("hello", f"END RequestId: {request}")
    assert report.startswith(f"REPORT RequestId: {request}\tDuration: ")
    assert "\tMemory Size: 512 MB\tMax Memory Used: " in report
    assert "\tInit Duration: " in report


def test_invoke_passes_attributes_on(project: Project) -> None:
    done = project.htcgrid("invoke", '{"custom": 1}', "--attribute", "session_id=s", "--attribute", "colour=red=ish")
    custom = json.loads(done.out)
    assert (custom["session_id"], custom["colour"], custom["attempt"]) == ("s", "red=ish", 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Give the event in one way: as an argument, with --event-file, or with --task."),
        (
            ["1", "--event-file", "htcgrid.toml"],
            "Give the event in one way: as an argument, with --event-file, or with --task.",
        ),
        (["--event-file", "nowhere.json"], "nowhere.json"),
        (["1", "--attribute", "colour"], "--attribute colour: write it as NAME=TEXT."),
        (["1", "--plane", "moon"], "plane = 'moon'"),
    ],
)
def test_invoke_refuses(project: Project, arguments: list[str], said: str) -> None:
    done = project.htcgrid("invoke", *arguments)
    assert done.status == 2
    assert said in done.err
    assert done.out == ""


def test_invoke_shows_why_a_function_does_not_load(project: Project) -> None:
    project.write("job.py", "import nothing_like_it")
    done = project.htcgrid("invoke", "1")
    assert done.status == 1
    assert json.loads(done.out)["errorType"] == "Runtime.ImportModuleError"


# --- init and check ----------------------------------------------------------------------------------


def test_init_writes_a_project_that_runs(project: Project) -> None:
    done = project.htcgrid("init", "made/here")
    assert done.status == 0
    made = type(project)(project.folder / "made" / "here")
    assert "htcgrid run" in done.out
    assert made.htcgrid("check").status == 0
    assert (made.htcgrid("run").status, len(made.results())) == (0, 4)
    assert {result["status"] for result in made.results()} == {"succeeded"}


def test_init_leaves_what_is_there_alone(project: Project) -> None:
    before = {path: path.read_bytes() for path in project.folder.iterdir()}
    done = project.htcgrid("init")
    assert done.status == 2
    assert "htcgrid.toml" in done.err
    assert "nothing was written. Name another folder." in done.err
    assert {path: path.read_bytes() for path in project.folder.iterdir()} == before


def test_init_where_nothing_can_be_written(project: Project) -> None:
    done = project.htcgrid("init", "tasks.jsonl/inside")
    assert done.status == 2
    assert "Traceback" not in done.err


def test_check_says_that_all_is_well(project: Project) -> None:
    done = project.htcgrid("check")
    assert done.status == 0
    assert "ok     source" in done.out
    assert "ok     planes.single" in done.out


def test_check_names_what_is_wrong_in_every_part(project: Project) -> None:
    project.write(
        "htcgrid.toml",
        '[source]\nplugin = "jsonl"\n[sink]\nplugin = "memory"\npath = "x"\n[planes.local]\nplugin = "proces"\n'
        '[planes.other]\nplugin = "process"\nworkers = -1\n',
    )
    done = project.htcgrid("check")
    assert done.status == 2
    assert "wrong  source: htcgrid.toml: [source] path: this key is missing" in done.out
    assert "wrong  sink: htcgrid.toml: [sink] path: there is no such key. It takes none." in done.out
    assert "wrong  planes.local: There is no compute plane named 'proces'" in done.out
    assert "wrong  planes.other: htcgrid.toml: [planes.other] workers = -1" in done.out


def test_check_opens_the_parts_where_it_is_asked_to(project: Project) -> None:
    (project.folder / "tasks.jsonl").unlink()
    assert project.htcgrid("check").status == 0
    done = project.htcgrid("check", "--open")
    assert done.status == 2
    assert "the file does not exist" in done.out


def test_check_warns_of_a_grace_below_the_timeout(project: Project) -> None:
    done = project.htcgrid("check", "--set", "function.timeout=60", "--set", "agent.grace=5")
    assert done.status == 0
    assert "note   agent.grace = 5 s is below function.timeout = 60 s" in done.out


# --- plugins, help -----------------------------------------------------------------------------------


def test_plugins_lists_what_is_installed(project: Project) -> None:
    done = project.htcgrid("plugins")
    assert done.status == 0
    lines = [line.split() for line in done.out.splitlines()]
    assert ["compute", "plane", "process"] in [words[:3] for words in lines]
    assert ["task", "source", "jsonl"] in [words[:3] for words in lines]
    assert ["result", "sink", "jsonl"] in [words[:3] for words in lines]


@pytest.mark.parametrize("command", ["run", "invoke", "init", "check", "plugins"])
def test_every_command_has_help(project: Project, command: str) -> None:
    done = project.htcgrid(command, "--help")
    assert done.status == 0
    assert f"Usage: htcgrid {command}" in done.out.replace("python -m htcgrid", "htcgrid")


@pytest.mark.parametrize("arguments", [["rnu"], ["run", "--no-such-flag"], ["run", "stray"]])
def test_wrong_usage_is_exit_code_2(project: Project, arguments: list[str]) -> None:
    done = project.htcgrid(*arguments)
    assert done.status == 2
    assert "Error: " in done.err


def test_it_says_its_version(project: Project) -> None:
    assert "0.1.0" in project.htcgrid("--version").out

"""The handlers of examples/runtimes, each in its language: the same events, the same outcomes."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from htcgrid.spi import FailureKind, Outcome

pytestmark = pytest.mark.slow  # compilers and virtual machines take long

EXAMPLES = Path(__file__).parents[2] / "examples" / "runtimes"
RUNTIMES: dict[str, dict[str, Any]] = {
    "python": {"handler": "handler.handler"},
    "node": {"handler": "index.handler", "runtime": "nodejs20.x"},
    "bash": {"handler": "function.handler", "runtime": "provided.al2023"},
    "cpp": {"runtime": "provided"},
    "java": {"command": ("java", "-XX:TieredStopAtLevel=1", "Handler.java"), "memory": 1024},
}
NEEDS = {"node": ("node",), "bash": ("bash", "curl", "jq"), "cpp": ("bash", "curl", "g++", "make"), "java": ("java",)}


@pytest.fixture(scope="module", params=RUNTIMES)
def language(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    missing = [program for program in NEEDS.get(name, ()) if shutil.which(program) is None]
    if missing:
        pytest.skip(f"{name} needs {', '.join(missing)}")
    return name


@pytest.fixture(scope="module")
def invoke(
    language: str, request: pytest.FixtureRequest, plane: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    code = tmp_path_factory.mktemp(language) / "code"
    shutil.copytree(EXAMPLES / language, code, ignore=shutil.ignore_patterns("mock_computation", "node_modules"))
    if language == "node":
        (code / "node_modules").symlink_to(request.getfixturevalue("node_modules"))
    if language == "cpp":
        subprocess.run(["make", "-C", str(code)], check=True, capture_output=True)
    return plane(function={"code": code, "timeout": 20, **RUNTIMES[language]})


def error(outcome: Outcome) -> Any:
    assert outcome.failure is not None
    return json.loads(outcome.payload)


def test_an_event_comes_back_as_it_went(invoke: Any) -> None:
    event = {"do": "echo", "text": "Zoë €", "list": [1, 2.5, None, True], "deep": {"er": {}}}

    assert invoke.answer(event) == event


def test_an_error_is_a_document_with_type_and_message(invoke: Any) -> None:
    outcome = invoke({"do": "raise", "message": "no such strike"})

    assert outcome.failure is FailureKind.HANDLER_ERROR
    assert error(outcome)["errorMessage"] == "no such strike"
    assert error(outcome)["errorType"] in {"ValueError", "Error", "Exception"}


def test_an_error_type_of_the_handlers_own_stays(invoke: Any) -> None:
    assert error(invoke({"do": "dance"}))["errorType"] == "UnknownEvent"


def test_an_exit_is_seen_and_the_next_event_gets_a_fresh_environment(invoke: Any) -> None:
    assert invoke.answer({"do": "count"}) >= 1

    outcome = invoke({"do": "exit", "status": 3})

    assert outcome.failure is FailureKind.EXIT
    assert error(outcome)["errorType"] == "Runtime.ExitError"
    assert error(outcome)["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
    assert invoke.answer({"do": "count"}) == 1


def test_an_environment_is_used_again(invoke: Any) -> None:
    first, second = invoke.answer({"do": "count"}), invoke.answer({"do": "count"})

    assert second == first + 1


def test_a_handler_past_its_timeout_is_stopped(invoke: Any) -> None:
    invoke.answer({"do": "count"})  # it is up: the timeout is the handler's

    outcome = invoke({"do": "sleep", "seconds": 30}, timeout=0.3)

    assert outcome.failure is FailureKind.TIMEOUT
    assert error(outcome)["errorMessage"].endswith("Error: Task timed out after 0.30 seconds")
    assert invoke.answer({"do": "sleep", "seconds": 0.01}) == "slept"


def test_what_is_printed_is_the_log(invoke: Any) -> None:
    outcome = invoke({"do": "print", "text": "forty-two"})

    assert json.loads(outcome.payload) is None
    assert b"forty-two\n" in outcome.log_tail
    assert b"forty-two" not in invoke({"do": "echo"}).log_tail


def test_the_handler_is_told_of_its_task(invoke: Any) -> None:
    outcome = invoke({"do": "context"}, session_id="s-1", colour="green")

    told = json.loads(outcome.payload)
    assert told["requestId"] == outcome.task_id
    assert told["custom"] == {"task_id": outcome.task_id, "session_id": "s-1", "attempt": 1, "colour": "green"}


def test_time_and_memory_are_measured(invoke: Any) -> None:
    outcome = invoke({"do": "sleep", "seconds": 0.2})

    # Node counts a timer in whole milliseconds: it may wake up to one early.
    assert 199 <= outcome.duration_ms < 5000
    assert outcome.billed_ms >= outcome.duration_ms
    assert outcome.max_memory_mb > 0

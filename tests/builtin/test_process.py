"""The process plane through its interface: each way a handler can end, and what is left of it."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime import process_memory
from htcgrid.runtime.fork_server import ForkServer
from htcgrid.runtime.identity import request_id
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Rejected, Task, Unavailable, Unstarted

LONG = 30.0
HERE = Path(__file__).parent
Do = Callable[..., Outcome]


def plane(code: Path = HERE, handler: str = "handlers.handler", workers: int = 1, **options: Any) -> ProcessInvoker:
    inherit = options.pop("inherit", ())
    function = Function(handler=handler, code=code, **{"timeout": LONG, "memory": 256, **options})
    return ProcessInvoker(ProcessInvoker.Config(workers=workers, inherit=inherit), function)


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessInvoker]:
    """One worker, replaced whenever it ends: what follows on a failure here is "the next task"."""
    with plane() as invoker:
        yield invoker


@pytest.fixture
def do(shared: ProcessInvoker) -> Do:
    return lambda what, **event: run(shared, {"do": what, **event}, event.pop("timeout", 20.0))


def run(invoker: ProcessInvoker, event: object, timeout: float = 20.0, task_id: str = "t", attempt: int = 1) -> Outcome:
    [outcome] = invoker.invoke([Lease(Task(task_id, json.dumps(event).encode()), attempt)], timeout)
    assert isinstance(outcome, Outcome)
    assert outcome.task_id == task_id
    return outcome


def answer(outcome: Outcome) -> Any:
    assert outcome.failure is None, outcome
    return json.loads(outcome.payload)


def until(condition: Callable[[], object], what: str = "it never came true", seconds: float = LONG) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- each end has its kind and AWS's document, and the next task succeeds ------------------------------

ID = request_id("t")
ENDS: dict[str, tuple[dict[str, Any], FailureKind, dict[str, Any]]] = {
    "exits with 0": (
        {"do": "exit", "status": 0},
        FailureKind.EXIT,
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {ID} Error: Runtime exited without providing a reason",
        },
    ),
    "exits with 3": (
        {"do": "exit", "status": 3},
        FailureKind.EXIT,
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {ID} Error: Runtime exited with error: exit status 3",
        },
    ),
    "exits at once": (
        {"do": "abort", "status": 7},
        FailureKind.EXIT,
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {ID} Error: Runtime exited with error: exit status 7",
        },
    ),
    "kills itself": (
        {"do": "kill", "signal": 9},
        FailureKind.EXIT,
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {ID} Error: Runtime exited with error: signal: killed",
        },
    ),
    "terminates itself": (
        {"do": "kill", "signal": 15},
        FailureKind.EXIT,
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {ID} Error: Runtime exited with error: signal: terminated",
        },
    ),
    "reads address 0": (
        {"do": "crash"},
        FailureKind.EXIT,
        {
            "errorType": "Runtime.ExitError",
            "errorMessage": f"RequestId: {ID} Error: Runtime exited with error: signal: segmentation fault",
        },
    ),
    "loops for ever": (
        {"do": "spin"},
        FailureKind.TIMEOUT,
        {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {ID} Error: Task timed out after 0.50 seconds"},
    ),
    "sleeps too long": (
        {"do": "sleep", "seconds": 60},
        FailureKind.TIMEOUT,
        {"errorType": "Sandbox.Timedout", "errorMessage": f"RequestId: {ID} Error: Task timed out after 0.50 seconds"},
    ),
    "answers 7 MB": (
        {"do": "large", "bytes": 7_000_000},
        FailureKind.PAYLOAD_TOO_LARGE,
        {
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        },
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_handler_that(end: str, shared: ProcessInvoker) -> None:
    event, kind, document = ENDS[end]
    outcome = run(shared, event, timeout=0.5 if kind is FailureKind.TIMEOUT else 20.0)
    assert (outcome.failure, json.loads(outcome.payload)) == (kind, document)
    assert answer(run(shared, {"next": 1})) == {"next": 1}


def test_a_handler_that_eats_memory_ends_as_out_of_memory_and_the_next_succeeds(shared: ProcessInvoker) -> None:
    outcome = run(shared, {"do": "eat"})
    assert outcome.failure is FailureKind.OUT_OF_MEMORY
    assert json.loads(outcome.payload) == {
        "errorType": "Runtime.OutOfMemory",
        "errorMessage": f"RequestId: {ID} Error: Runtime exited with error: signal: killed",
    }
    assert outcome.max_memory_mb >= 256
    assert answer(run(shared, 1)) == 1


def test_a_handler_that_raises_ends_as_its_error_with_its_own_frames_alone(do: Do) -> None:
    outcome = do("raise", text="no é")
    document = json.loads(outcome.payload)
    assert outcome.failure is FailureKind.HANDLER_ERROR
    assert (document["errorType"], document["errorMessage"], document["requestId"]) == ("Strange", "no é", ID)
    assert len(document["stackTrace"]) == 2
    assert "handlers.py" in document["stackTrace"][0]
    assert document.keys() == {"errorType", "errorMessage", "requestId", "stackTrace"}


def test_a_handler_that_raises_keeps_its_worker(do: Do) -> None:
    before = answer(do("pid"))
    do("raise")
    assert answer(do("pid")) == before


@pytest.mark.parametrize("what", ["set", "generator", "await"])
def test_an_answer_that_json_cannot_hold_is_a_marshal_error(do: Do, what: str) -> None:
    outcome = do(what)
    document = json.loads(outcome.payload)
    assert outcome.failure is FailureKind.HANDLER_ERROR
    assert document["errorType"] == "Runtime.MarshalError"
    assert document["errorMessage"].startswith("Unable to marshal response: ")
    assert document["stackTrace"] == []
    assert answer(do("none")) is None


def test_an_interrupt_in_the_handler_ends_the_process(do: Do) -> None:
    assert do("interrupt").failure is FailureKind.EXIT
    assert answer(do("none")) is None


def test_a_handler_that_prints_a_megabyte_answers_with_the_end_of_it(do: Do) -> None:
    outcome = do("print", bytes=1_000_000)
    assert answer(outcome) == "done"
    assert outcome.log_tail == b"x" * (4096 - 7) + b"the end"
    assert do("none").log_tail == b""


def test_what_a_killed_handler_printed_last_is_kept(shared: ProcessInvoker) -> None:
    [outcome] = shared.invoke([Lease(Task("t", b'{"do": "say", "text": "hello"}'))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.log_tail == b"hello\n"
    assert b"a warning of mine" in run(shared, {"do": "log"}).log_tail


def test_an_event_that_is_not_json_is_an_unmarshal_error(shared: ProcessInvoker) -> None:
    [outcome] = shared.invoke([Lease(Task("t", b"{nonsense"))], 20.0)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is FailureKind.HANDLER_ERROR
    assert json.loads(outcome.payload)["errorType"] == "Runtime.UnmarshalError"


def test_an_event_past_6_mib_is_refused_and_never_runs(shared: ProcessInvoker) -> None:
    outcome = run(shared, "x" * 6_291_456)
    assert outcome.failure is FailureKind.PAYLOAD_TOO_LARGE
    assert json.loads(outcome.payload)["errorType"] == "RequestTooLargeException"


def test_events_and_answers_of_the_largest_size_pass(shared: ProcessInvoker) -> None:
    text = "x" * (6_291_456 - 2)
    assert answer(run(shared, text)) == text


def test_an_answer_that_looks_like_an_error_is_an_answer(do: Do) -> None:
    assert answer(do("error"))["errorType"] == "Looks"


def test_json_is_as_aws_writes_it(do: Do) -> None:
    # From Python 3.12 on AWS's client escapes nothing that need not be.
    accented = "\\u00e9" if sys.version_info < (3, 12) else "é"
    assert do("json").payload == f'{{"1": "c", "d": 1.50, "t": [1, 2], "n": NaN, "u": "{accented}"}}'.encode()
    assert json.loads(do("bytes", x=1).payload) == {"do": "bytes", "x": 1}
    assert do("none").payload == b"null"


# --- where it runs -----------------------------------------------------------------------------------


def test_the_context_is_as_on_lambda(shared: ProcessInvoker) -> None:
    task = Task("t-7", b'{"do": "context"}', {"session_id": "s", "priority": "3", "task_id": "not this"})
    [outcome] = shared.invoke([Lease(task, attempt=2)], 20.0)
    assert isinstance(outcome, Outcome)
    context = answer(outcome)
    assert 18_000 < context.pop("remaining") <= 20_000
    assert context.pop("log_stream_name").endswith(f"[$LATEST]{outcome.environment}")
    assert context == {
        "aws_request_id": request_id("t-7"),
        "function_name": "handlers",
        "function_version": "$LATEST",
        "invoked_function_arn": "arn:aws:lambda:us-east-1:012345678912:function:handlers",
        "memory_limit_in_mb": "256",
        "log_group_name": "/aws/lambda/handlers",
        "identity": [None, None],
        "tenant_id": None,
        "custom": {"task_id": "t-7", "session_id": "s", "attempt": 2, "priority": "3"},
    }


@pytest.mark.parametrize("task_id", ["é", 'a"b', "line\nbreak", "x" * 2000])
def test_any_text_is_an_id(shared: ProcessInvoker, task_id: str) -> None:
    assert answer(run(shared, {"do": "context"}, task_id=task_id))["custom"]["task_id"] == task_id


def test_a_lone_surrogate_in_an_id_harms_nobody(shared: ProcessInvoker) -> None:
    # As text of plain letters: from Python 3.12 on no answer can hold a lone surrogate.
    assert answer(run(shared, {"do": "id_in_ascii"}, task_id="\ud800")) == ascii("\ud800")


def test_a_uuid_as_id_is_the_request_id() -> None:
    assert request_id("0f8fad5b-d9cb-469f-a165-70867728950e") == "0f8fad5b-d9cb-469f-a165-70867728950e"


def test_the_environment_is_lambdas_and_the_users_and_nothing_of_the_shells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("MY_TOKEN", "secret")
    monkeypatch.setenv("WANTED", "yes")
    with plane(environment={"MODEL": "heston"}, inherit=["WANTED"]) as invoker:
        found = answer(run(invoker, {"do": "environment"}))
    assert "secret" not in found.values()
    wanted = {
        "MODEL": "heston",
        "WANTED": "yes",
        "_HANDLER": "handlers.handler",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info.major}.{sys.version_info.minor}",
        "AWS_LAMBDA_FUNCTION_NAME": "handlers",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/handlers",
        "LAMBDA_TASK_ROOT": str(HERE),
        "TZ": ":UTC",
        "LANG": "en_US.UTF-8",
    }
    assert {name: found.get(name) for name in wanted} == wanted


def test_the_code_is_the_current_folder_and_first_on_the_path(do: Do) -> None:
    assert answer(do("path")) == [str(HERE), str(HERE)]


def test_an_environment_is_used_again_and_keeps_its_globals_until_it_ends() -> None:
    with plane() as invoker:
        first = run(invoker, {"do": "count"})
        assert [answer(first), answer(run(invoker, {"do": "count"}))] == [1, 2]
        run(invoker, {"do": "exit", "status": 1})
        fresh = run(invoker, {"do": "count"})
        assert answer(fresh) == 1
        assert fresh.environment != first.environment
        assert first.init_ms is not None
        assert fresh.init_ms is not None


def test_only_the_first_invocation_of_an_environment_has_an_init_duration(do: Do) -> None:
    do("exit", status=1)
    assert do("none").init_ms is not None
    assert do("none").init_ms is None


@pytest.mark.parametrize("name", ["json.py", "socket.py", "random.py"])
def test_a_file_of_the_job_that_is_named_like_a_module_of_ours_harms_nothing_but_itself(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("raise ValueError('not for you')")
    (tmp_path / "job.py").write_text("def handler(event, context): return event")
    with plane(tmp_path, "job.handler") as invoker:
        assert answer(run(invoker, 1)) == 1


# --- functions that do not load ----------------------------------------------------------------------

BROKEN = {
    "raise ValueError('at import')": ("job.handler", "ValueError"),
    "import nothing_of_that_name": ("job.handler", "Runtime.ImportModuleError"),
    "def handler(": ("job.handler", "Runtime.UserCodeSyntaxError"),
    "x = 1": ("job.handler", "Runtime.HandlerNotFound"),
    "y = 1": ("nowhere.handler", "Runtime.ImportModuleError"),
    "z = 1": ("handler", "Runtime.MalformedHandlerName"),
    "import os; os._exit(3)": ("job.handler", "Runtime.ExitError"),
    "import os; os.kill(os.getpid(), 11)": ("job.handler", "Runtime.ExitError"),
}


@pytest.mark.parametrize("code", BROKEN)
def test_a_function_that_does_not_load_is_an_init_error_with_its_document(tmp_path: Path, code: str) -> None:
    handler, error_type = BROKEN[code]
    (tmp_path / "job.py").write_text(code)
    with plane(tmp_path, handler) as invoker:
        outcomes = [run(invoker, 1) for _ in range(2)]
    for outcome in outcomes:
        assert (outcome.failure, json.loads(outcome.payload)["errorType"]) == (FailureKind.INIT_ERROR, error_type)


def test_a_worker_that_is_killed_while_it_loads_has_ended_and_its_function_may_load_another_time(
    tmp_path: Path,
) -> None:
    killed = "import os, pathlib\nif not pathlib.Path('again').exists():\n"
    killed += "    pathlib.Path('again').touch(); os.kill(os.getpid(), 9)\ndef handler(event, context): return event"
    (tmp_path / "job.py").write_text(killed)
    with plane(tmp_path, "job.handler") as invoker:
        assert run(invoker, 1).failure is FailureKind.EXIT
        assert answer(run(invoker, 1)) == 1


def test_a_function_that_loads_for_longer_than_it_may_is_an_init_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.spi.limits.INIT_SECONDS", 0.2)
    (tmp_path / "job.py").write_text("import time; time.sleep(60)")
    with plane(tmp_path, "job.handler") as invoker:
        assert run(invoker, 1, timeout=0.2).failure is FailureKind.INIT_ERROR


def test_environments_that_compute_as_they_load_have_their_full_time_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("htcgrid.spi.limits.INIT_SECONDS", 0.0)
    code = "import time\nwhile time.process_time() < 0.4: pass\ndef handler(event, context): time.sleep(0.2)"
    (tmp_path / "job.py").write_text(code)
    workers = 2 * len(os.sched_getaffinity(0)) + 2
    outcomes: list[Outcome] = []
    with plane(tmp_path, "job.handler", workers) as invoker:
        calls = [threading.Thread(target=lambda: outcomes.append(run(invoker, 1, timeout=10))) for _ in range(workers)]
        for call in calls:
            call.start()
        for call in calls:
            call.join(LONG)
    assert [outcome.failure for outcome in outcomes] == [None] * workers


# --- batches -----------------------------------------------------------------------------------------


def batch(*events: object) -> list[Lease]:
    return [Lease(Task(str(number), json.dumps(event).encode())) for number, event in enumerate(events)]


def test_a_batch_is_answered_in_full(shared: ProcessInvoker) -> None:
    assert answers(shared, batch(*range(500))) == {str(number): number for number in range(500)}


def answers(invoker: ProcessInvoker, leases: list[Lease]) -> dict[str, Any]:
    """All of them, whatever was given up unstarted being handed over again, as the agent does."""
    found: dict[str, Any] = {}
    while waiting := [lease for lease in leases if lease.task.id not in found]:
        for item in list(invoker.invoke(waiting, 20.0)):
            if isinstance(item, Outcome):
                assert item.task_id not in found
                found[item.task_id] = answer(item)
    return found


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken back from behind a task that a busy machine holds up."""
    monkeypatch.setattr("htcgrid.runtime.environment._BEHIND_SECONDS", LONG)


@pytest.mark.timing
@pytest.mark.usefixtures("unhurried")
def test_answers_that_are_ready_are_not_held_back_by_a_long_task_behind_them(shared: ProcessInvoker) -> None:
    outcomes = shared.invoke(batch(0, 1, {"do": "spin"}), 1.0)
    began = time.monotonic()
    assert [next(iter(outcomes)).task_id for _ in range(2)] == ["0", "1"]
    assert time.monotonic() - began < 0.9, "held back until the long task ended"
    [last] = outcomes
    assert isinstance(last, Outcome)
    assert last.failure is FailureKind.TIMEOUT


def test_tasks_behind_a_slow_one_are_given_up_at_once_and_have_not_run(shared: ProcessInvoker, tmp_path: Path) -> None:
    mark = {"do": "mark", "path": str(tmp_path / "ran")}
    outcomes = shared.invoke(batch({"do": "sleep", "seconds": 1}, mark, mark), 20.0)
    assert [next(iter(outcomes)) for _ in range(2)] == [Unstarted("1"), Unstarted("2")]
    [slow] = outcomes
    assert isinstance(slow, Outcome)
    assert slow.failure is None
    assert answer(run(shared, 1)) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("end", [{"do": "abort", "status": 1}, {"do": "kill", "signal": 9}, {"do": "crash"}])
def test_a_task_that_ends_its_worker_takes_no_batch_mate_with_it(
    shared: ProcessInvoker, end: object, tmp_path: Path
) -> None:
    mark = {"do": "mark", "path": str(tmp_path / "ran")}
    found = {item.task_id: item for item in shared.invoke(batch(0, 1, end, mark, mark), 20.0)}
    ended = found.pop("2")
    assert isinstance(ended, Outcome)
    assert ended.failure is FailureKind.EXIT
    for task_id in "01":
        item = found.pop(task_id)
        assert isinstance(item, Outcome)
        assert answer(item) == int(task_id)
    assert list(found.values()) == [Unstarted("3"), Unstarted("4")]
    assert not (tmp_path / "ran").exists()


@pytest.mark.usefixtures("unhurried")
def test_a_batch_with_an_event_that_is_too_large_runs_the_others(shared: ProcessInvoker) -> None:
    found = {item.task_id: item for item in shared.invoke(batch(0, "x" * 6_291_456, 2), 20.0)}
    assert {task_id: getattr(item, "failure", item) for task_id, item in found.items()} == {
        "0": None,
        "1": FailureKind.PAYLOAD_TOO_LARGE,
        "2": None,
    }


def test_a_batch_of_answers_larger_than_any_buffer_is_answered_in_full(shared: ProcessInvoker) -> None:
    events = [{"do": "large", "bytes": 100_000 + number} for number in range(12)]
    sizes = {task_id: len(text) for task_id, text in answers(shared, batch(*events)).items()}
    assert sizes == {str(number): 100_000 + number for number in range(12)}


@pytest.mark.usefixtures("unhurried")
def test_each_task_of_a_batch_has_the_timeout_for_itself(shared: ProcessInvoker) -> None:
    outcomes = list(shared.invoke(batch(*[{"do": "sleep", "seconds": 0.4}] * 8), 2.5))
    assert [item.failure for item in outcomes if isinstance(item, Outcome)] == [None] * 8


# --- cancel ------------------------------------------------------------------------------------------


def test_a_running_task_that_is_cancelled_is_stopped_and_the_next_succeeds(
    shared: ProcessInvoker, tmp_path: Path
) -> None:
    mark = tmp_path / "began"
    found: list[Outcome] = []
    event = {"do": "mark", "path": str(mark), "seconds": 60}
    running = threading.Thread(target=lambda: found.append(run(shared, event, task_id="long")))
    running.start()
    until(mark.exists)
    shared.cancel(["other"])
    shared.cancel(["long", "other"])
    running.join(LONG)
    assert [outcome.failure for outcome in found] == [FailureKind.CANCELLED]
    assert answer(run(shared, 1)) == 1


def test_a_task_that_is_cancelled_while_its_environment_is_started_is_stopped(
    shared: ProcessInvoker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid, spawn = answer(run(shared, {"do": "pid"})), ForkServer.spawn
    asked, cancelled = threading.Event(), threading.Event()

    def after_the_cancel(*arguments: Any) -> tuple[int, int]:
        asked.set()
        assert cancelled.wait(LONG)
        return spawn(*arguments)

    monkeypatch.setattr(ForkServer, "spawn", after_the_cancel)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    found: list[Outcome] = []
    event = {"do": "mark", "path": str(tmp_path / "ran"), "seconds": 60}
    running = threading.Thread(target=lambda: found.append(run(shared, event)))
    running.start()
    assert asked.wait(LONG)
    shared.cancel(["t"])
    cancelled.set()
    running.join(LONG)
    assert [outcome.failure for outcome in found] == [FailureKind.CANCELLED]
    assert answer(run(shared, 1)) == 1, "the cancel meant that one call"


# --- what is left behind -----------------------------------------------------------------------------


@pytest.mark.parametrize("session", [False, True], ids=["in its group", "in a session of its own"])
@pytest.mark.parametrize("then", ["spin", "exit"])
def test_the_children_of_a_handler_end_with_its_worker(tmp_path: Path, session: bool, then: str) -> None:
    (tmp_path / "job.py").write_text(
        "import pathlib, subprocess, sys, os\n"
        "def handler(event, context):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],\n"
        "        start_new_session=event['session'])\n"
        "    pathlib.Path(event['path']).write_text(str(child.pid))\n"
        "    if event['then'] == 'exit': os._exit(1)\n"
        "    while True: pass\n"
    )
    noted = tmp_path / "pid"
    with plane(tmp_path, "job.handler") as invoker:
        outcome = run(invoker, {"session": session, "then": then, "path": str(noted)}, timeout=1.0)
        assert outcome.failure in {FailureKind.TIMEOUT, FailureKind.EXIT}
        pid = int(noted.read_text())
        until(lambda: not is_alive(pid), f"{pid} is left")


@pytest.mark.parametrize("what", ["child", "daemon"])
def test_nothing_a_handler_started_outlives_the_plane(what: str) -> None:
    with plane() as invoker:
        pid = answer(run(invoker, {"do": what, "session": True}))
        assert is_alive(pid)
    until(lambda: not is_alive(pid), f"{pid} is left")


@pytest.mark.parametrize("what", ["child", "daemon"])
def test_what_a_living_worker_has_started_goes_on_when_another_worker_ends(what: str) -> None:
    with plane(workers=2) as invoker:

        def at_once(*events: Any) -> list[int]:
            """The answers of both workers."""
            streams = [iter(invoker.invoke(batch(event), 20.0)) for event in events]
            answers = [answer(next(stream)) for stream in streams]  # type: ignore[arg-type]
            for stream in streams:
                list(stream)
            return answers

        started, ended = at_once({"do": what}, {"do": "pid"})
        os.kill(ended, signal.SIGKILL)
        until(lambda: not is_alive(ended))
        at_once({"do": "pid"}, {"do": "pid"})  # the ended one was reaped before another took its place
        assert is_alive(started)


def agent_with_workers(what: str) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A process that has the plane open with two running handlers; its pids and its descendants'."""
    script = f"""
import json, os, threading, time
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Task
function = Function(handler="handlers.handler", code={str(HERE)!r}, timeout=600)
with ProcessInvoker(ProcessInvoker.Config(workers=2), function) as invoker:
    def work():
        for event in ({{"do": {what!r}, "session": True}}, {{"do": "sleep", "seconds": 600}}):
            for item in invoker.invoke([Lease(Task("t", json.dumps(event).encode()))], 600):
                os.write(1, item.payload + b"\\n")
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    time.sleep(600)
"""
    agent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, start_new_session=True)
    assert agent.stdout is not None
    grandchildren = [int(agent.stdout.readline()) for _ in range(2)]
    family = descendants(agent.pid)
    assert len(family) >= 3, family  # the fork_server and two workers
    return agent, sorted({*family, *grandchildren})


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            for child in (thread / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def assert_all_end(agent: subprocess.Popen[bytes], family: Collection[int], seconds: float = LONG) -> None:
    """The agent, which was sent a signal, and then its family; nothing is left behind where this fails."""
    agent.wait(LONG)
    assert agent.stdout is not None
    agent.stdout.close()
    try:
        until(lambda: not any(map(is_alive, family)), f"some of {family} are left", seconds)
    finally:
        for pid in filter(is_alive, family):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_no_worker_outlives_an_agent_however_it_dies(number: int) -> None:
    agent, family = agent_with_workers("pid")
    agent.send_signal(number)
    assert_all_end(agent, family)


@pytest.mark.parametrize("which", ["the fork server", "its guard", "both"])
def test_no_worker_outlives_an_agent_that_was_killed_though_its_parents_were_stopped(which: str) -> None:
    agent, family = agent_with_workers("pid")
    guard, server = descendants(agent.pid)[:2]
    for pid in {"the fork server": [server], "its guard": [guard], "both": [server, guard]}[which]:
        os.kill(pid, signal.SIGSTOP)
    agent.kill()
    assert_all_end(agent, family)


@pytest.mark.parametrize("what", ["child", "daemon"])
def test_no_stray_process_of_a_handler_outlives_an_agent_that_was_killed(what: str) -> None:
    agent, family = agent_with_workers(what)
    agent.kill()
    assert_all_end(agent, family, seconds=3)


def test_a_plane_whose_fork_server_was_killed_gets_another_and_closes_quietly() -> None:
    """In a process of its own, for what the plane may leave open."""
    script = f"""
import json, os
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Task, Unavailable
before = len(os.listdir("/proc/self/fd"))
invoker = ProcessInvoker(ProcessInvoker.Config(workers=2), Function(handler="handlers.handler", code={str(HERE)!r}))
invoker.open()
first = list(invoker.invoke([Lease(Task("t", b"1"))], 20))[0].environment
os.kill(invoker._fork_server._program.pid, 9)
now = first
while now == first:  # the workers end with it, a moment later
    try:
        now = getattr(list(invoker.invoke([Lease(Task("t", b"1"))], 20))[0], "environment", first)
    except Unavailable:
        pass
os.kill(invoker._fork_server._program.pid, 9)
invoker.close()
print(len(os.listdir("/proc/self/fd")) - before)
"""
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=LONG)
    assert (found.stdout, found.stderr) == ("0\n", "")


def end_all(invoker: ProcessInvoker, pid: int) -> None:
    """Kill the fork server, and wait until its worker is gone with it, reaped by init."""
    assert invoker._fork_server is not None
    assert invoker._fork_server._program is not None
    invoker._fork_server._program.kill()
    deadline = time.monotonic() + LONG
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, "nobody reaps the worker"
        time.sleep(0.01)


def test_a_plane_closes_though_a_worker_ends_with_its_fork_server_just_before_it_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    family = process_memory.family
    with plane() as invoker:
        assert answer(run(invoker, "said")) == "said"

        def when_all_are_gone(pid: int) -> Iterator[int]:
            end_all(invoker, pid)
            return family(pid)

        monkeypatch.setattr(process_memory, "family", when_all_are_gone)


def test_a_worker_that_is_gone_before_it_is_watched_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    open_pidfd = os.pidfd_open
    invoker = plane()

    def when_all_are_gone(pid: int) -> int:
        monkeypatch.undo()
        end_all(invoker, pid)
        return open_pidfd(pid)

    monkeypatch.setattr(os, "pidfd_open", when_all_are_gone)
    with pytest.raises(Unavailable, match="was it killed"):
        invoker.open()
    invoker.close()


def test_a_call_under_way_is_not_cut_off_by_the_replacement_of_the_fork_server(monkeypatch: pytest.MonkeyPatch) -> None:
    fork_server = ForkServer({}, python=False)
    fork_server.open()
    assert fork_server._program is not None
    fork_server._program.kill()
    send, closing = socket.send_fds, threading.Thread(target=fork_server.close)

    def beside_a_close(*arguments: Any) -> int:
        closing.start()
        closing.join(0.2)
        return send(*arguments)

    monkeypatch.setattr(socket, "send_fds", beside_a_close)
    try:
        with pytest.raises(Unavailable):
            fork_server.reap(1)
    finally:
        closing.join()


def test_a_task_may_wait_for_an_environment_that_is_being_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that wait ask every 0.1 s whether the environments that are starting keep a processor busy."""
    spawn, invoker, found = ForkServer.spawn, plane(), list[bool]()

    def asked(server: ForkServer, request: Mapping[str, Any], fds: Sequence[int]) -> tuple[int, int]:
        environment = invoker.at(0)
        assert environment is not None
        found.append(environment.is_loading())
        return spawn(server, request, fds)

    monkeypatch.setattr(ForkServer, "spawn", asked)
    with invoker:
        assert answer(run(invoker, "said")) == "said"
    assert found == [True]


def test_a_ctrl_c_while_a_worker_is_started_leaves_nothing_and_is_no_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    others = descendants(os.getpid())
    receive, replies = ForkServer._receive, iter([False, True])

    def interrupted(server: ForkServer, control: socket.socket, seconds: float | None) -> bytes:
        if next(replies, False):
            raise KeyboardInterrupt
        return receive(server, control, seconds)

    monkeypatch.setattr(ForkServer, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt), plane(workers=2):
        pass
    assert set(descendants(os.getpid())) <= set(others)


def test_a_worker_that_died_while_idle_costs_no_task(do: Do) -> None:
    pid = answer(do("pid"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: not is_alive(pid))
    assert answer(do("none")) is None


def test_a_worker_that_prints_while_it_is_idle_fills_no_memory_and_answers(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "import pathlib, sys, threading\n"
        "def chatter():\n"
        "    for number in range(100_000):\n"
        "        print('x' * 1000)\n"
        "        pathlib.Path('count').write_text(str(number))\n"
        "def handler(event, context):\n"
        "    if event == 'begin': threading.Thread(target=chatter, daemon=True).start()\n"
        "    print('of the handler')\n"
        "    return event\n"
    )
    count = tmp_path / "count"
    with plane(tmp_path, "job.handler") as invoker:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert answer(run(invoker, "begin")) == "begin"

        def is_still() -> bool:  # its log is full, and nobody reads it
            size = count.read_text() if count.exists() else ""
            time.sleep(0.2)
            return bool(size) and size == count.read_text()

        until(is_still)
        assert int(count.read_text()) < 2000
        assert answer(run(invoker, "again")) == "again"
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


def test_closing_leaves_no_process_and_no_descriptor() -> None:
    with plane() as warm:  # whatever is opened once for all
        run(warm, 1)
    before, others = descriptors(), descendants(os.getpid())
    invoker = plane(workers=3)
    with invoker:
        for _ in range(3):
            run(invoker, {"do": "exit", "status": 1})
        # Where starts take long, a place is filled when it is needed: each call holds one until it is read to its end.
        calls = [iter(invoker.invoke(batch({"do": "pid"}), LONG)) for _ in range(3)]
        for call in calls:
            next(call)
        for call in calls:
            list(call)
        family = set(descendants(os.getpid())) - set(others)
        assert len(family) == 5  # the fork server, its guard, and three workers
    assert not any(map(is_alive, family))
    assert descriptors() == before


STRAYS = """
import os, time
def handler(event, context):
    if event == 'spread':
        for _ in range(4):  # each in a session of its own, below the one before
            if os.fork(): break
            os.setsid()
        else:
            os.environ.clear()
    time.sleep(60)
"""


@pytest.mark.parametrize("killed", ["the guard", "the fork server", "both", "nothing: the timeout"])
def test_nothing_outlives_what_it_was_started_by_however_it_hides(tmp_path: Path, killed: str) -> None:
    (tmp_path / "job.py").write_text(STRAYS)
    before = set(descendants(os.getpid()))
    with plane(tmp_path, "job.handler", workers=1) as invoker:
        guard = invoker._fork_server._program.pid  # type: ignore[union-attr]
        (server,) = descendants(guard)[:1]
        ended = threading.Event()

        def running() -> None:
            with contextlib.suppress(Unavailable):
                list(invoker.invoke([Lease(Task("t", b'"spread"'))], 3.0 if "timeout" in killed else 30.0))
            ended.set()

        thread = threading.Thread(target=running, daemon=True)
        thread.start()
        until(lambda: len(descendants(guard)) == 1 + 1 + 4)
        family = descendants(guard)
        for pid, which in ((guard, {"the guard", "both"}), (server, {"the fork server", "both"})):
            if killed in which:
                os.kill(pid, signal.SIGKILL)
        assert ended.wait(10)
        strays = [pid for pid in family if pid != server]
        if killed != "both":  # where both are killed at once, they are found when the plane looks after its workers
            until(lambda: not any(map(is_alive, strays)))
        thread.join()
    assert not any(map(is_alive, strays))
    until(lambda: set(descendants(os.getpid())) <= before)


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_worker_holds_no_descriptor_of_the_agents(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with secret.open("w") as held:
        os.set_inheritable(held.fileno(), True)
        with plane() as invoker:
            assert str(secret) not in answer(run(invoker, {"do": "fds"}))


# --- measured ----------------------------------------------------------------------------------------


def test_time_and_memory_are_measured(do: Do) -> None:
    before = time.time()
    outcome = do("sleep", seconds=0.2)
    assert before - 0.01 <= outcome.started <= time.time()
    assert 200 <= outcome.duration_ms < 2000
    assert outcome.duration_ms <= outcome.billed_ms < outcome.duration_ms + 1 or outcome.init_ms
    assert 5 < outcome.max_memory_mb < 256


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="there is no such folder"), plane(tmp_path / "none"):
        pass


def test_a_handler_that_prints_much_after_a_long_silence_is_not_held_up(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(
        "import time\n\ndef handler(event, context):\n    for _ in range(2):\n        time.sleep(0.4)\n"
        "        for _ in range(event):\n            print('x' * 1000)\n    return 'done'\n"
    )
    with plane(tmp_path, "late.handler") as invoker:
        outcome = run(invoker, 3000, timeout=LONG)
    assert answer(outcome) == "done"
    assert outcome.log_tail.endswith(b"x\n")

"""What a handler finds in its process, and leaves in it, as on AWS Lambda: on the default transport and over HTTP."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

import htcgrid
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

BOTH = pytest.mark.parametrize("transport", ["socket", pytest.param("http", marks=pytest.mark.slow)])


@contextmanager
def started(folder: Path, source: str, transport: str = "socket", **function: Any) -> Iterator[Callable[..., Outcome]]:
    """A plane of one worker around this handler; call it with an event."""
    (folder / "user.py").write_text(source)
    made = Function(**{"handler": "user.handler", "code": folder, "timeout": 20, **function})
    with ProcessInvoker(ProcessInvoker.Config(workers=1, transport=transport), made) as plane:

        def run(event: Any = None, timeout: float = 20.0) -> Outcome:
            (outcome,) = plane.invoke([Lease(Task(f"t-{time.monotonic_ns()}", json.dumps(event).encode()))], timeout)
            assert isinstance(outcome, Outcome), outcome
            return outcome

        yield run


def answer(outcome: Outcome) -> Any:
    assert outcome.failure is None, outcome
    return json.loads(outcome.payload)


# --- the time and the descriptors --------------------------------------------------------------------


@BOTH
def test_a_handler_that_freezes_the_time_is_measured_by_the_real_one(tmp_path: Path, transport: str) -> None:
    source = (
        "import time\n"
        "sleep = time.sleep\n"
        "def handler(event, context):\n"
        "    time.time = time.monotonic = time.time_ns = time.monotonic_ns = lambda: 0\n"
        "    sleep(0.05)\n"
    )
    with started(tmp_path, source, transport) as run:
        outcomes = [run() for _ in range(3)]
    assert [each.failure for each in outcomes] == [None] * 3
    assert all(50 <= each.duration_ms < 10_000 for each in outcomes)


@BOTH
def test_a_handler_that_closes_every_descriptor_loses_the_connection_of_the_socket_alone(
    tmp_path: Path, transport: str
) -> None:
    source = "import os\ndef handler(event, context): os.closerange(3, 4096)\n"
    with started(tmp_path, source, transport) as run:
        assert run().failure is (FailureKind.EXIT if transport == "socket" else None)


# --- variables ---------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(("zone", "hour"), [(None, 22), ("Asia/Tokyo", 7)])
def test_local_time_is_that_of_the_functions_zone(tmp_path: Path, transport: str, zone: str | None, hour: int) -> None:
    source = "import time\ndef handler(event, context): return time.localtime(1_700_000_000).tm_hour\n"
    environment = {"TZ": zone} if zone else {}
    with started(tmp_path, source, transport, environment=environment) as run:
        assert answer(run()) == hour


@BOTH
def test_a_handler_may_clear_its_environment_and_has_a_trace_again_in_the_next_invocation(
    tmp_path: Path, transport: str
) -> None:
    source = (
        "import os\nfrom unittest import mock\n"
        "def handler(event, context):\n"
        "    trace = os.environ.get('_X_AMZN_TRACE_ID')\n"
        "    with mock.patch.dict(os.environ, {'A': '1'}, clear=True): inside = dict(os.environ)\n"
        "    back = os.environ.get('_X_AMZN_TRACE_ID') == trace\n"
        "    os.environ.clear()\n"
        "    return [trace[:5], inside, back, dict(os.environ), os.environ.get('_X_AMZN_TRACE_ID')]\n"
    )
    with started(tmp_path, source, transport) as run:
        for _ in range(2):
            assert answer(run(timeout=5.0)) == ["Root=", {"A": "1"}, True, {}, None]


@BOTH
def test_variables_that_python_reads_at_its_start_have_their_effect(tmp_path: Path, transport: str) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "extra.py").write_text("VALUE = 42\n")
    source = (
        "import extra, sys, warnings\n"
        "def handler(event, context):\n"
        "    return [extra.VALUE, hash('x'), sys.dont_write_bytecode, warnings.filters[0][0], sys.stdout.encoding]\n"
    )
    environment = {
        "PYTHONPATH": str(tmp_path / "lib"),
        "PYTHONHASHSEED": "7",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONWARNINGS": "error",
        "PYTHONIOENCODING": "latin-1",
    }
    with started(tmp_path, source, transport, environment=environment) as run:
        first = answer(run())
    with started(tmp_path, source, transport, environment=environment) as run:
        assert answer(run()) == first
    assert [first[0], *first[2:]] == [42, True, "error", "iso8859-1"]


@BOTH
def test_the_agents_own_variables_are_in_no_environ_of_a_handler(
    tmp_path: Path, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-agents-own")
    source = (
        "import os\n"
        "def handler(event, context):\n"
        "    read = [open(f'/proc/{pid}/environ').read() for pid in ('self', os.getppid())]\n"
        "    return ['the-agents-own' in text for text in [*read, str(os.environ)]]\n"
    )
    with started(tmp_path, source, transport) as run:
        assert answer(run()) == [False, False, False]


@BOTH
def test_home_is_an_empty_folder_of_its_own_that_is_removed(tmp_path: Path, transport: str) -> None:
    source = (
        "import os\n"
        "def handler(event, context):\n"
        "    found = os.listdir(os.path.expanduser('~'))\n"
        "    open(os.path.expanduser('~/kept'), 'w').close()\n"
        "    return [os.environ['HOME'], found]\n"
    )
    with started(tmp_path, source, transport) as run:
        home, found = answer(run())
        assert found == []
        assert home != os.environ.get("HOME")
        assert Path(home, "kept").exists()
    assert not Path(home).exists()


# --- modules -----------------------------------------------------------------------------------------


# Some of Debian's Pythons have `fcntl` built in. A built-in module cannot hold a handler; AWS refuses it too.
@BOTH
@pytest.mark.parametrize("name", sorted({"resource", "mmap", "fcntl", "htcgrid"} - set(sys.builtin_module_names)))
def test_a_module_of_the_user_is_found_where_only_our_program_has_one_of_that_name(
    tmp_path: Path, transport: str, name: str
) -> None:
    (tmp_path / f"{name}.py").write_text("def handler(event, context): return 'mine'\n")
    with started(tmp_path, "", transport, handler=f"{name}.handler") as run:
        assert answer(run()) == "mine"


def test_workers_run_the_htcgrid_of_their_agent_though_another_one_is_installed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(Path(htcgrid.__file__).parent, site / "htcgrid", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "user.py").write_text(
        "import sys\n"
        "def handler(event, context):\n"
        "    frame, files = sys._getframe(), []\n"
        "    while frame:\n"
        "        files.append(frame.f_code.co_filename)\n"
        "        frame = frame.f_back\n"
        "    return files\n"
    )
    (tmp_path / "htcgrid.toml").write_text('[function]\nhandler = "user.handler"\n[planes.local]\nplugin = "process"\n')
    run = subprocess.run(
        [sys.executable, "-P", "-m", "htcgrid", "invoke", "null"],
        cwd=tmp_path,
        # Its lines would be counted as those of a second htcgrid.
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    ours = [file for file in json.loads(run.stdout) if "fork_server_main" in file]
    assert ours
    assert all(file.startswith(str(site)) for file in ours)


@BOTH
def test_monitoring_tools_find_aws_bootstrap_in_main(tmp_path: Path, transport: str) -> None:
    source = (
        "import __main__, sys\n"
        "old, seen = __main__.bootstrap.handle_event_request, []\n"
        "def wrapped(*arguments, **named):\n"
        "    seen.append(1)\n"
        "    return old(*arguments, **named)\n"
        "__main__.bootstrap.handle_event_request = wrapped\n"
        "def handler(event, context): return [len(seen), __main__.__name__, sys.argv[1:]]\n"
    )
    with started(tmp_path, source, transport) as run:
        assert answer(run()) == [1, "__main__", ["user.handler"]]


# --- the log -----------------------------------------------------------------------------------------


@BOTH
def test_opening_the_standard_streams_anew_keeps_what_was_printed_before(tmp_path: Path, transport: str) -> None:
    source = (
        "import subprocess\n"
        "STREAM = open('/dev/stdout', 'w')\n"
        "def handler(event, context):\n"
        "    print('first')\n"
        "    subprocess.run(['sh', '-c', 'echo second > /dev/stderr'], check=True)\n"
        "    print('third', file=STREAM, flush=True)\n"
    )
    with started(tmp_path, source, transport) as run:
        for _ in range(3):
            assert run().log_tail == b"first\nsecond\nthird\n"


@BOTH
def test_a_handler_that_prints_more_than_a_pipe_holds_goes_on(tmp_path: Path, transport: str) -> None:
    source = (
        "def handler(event, context):\n"
        "    for number in range(400):\n"
        "        print(str(number).rjust(20_000))\n"
        "    print('the end')\n"
    )
    with started(tmp_path, source, transport) as run:
        outcome = run()
        assert outcome.failure is None
        assert outcome.log_tail.endswith(b"399\nthe end\n")
        assert len(outcome.log_tail) == 4096


# --- ends --------------------------------------------------------------------------------------------


@BOTH
def test_a_handler_that_exits_ends_as_python_does(tmp_path: Path, transport: str) -> None:
    source = (
        "import atexit, pathlib, sys\n"
        "ROWS = open('rows', 'a')\n"
        "atexit.register(lambda: pathlib.Path('ended').write_text('yes'))\n"
        "def handler(event, context):\n"
        "    ROWS.write(f'{event}\\n')\n"
        "    if event == 2: sys.exit(3)\n"
    )
    with started(tmp_path, source, transport) as run:
        run(1)
        ended = run(2)
        assert ended.failure is FailureKind.EXIT
        assert b"exit status 3" in ended.payload
    assert (tmp_path / "rows").read_text() == "1\n2\n"
    assert (tmp_path / "ended").read_text() == "yes"


@BOTH
def test_an_error_document_past_the_limit_is_too_large_as_an_answer_is(tmp_path: Path, transport: str) -> None:
    source = "def handler(event, context): raise ValueError('x' * 7_000_000)\n"
    with started(tmp_path, source, transport) as run:
        outcome = run()
        assert outcome.failure is FailureKind.PAYLOAD_TOO_LARGE
        assert b"Function.ResponseSizeTooLarge" in outcome.payload


# --- processes of the handler ------------------------------------------------------------------------

FORKS = {
    "comes back": "if os.fork() == 0: return 'of the child'",
    "raises": "if os.fork() == 0: raise ValueError('of the child')",
    "exits": "if os.fork() == 0: sys.exit(0)",
    "is killed": "if os.fork() == 0: os.abort()",
    "is made by C code": "if ctypes.CDLL(None).fork() == 0: return 'of the child'",
}


@pytest.mark.parametrize("how", FORKS)
def test_a_forked_child_answers_for_nobody(tmp_path: Path, how: str) -> None:
    source = (
        "import ctypes, os, sys\n"
        "def handler(event, context):\n"
        f"    if event == 0:\n        {FORKS[how]}\n        os.wait()\n"
        "    print('task', event)\n"
        "    return event\n"
    )
    (tmp_path / "user.py").write_text(source)
    function = Function(handler="user.handler", code=tmp_path, timeout=5)
    leases = [Lease(Task(str(number), str(number % 10).encode())) for number in range(200)]
    with ProcessInvoker(ProcessInvoker.Config(workers=1), function) as plane:
        outcomes: list[Outcome] = []
        while left := leases[len(outcomes) :]:  # what was not begun behind a task that took long comes again
            outcomes += [each for each in plane.invoke(left, 5.0) if isinstance(each, Outcome)]
    assert [(each.task_id, answer(each)) for each in outcomes] == [(str(n), n % 10) for n in range(200)]
    assert all(f"task {n % 10}\n".encode() in each.log_tail for n, each in enumerate(outcomes))


def test_a_task_whose_forked_child_exits_has_its_timeout(tmp_path: Path) -> None:
    source = (
        "import os, sys, time\n"
        "def handler(event, context):\n"
        "    if os.fork() == 0: sys.exit(0)\n"
        "    os.wait()\n"
        "    time.sleep(60)\n"
    )
    with started(tmp_path, source) as run:
        outcome = run(timeout=0.5)
        assert outcome.failure is FailureKind.TIMEOUT
        assert 500 <= outcome.duration_ms < 5_000


def test_what_is_started_without_closing_descriptors_inherits_none_of_ours(tmp_path: Path) -> None:
    source = (
        "import subprocess\n"
        "def handler(event, context):\n"
        "    listing = ['ls', '-l', '/proc/self/fd']\n"
        "    return subprocess.run(listing, close_fds=False, capture_output=True, text=True).stdout\n"
    )
    with started(tmp_path, source) as run:
        open_files = answer(run())
        assert "socket:" not in open_files
        assert "memfd:" not in open_files
        assert open_files.count("pipe:") == 2


# --- signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("transport", ["socket", "http"])
def test_a_handler_goes_on_when_a_supervisor_signals_every_process(
    tmp_path: Path, number: int, transport: Literal["socket", "http"]
) -> None:
    source = (
        "import os, pathlib, time\n"
        "def handler(event, context):\n"
        "    pathlib.Path('pid.new').write_text(str(os.getpid()))\n"
        "    os.rename('pid.new', 'pid')\n"
        "    while not os.path.exists('sent'): time.sleep(0.01)\n"
        "    time.sleep(0.05)\n"
        "    return 'done'\n"
    )
    (tmp_path / "user.py").write_text(source)
    function = Function(handler="user.handler", code=tmp_path)
    with ProcessInvoker(ProcessInvoker.Config(workers=1, transport=transport), function) as plane:
        reports = plane.invoke([Lease(Task("1", b"null"))], 20.0)
        child = os.fork()
        if child == 0:  # the supervisor, since this thread supervises the worker
            try:
                deadline = time.monotonic() + 10
                while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                os.kill(int((tmp_path / "pid").read_text()), number)
                (tmp_path / "sent").touch()
            finally:
                os._exit(0)
        (outcome,) = reports
        os.waitpid(child, 0)
    assert isinstance(outcome, Outcome)
    assert answer(outcome) == "done"


@pytest.mark.parametrize("send", ["os.kill(os.getpid(), {})", "signal.raise_signal({})", "os.killpg(0, {})"])
@pytest.mark.parametrize(
    ("name", "word"), [("SIGTERM", b"terminated"), ("SIGHUP", b"hangup"), ("SIGINT", b"interrupt")]
)
def test_a_handler_that_signals_itself_ends_by_it(tmp_path: Path, send: str, name: str, word: bytes) -> None:
    source = "import os, signal, time\ndef handler(event, context):\n    {}\n    time.sleep(5)\n".format(
        send.format(f"signal.{name}")
    )
    with started(tmp_path, source) as run:
        outcome = run()
        assert outcome.failure is FailureKind.EXIT
        assert b"signal: " + word in outcome.payload


def test_a_handler_that_interrupts_itself_may_catch_it_as_often_as_it_does(tmp_path: Path) -> None:
    source = (
        "import _thread, os, signal, time\n"
        "def interrupted(send):\n"
        "    try:\n"
        "        send()\n"
        "        time.sleep(5)\n"
        "    except KeyboardInterrupt:\n"
        "        return True\n"
        "def handler(event, context):\n"
        "    shown = signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "    kill = lambda: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return [shown, interrupted(kill), interrupted(_thread.interrupt_main), interrupted(kill)]\n"
    )
    with started(tmp_path, source) as run:
        assert answer(run()) == [True, True, True, True]


def test_what_a_handler_starts_can_be_terminated(tmp_path: Path) -> None:
    source = (
        "import multiprocessing, os, signal, subprocess, sys, time\n"
        "def handler(event, context):\n"
        "    program = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "    program.terminate()\n"
        "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    child.start()\n"
        "    child.terminate()\n"
        "    child.join()\n"
        "    return [program.wait(), child.exitcode]\n"
    )
    with started(tmp_path, source) as run:
        assert answer(run()) == [-signal.SIGTERM, -signal.SIGTERM]


def test_a_handlers_own_signal_handler_is_called(tmp_path: Path) -> None:
    source = (
        "import os, signal\n"
        "def handler(event, context):\n"
        "    seen = []\n"
        "    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    after = signal.signal(signal.SIGTERM, before)\n"
        "    return [before == signal.SIG_DFL, callable(after), seen]\n"
    )
    with started(tmp_path, source) as run:
        assert answer(run()) == [True, True, [signal.SIGTERM]]
        assert answer(run()) == [True, True, [signal.SIGTERM]]


FORGED = {
    "a size past any limit": (2**31, 0, 0, 1, 0),
    "an answer to what was never asked": (4, 0, 0, 99, 0),
    "an answer out of turn": (4, 0, 0, 3, 0),
    "a duration past the worker's age": (4, 0, 0, 1, 2**63),
    "a second time that it is ready": (0, 0, 2, 0, 0),
    "a kind that there is not": (0, 0, 77, 1, 0),
    "a task dropped that was not recalled": (0, 0, 5, 1, 0),
}


@pytest.mark.parametrize("what", FORGED)
def test_what_no_worker_says_ends_the_worker_as_an_attempt_of_its_task_and_is_not_stored(
    tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What was taken back may be answered, so nothing is taken back before the handler has written.
    monkeypatch.setattr("htcgrid.runtime.environment._BEHIND_SECONDS", 60.0)
    size, log_size, kind, sequence, duration = FORGED[what]
    source = (
        "import gc, socket, struct, time\n"
        "def handler(event, context):\n"
        "    (channel,) = [each for each in gc.get_objects() if isinstance(each, socket.socket) and each.fileno() >= 0]\n"
        f"    head = struct.pack('=IIIBQQQ', {size}, {log_size}, 0, {kind}, {sequence}, 0, {duration})\n"
        f"    channel.sendall(head + b'null'[: {size}])\n"
        "    time.sleep(10)\n"
    )
    (tmp_path / "user.py").write_text(source)
    function = Function(handler="user.handler", code=tmp_path, timeout=8)
    leases = [Lease(Task(str(number), b"null")) for number in range(3)]
    with ProcessInvoker(ProcessInvoker.Config(workers=1), function) as plane:
        reports = list(plane.invoke(leases, 8.0))
    assert {each.task_id: getattr(each, "failure", "unstarted") for each in reports} == {
        "0": FailureKind.EXIT,
        "1": "unstarted",
        "2": "unstarted",
    }


def test_an_initialisation_error_past_the_limit_is_shown_from_its_beginning(tmp_path: Path) -> None:
    with started(tmp_path, "raise ValueError('begin' + 'x' * 20_000_000)\n") as run:
        outcome = run()
        assert outcome.failure is FailureKind.INIT_ERROR
        assert json.loads(outcome.payload)["errorMessage"].startswith("begin")
        assert len(outcome.payload) < 100_000

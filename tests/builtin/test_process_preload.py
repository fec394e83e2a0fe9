"""`preload = true`: the function's module is imported once, and what a fork cannot share is told."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime.fork_server import ForkServer
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Rejected, Task, Unavailable, limits

WORKERS = 3
PID = "import os\ndef handler(event, context):\n    return os.getpid()\n"
WAIT = "import threading, time\ndef handler(event, context):\n    time.sleep(event)\n"


@pytest.fixture
def plane(tmp_path: Path) -> Callable[..., ProcessInvoker]:
    """A plane over a module with this code; it is opened by the test."""

    def made(code: str, *, preload: bool = True, workers: int = WORKERS, **options: Any) -> ProcessInvoker:
        (tmp_path / "job.py").write_text(code)
        transport = options.pop("transport", None)
        function = Function(handler="job.handler", code=tmp_path, **{"timeout": 20, "memory": 256, **options})
        config = ProcessInvoker.Config(workers=workers, preload=preload, transport=transport)
        return ProcessInvoker(config, function)

    return made


Made = Callable[..., ProcessInvoker]


def run(invoker: ProcessInvoker, event: object = None) -> Outcome:
    [outcome] = invoker.invoke([Lease(Task("t", json.dumps(event).encode()))], 20)
    assert isinstance(outcome, Outcome)
    return outcome


def run_together(invoker: ProcessInvoker, event: object = None, count: int = WORKERS) -> Sequence[Outcome]:
    """As many calls at the same time, each in an environment of its own if they take a while."""
    outcomes: list[Outcome] = []
    threads = [threading.Thread(target=lambda: outcomes.append(run(invoker, event))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return outcomes


def test_the_module_is_imported_once_and_each_worker_is_a_process_with_what_that_printed(
    plane: Made, tmp_path: Path
) -> None:
    code = (
        "import os, time\nopen('imports', 'a').write('x')\nprint('loaded')\n"
        "def handler(event, context):\n    time.sleep(2)\n    return os.getpid()\n"
    )
    with plane(code) as invoker:
        outcomes = run_together(invoker)
    assert (tmp_path / "imports").read_text() == "x"
    assert len({outcome.payload for outcome in outcomes}) == WORKERS
    assert {outcome.log_tail for outcome in outcomes} == {b"loaded\n"}
    assert all(outcome.init_ms for outcome in outcomes)


@pytest.mark.parametrize(
    "code",
    [
        "raise RuntimeError('no data')",
        "import no_such_module",
        "def handler(:",
        "def other(): ...",
        "raise SystemExit(3)",
        "import os; os._exit(3)",
    ],
)
def test_a_module_that_cannot_be_imported_is_the_same_init_error_as_without(
    code: str, plane: Made, caplog: pytest.LogCaptureFixture
) -> None:
    with plane(code, preload=False, workers=1) as invoker:
        without = run(invoker)
    with plane(code, workers=1) as invoker:
        outcome = run(invoker)
    assert (outcome.failure, outcome.payload) == (FailureKind.INIT_ERROR, without.payload)
    assert "preload = true, but 'job.handler' cannot be imported once for all environments" in caplog.text


def test_an_import_that_takes_longer_than_it_may_is_ended_and_an_init_error(
    plane: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "INIT_SECONDS", 0.2)
    with plane("import time\ntime.sleep(60)", workers=1, timeout=0.3) as invoker:
        [outcome] = invoker.invoke([Lease(Task("t", b"1"))], 0.3)
    assert isinstance(outcome, Outcome)
    assert outcome.failure is FailureKind.INIT_ERROR
    assert "the import has not ended after 0.5 s" in caplog.text


UNSHARED = {
    "threads that still run (poller)": "import threading, time\n"
    "threading.Thread(target=time.sleep, args=(60,), name='poller', daemon=True).start()\n",
    "to 127.0.0.1:": "import socket\nserver = socket.create_server(('127.0.0.1', 0))\n"
    "client = socket.create_connection(server.getsockname())\n",
    "processes that still run": "import subprocess\nchild = subprocess.Popen(['sleep', '60'])\n",
}


@pytest.mark.parametrize("what", UNSHARED)
def test_a_module_that_leaves_what_a_fork_cannot_share_is_refused_with_what_to_do(what: str, plane: Made) -> None:
    with pytest.raises(Rejected) as caught:
        plane(UNSHARED[what] + PID).open()
    assert what in str(caught.value)
    assert "Make these in the handler, or on its first call; or leave out `preload`" in str(caught.value)


def test_what_may_go_wrong_is_warned_of(plane: Made, caplog: pytest.LogCaptureFixture) -> None:
    code = "import random\nDICE = random.Random(1)\nlog = open('out.txt', 'w')\n" + PID
    with plane(code, workers=1) as invoker:
        assert run(invoker).failure is None
    assert "random generators (job.DICE), which draw the same numbers in every worker" in caplog.text
    assert "files open for writing (" in caplog.text
    assert "/out.txt)" in caplog.text


def test_random_numbers_differ_from_worker_to_worker(plane: Made, tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").touch()
    (tmp_path / "numpy" / "random.py").write_text("import os\nSEEDED = []\ndef seed(): SEEDED.append(os.getpid())\n")
    code = (
        "import numpy.random, os, random, time\nrandom.seed(1)\ndef handler(event, context):\n    time.sleep(0.5)\n"
        "    return [random.random(), numpy.random.SEEDED == [os.getpid()]]\n"
    )
    with plane(code) as invoker:
        answers = [json.loads(outcome.payload) for outcome in run_together(invoker)]
    assert len({number for number, _ in answers}) == WORKERS
    assert all(is_seeded for _, is_seeded in answers)


def test_a_changed_module_is_there_once_the_plane_is_opened_again(plane: Made) -> None:
    for word in ("first", "second"):
        with plane(f"def handler(event, context):\n    return {word!r}\n", workers=1) as invoker:
            assert json.loads(run(invoker).payload) == word


def test_a_fork_server_that_was_killed_is_replaced_by_one_that_imports_the_module_again(
    plane: Made, tmp_path: Path
) -> None:
    code = "import os\nopen('imports', 'a').write('x')\ndef handler(event, context):\n    return os.getppid()\n"
    with plane(code, workers=1) as invoker:
        os.kill(int(run(invoker).payload), signal.SIGKILL)
        deadline = time.monotonic() + 20
        while (tmp_path / "imports").read_text() != "xx":
            assert time.monotonic() < deadline
            with suppress(Unavailable):  # that it has gone is seen a moment later
                list(invoker.invoke([Lease(Task("t", b"1"))], 20))
        assert run(invoker).failure is None


def test_signal_handlers_the_current_folder_and_logging_are_as_the_module_left_them(
    plane: Made, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    code = (
        "import logging, os, signal\nGOT = []\nsignal.signal(signal.SIGUSR1, lambda *_: GOT.append(1))\n"
        "signal.signal(signal.SIGTERM, lambda *_: GOT.append(2))\nos.chdir('below')\n"
        "def handler(event, context):\n"
        "    for number in (signal.SIGUSR1, signal.SIGTERM): os.kill(os.getpid(), number)\n"
        "    return [GOT, os.path.basename(os.getcwd()), len(logging.getLogger().handlers)]\n"
    )
    with plane(code, workers=1) as invoker:
        assert json.loads(run(invoker).payload) == [[1, 2], "below", 1]


def test_what_the_module_registers_for_the_end_of_a_program_does_not_run_in_the_fork_server(
    plane: Made, tmp_path: Path
) -> None:
    code = "import atexit\natexit.register(lambda: open('ended', 'a').write('x'))\n"
    code += "def handler(event, context):\n    raise SystemExit(0)\n"
    with plane(code, workers=1) as invoker:
        assert run(invoker).failure is FailureKind.EXIT
    assert (tmp_path / "ended").read_text() == "x"  # that worker's, and no other


def test_memory_that_workers_share_is_counted_in_proportion(plane: Made) -> None:
    code = "DATA = b'x' * (160 << 20)\nimport time\ndef handler(event, context):\n    time.sleep(0.6)\n    return DATA.count(b'y')\n"
    with plane(code, memory=128, preload=False, workers=1) as invoker:
        assert run(invoker).failure is FailureKind.OUT_OF_MEMORY
    with plane(code, memory=128) as invoker:
        assert [outcome.failure for outcome in run_together(invoker)] == [None] * WORKERS


def test_memory_that_a_worker_fills_itself_is_counted_in_full(plane: Made) -> None:
    code = "DATA = b'x' * (160 << 20)\nimport time\ndef handler(event, context):\n    own = b'y' * (140 << 20)\n    time.sleep(5)\n"
    with plane(code, memory=128) as invoker:
        assert run(invoker).failure is FailureKind.OUT_OF_MEMORY


@pytest.mark.parametrize("transport", ["http"])
def test_a_transport_whose_environments_are_programs_of_their_own_refuses_it(transport: str, plane: Made) -> None:
    with pytest.raises(Rejected, match='preload = true is for Python handlers on the transport "socket"'):
        plane(PID, transport=transport).open()


def test_a_ctrl_c_during_the_import_leaves_nothing(plane: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[Any] = []

    def interrupted(*_: Any) -> bytes:
        raise KeyboardInterrupt

    opened = ForkServer.open

    def opening(server: ForkServer) -> None:
        opened(server)
        programs.append(server._program)

    monkeypatch.setattr(ForkServer, "open", opening)
    monkeypatch.setattr(ForkServer, "_receive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        plane("import time\ntime.sleep(60)").open()
    assert programs[0].poll() is not None

"""A remote plane takes a launcher only: the plane of `launcher.py`, whose relays are other processes."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from htcgrid_contracts import InvokerContract
from htcgrid_contracts.common import children
from launcher import LaunchedInvoker

from htcgrid.planes import (
    CommandStream,
    Relay,
    RemoteInvoker,
    SocketStream,
    Stream,
    UnexplainedExit,
    explained,
)
from htcgrid.planes.relay import serve_socket
from htcgrid.spi import (
    Credentials,
    CredentialSource,
    FailureKind,
    Function,
    Invoker,
    Lease,
    Outcome,
    Plugin,
    Rejected,
    Task,
    Unavailable,
)

LONG = 30.0
ROOT = Path(__file__).resolve().parents[2]
HANDLER = """
import os, time

def handler(event, context):
    if event == "wait":
        open(os.environ["BEGAN"], "w").close()
        time.sleep(20)
    return [os.getppid(), os.environ.get("AWS_ACCESS_KEY_ID"), os.environ["CITY"]]
"""


@pytest.fixture
def function(tmp_path: Path) -> Function:
    code = tmp_path / "code"
    code.mkdir()
    (code / "far.py").write_text(HANDLER)
    return Function(
        handler="far.handler", code=code, timeout=10, environment={"CITY": "Zürich", "BEGAN": str(tmp_path / "began")}
    )


def call(plane: Invoker, event: object = None) -> Outcome:
    (outcome,) = plane.invoke([Lease(Task("t-1", json.dumps(event).encode()))], plane.function.timeout)
    assert isinstance(outcome, Outcome)
    return outcome


def answer(plane: Invoker) -> Any:
    outcome = call(plane)
    assert outcome.failure is None, outcome.payload
    return json.loads(outcome.payload)


def one(**keys: Any) -> LaunchedInvoker.Config:
    return LaunchedInvoker.Config(machines=1, **keys)


def test_a_launcher_alone_makes_a_plane_elsewhere(function: Function) -> None:
    with LaunchedInvoker(one(), function) as plane:
        parent, _, city = answer(plane)
        assert parent != os.getpid()
        assert city == "Zürich"


def test_the_page_has_a_launcher_that_works_over_ssh(
    function: Function, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/writing-a-plugin.md").read_text()
    (block,) = re.findall(r"```python\n# htcgrid_far/__init__.py\n(.*?)```", page, re.DOTALL)
    assert len(block.splitlines()) < 20
    module: dict[str, Any] = {"__name__": "htcgrid_far"}
    exec(block, module)
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\n[ "$1" = far-host ] || exit 255\nshift 2\nexec {sys.executable} "$@"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    plane = module["FarInvoker"]
    with plane(plane.Config(hosts=["far-host"]), function) as opened:
        assert answer(opened)[2] == "Zürich"


def test_a_handler_elsewhere_finds_the_credentials_of_the_agent_in_its_first_invocation(function: Function) -> None:
    class Known(CredentialSource):
        def current(self, timeout: float) -> Credentials:
            return Credentials({"AWS_ACCESS_KEY_ID": "AKIA"})

    of_a_role = {
        "credentials": "role:arn:aws:iam::123456789012:role/mine",
        "external_id": "mine",
        "session_policy": "{}",
    }
    for more in ({}, of_a_role):
        plane = LaunchedInvoker(one(), function.model_copy(update=more))
        plane.credentials = Known()
        with plane:
            assert answer(plane)[1] == "AKIA"


def test_a_relay_that_was_killed_names_what_it_had_begun_and_is_started_again(
    function: Function, tmp_path: Path
) -> None:
    def kill(relay: int) -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.01)
        os.kill(relay, signal.SIGKILL)

    with LaunchedInvoker(one(), function) as plane:
        answer(plane)
        (relay,) = relays()
        threading.Thread(target=kill, args=(relay,), daemon=True).start()
        with pytest.raises(Unavailable, match="the connection") as caught:
            call(plane, "wait")
        assert caught.value.begun == {"t-1"}
        assert answer(plane)
        assert relays() != [relay]


def test_a_launcher_that_fails_says_why(function: Function) -> None:
    class Impatient(LaunchedInvoker):
        start_seconds = 0.0

    command = ("sh", "-c", "echo connect to host far: Connection refused >&2; exit 255")
    with (
        pytest.raises(Unavailable, match="sh says: connect to host far: Connection refused"),
        Impatient(one(before=command), function),
    ):
        pass


def test_a_plane_that_the_far_end_does_not_have_is_named(function: Function) -> None:
    class Wrong(LaunchedInvoker):
        def wanted(self) -> dict[str, Any]:
            return {**super().wanted(), "plane": "no_such_plane"}

    with (
        pytest.raises(Rejected, match="'no_such_plane' is not installed on the relay's machine"),
        Wrong(one(), function),
    ):
        pass


def test_layers_go_along(function: Function, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    (layer / "python").mkdir(parents=True)
    (layer / "python" / "numbers_of_ours.py").write_text("SEVEN = 7\n")
    (function.code / "far.py").write_text(
        "import numbers_of_ours\n\ndef handler(event, context):\n    return numbers_of_ours.SEVEN\n"
    )
    with LaunchedInvoker(one(), function.model_copy(update={"layers": (layer,)})) as plane:
        assert answer(plane) == 7


def relays() -> list[int]:
    return [pid for pid in children(os.getpid()) if b"relay_program" in Path(f"/proc/{pid}/cmdline").read_bytes()]


class Ended(Invoker):
    """A plane whose environments end for a reason that it cannot know."""

    def invoke(self, batch: Any, timeout: float) -> Iterator[Outcome]:
        for lease in batch:
            yield UnexplainedExit(lease.task.id, b"{}", FailureKind.EXIT, log_tail=b"the last line")


class Near(RemoteInvoker):
    """Its relay is a thread of this process."""

    token = "the token"
    plane: type[Invoker] = Ended
    code_folder: Path | None = None

    def size(self) -> int:
        return 1

    def connect(self, place: int) -> Stream:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            here = socket.create_connection(listener.getsockname())
            there, _ = listener.accept()
        relay = Relay(lambda _: self.plane(Plugin.Config(), self.function), self.code_folder, token="the token")
        threading.Thread(target=serve_socket, args=(relay, there), daemon=True).start()
        return SocketStream(here)


class Knowing(Near):
    """The machine around those environments knows it."""

    def corrected(self, outcome: UnexplainedExit, place: int) -> Outcome:
        return explained(outcome, -9, out_of_memory=True)


def test_why_an_environment_ended_whole_is_corrected_by_the_client_and_not_asked_by_the_relay(
    function: Function,
) -> None:
    with Knowing(Plugin.Config(), function) as plane:
        outcome = call(plane)
    assert outcome.failure is FailureKind.OUT_OF_MEMORY
    assert json.loads(outcome.payload)["errorType"] == "Runtime.OutOfMemory"
    assert outcome.log_tail == b"the last line"


def test_who_does_not_know_the_token_is_not_served(function: Function) -> None:
    class Stranger(Near):
        token = "a guess"
        start_seconds = 0.0

    with pytest.raises(Unavailable, match="closed the connection"), Stranger(Plugin.Config(), function):
        pass


def test_a_plane_elsewhere_that_ends_its_thread_is_told_and_not_waited_for(function: Function) -> None:
    class Exiting(Invoker):
        def invoke(self, batch: Any, timeout: float) -> Iterator[Outcome]:
            raise SystemExit(3)

    class Far(Near):
        plane = Exiting

    said: list[str] = []

    def work() -> None:
        with Far(Plugin.Config(), function) as plane, pytest.raises(Rejected) as caught:
            call(plane)
        said.append(str(caught.value))

    in_time(work)
    assert "SystemExit: 3" in said[0]


def test_a_plane_elsewhere_that_its_machine_cannot_open_is_not_taken_for_a_broken_connection(
    function: Function,
) -> None:
    class Full(Ended):
        def open(self) -> None:
            raise OSError(28, "No space left on device")

    class Far(Near):
        plane = Full
        start_seconds = 0.0

    with pytest.raises(Rejected, match=r"cannot be opened: .*No space left on device"), Far(Plugin.Config(), function):
        pass


def test_code_that_cannot_be_unpacked_elsewhere_is_not_taken_for_a_broken_connection(
    function: Function, tmp_path: Path
) -> None:
    class Far(Near):
        code_folder = tmp_path / "file"
        start_seconds = 0.0

    Far.code_folder.touch()
    with pytest.raises(Rejected, match=f"cannot be opened: .*{tmp_path}/file"), Far(Plugin.Config(), function):
        pass


def test_a_program_that_is_ended_during_a_read_is_a_broken_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = CommandStream(["cat"])
    ended = stream._process.wait

    def wait(seconds: float | None = None) -> int:
        status = ended(seconds)
        stream._said.close()  # as `close` does, in another thread
        return status

    monkeypatch.setattr(stream._process, "wait", wait)
    stream._process.terminate()
    with pytest.raises(ConnectionError, match="closed the connection"):
        stream.read(1, LONG)
    stream.close()


def test_a_call_that_waits_for_an_environment_ends_when_the_plane_is_closed(function: Function) -> None:
    begun = threading.Event()

    class Slow(Invoker):
        def invoke(self, batch: Any, timeout: float) -> Iterator[Outcome]:
            begun.set()
            threading.Event().wait(LONG)
            yield from ()

    class Far(Near):
        plane = Slow

    plane = Far(Plugin.Config(), function)
    plane.open()
    ended: list[str] = []

    def work(name: str) -> None:
        with pytest.raises(Unavailable):
            call(plane)
        ended.append(name)

    threads = [threading.Thread(target=work, args=(name,), daemon=True) for name in ("runs", "waits", "waits too")]
    threads[0].start()
    assert begun.wait(LONG)
    for thread in threads[1:]:
        thread.start()
    plane.close()
    for thread in threads:
        thread.join(LONG)
    assert sorted(ended) == ["runs", "waits", "waits too"]


def test_a_connection_that_is_made_while_the_plane_is_closed_is_closed_too(function: Function) -> None:
    begun, may_connect = threading.Event(), threading.Event()
    streams: list[Stream] = []

    class Far(Near):
        plane = Ended

        def connect(self, place: int) -> Stream:
            if streams:
                begun.set()
                assert may_connect.wait(LONG)
            streams.append(super().connect(place))
            return streams[-1]

    plane = Far(Plugin.Config(), function)
    plane.open()
    streams[0].close()  # as if it had broken
    ended: list[object] = []

    def work() -> None:
        with pytest.raises(Unavailable, match="not open") as caught:
            call(plane)
        ended.append(caught.value.begun)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    assert begun.wait(LONG)
    plane.close()
    may_connect.set()
    thread.join(LONG)
    assert ended == [frozenset()]
    with pytest.raises(ConnectionError):
        streams[1].send(b"x")


def test_a_call_of_a_plane_that_is_not_open_ends_at_once(function: Function) -> None:
    plane = Near(Plugin.Config(), function)

    def work() -> None:
        for _ in range(2):
            with pytest.raises(Unavailable, match="not open"):
                call(plane)
            with plane:
                pass

    in_time(work)


def test_what_another_thread_sends_does_not_come_between_two_parts_of_a_large_frame() -> None:
    here, there = socket.socketpair()
    stream = SocketStream(here)
    with here, there:
        large = threading.Thread(target=stream.send, args=(b"a" * (4 << 20),), daemon=True)
        large.start()
        while select.select([], [here], [], 0)[1]:
            assert large.is_alive()
        others = [threading.Thread(target=stream.send, args=(b"b",), daemon=True) for _ in range(8)]
        for other in others:
            other.start()
        there.settimeout(LONG)
        received = b""
        while len(received) < (4 << 20) + len(others):
            received += there.recv(1 << 16)
    assert received.rstrip(b"b") == b"a" * (4 << 20)


def in_time(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(LONG)
    assert not thread.is_alive(), f"it had not ended after {LONG:g} s"


@pytest.mark.slow
class TestLaunched(InvokerContract):
    wait_factor = 2

    @pytest.fixture
    def invoker(self, function: Function, tmp_path: Path) -> LaunchedInvoker:
        gate = ("sh", "-c", f'test ! -e {tmp_path}/away && exec "$@"', "sh")
        return LaunchedInvoker(LaunchedInvoker.Config(before=gate), function)

    def take_away(self, plugin: Any) -> None:
        self._flag(plugin).touch()
        for relay in relays():
            os.kill(relay, signal.SIGKILL)

    def bring_back(self, plugin: Any) -> None:
        self._flag(plugin).unlink()

    def _flag(self, plugin: Any) -> Path:
        return Path(plugin.config.before[2].split()[3])

    def marks(self, folder: Path) -> str:
        return str(folder)

    @pytest.fixture
    def missing(self, function: Function, tmp_path: Path) -> Plugin:
        return LaunchedInvoker(LaunchedInvoker.Config(), function.model_copy(update={"code": tmp_path / "nothing"}))

"""What callers can make `serve` hold: connections, unfinished bodies, events."""

import json
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, sleep

import pytest
from served import Reply, Service

from htcgrid.service import api_errors
from htcgrid.service.room import Room, Share

pytestmark = pytest.mark.slow  # each starts a service and fills it

HEAD = b"POST /2015-03-31/functions/pricing/invocations HTTP/1.1\r\nHost: x\r\n"
SIX_MB = 6_000_000


def test_what_is_returned_can_be_taken_again_and_nothing_is_held_of_what_was_refused() -> None:
    around = Room(10)
    within = Room(5, around)
    with pytest.raises(api_errors.TooManyRequests):
        within.take(6)
    around.take(10)
    with pytest.raises(api_errors.TooManyRequests):
        within.take(1)
    around.release(10)
    with Share(within) as share:
        share.take(5)
        share.take_held(4)
        with pytest.raises(api_errors.TooManyRequests):
            around.take(2)
    around.take(10)


def test_bodies_that_do_not_end_are_held_up_to_the_limit_and_the_others_are_429(tmp_path: Path) -> None:
    served = Service(tmp_path, "--hold-mb", "16")
    head = HEAD + b"Content-Length: %d\r\n\r\n" % (SIX_MB + 1)
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 30)) for _ in range(6)]
        for caller in callers:
            caller.sendall(head + b"x" * SIX_MB)
        refused = _first_answers(callers, 4)
        assert {status for status, _ in refused} == {b"429"}
        assert served.call({"n": 1}).json == {"n": 1}  # there is room for what is small
    deadline = monotonic() + 30
    while served.call(b'"%s"' % (b"x" * SIX_MB), name="other").status != 200:  # those that hung up hold nothing
        assert monotonic() < deadline
    served.stop()


def _first_answers(callers: list[socket.socket], most: int) -> list[tuple[bytes, socket.socket]]:
    answers: list[tuple[bytes, socket.socket]] = []
    for caller in callers:
        caller.settimeout(0.1)
    deadline = monotonic() + 30
    while len(answers) < most and monotonic() < deadline:
        for caller in callers:
            if caller not in [each for _, each in answers]:
                try:
                    answers.append((caller.recv(1000).split()[1], caller))
                except TimeoutError:
                    continue
    return answers


def test_chunked_bodies_are_counted_as_they_come(tmp_path: Path) -> None:
    served = Service(tmp_path, "--hold-mb", "16")
    head = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
    with ExitStack() as stack:
        callers = [stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 30)) for _ in range(4)]
        for caller in callers:
            caller.sendall(head + (b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 5)
        assert {status for status, _ in _first_answers(callers, 1)} == {b"429"}
    served.stop()


def test_events_beyond_their_number_are_429_and_so_are_events_beyond_their_bytes(tmp_path: Path) -> None:
    served = Service(tmp_path, "--events", "4", "--hold-mb", "16", "--set", "function.timeout=20")
    slow = {"sleep": 4, "padding": ""}
    statuses = [served.call(slow, x_amz_invocation_type="Event").status for _ in range(6)]
    assert (statuses.count(202), statuses.count(429)) == (4, 2)
    large = {"padding": "x" * 5_000_000}
    replies = [served.call(large, name="other", x_amz_invocation_type="Event") for _ in range(40)]
    assert {reply.status for reply in replies} <= {202, 429}
    assert all(reply.kind == "TooManyRequestsException" for reply in replies if reply.status == 429)
    deadline = monotonic() + 30
    while served.call({"n": 1}, x_amz_invocation_type="Event").status != 202:  # what ran makes room
        assert monotonic() < deadline
        sleep(0.1)
    served.stop()


def test_connections_that_say_nothing_make_way_for_one_that_does(tmp_path: Path) -> None:
    served = Service(tmp_path)
    with ExitStack() as stack:
        for _ in range(1100):
            caller = stack.enter_context(socket.create_connection(("127.0.0.1", served.port)))
            caller.sendall(HEAD[:30])
        assert served.call({"n": 1}).json == {"n": 1}
        assert int(_status_of(served, "Threads")) < 1100
    served.stop()


def _status_of(served: Service, key: str) -> str:
    lines = Path(f"/proc/{served.process.pid}/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key))


# --- Functions that cannot be loaded -----------------------------------------------------------------

BROKEN = "raise RuntimeError('no such \\x1b]0;price\\x07')\n"


def test_events_of_a_function_that_cannot_be_loaded_are_tried_three_times_and_reported(tmp_path: Path) -> None:
    served = Service(tmp_path, handlers=BROKEN)
    reply = served.call({}, x_amz_invocation_type="Event")
    assert reply.status == 202
    assert served.process.stderr is not None
    said = served.process.stderr.readline()
    assert f"Event {reply.headers['x-amzn-requestid']} failed after 3 tries" in said
    assert "no such" in said
    assert "\x1b" not in said
    assert "events failed: 1" in served.stop()


def test_a_call_of_a_function_that_cannot_be_loaded_gets_the_error_of_its_initialisation(tmp_path: Path) -> None:
    served = Service(tmp_path, handlers=BROKEN)
    for _ in range(4):
        reply = served.call({})
        assert (reply.status, reply.headers["x-amz-function-error"]) == (200, "Unhandled")
        assert reply.json["errorType"] == "RuntimeError"
    served.stop()


def test_attempts_of_the_config_are_those_of_events(tmp_path: Path) -> None:
    served = Service(tmp_path, "--set", "agent.attempts.handler_error=1")
    served.call({"raise": True}, x_amz_invocation_type="Event")
    assert served.process.stderr is not None
    assert "failed after 1 tries" in served.process.stderr.readline()
    served.stop()


# --- The end -----------------------------------------------------------------------------------------


def test_a_hangup_is_a_drain_too(tmp_path: Path) -> None:
    served = Service(tmp_path)
    note = tmp_path / "note"
    replies: list[object] = []
    caller = threading.Thread(
        target=lambda: replies.append(served.call({"note": str(note), "sleep": 0.5, "n": 1}).json["n"])
    )
    caller.start()
    deadline = monotonic() + 30
    while not note.exists():
        assert monotonic() < deadline
        sleep(0.01)
    served.stop(signal.SIGHUP)
    caller.join()
    assert replies == [1]


def test_events_that_were_accepted_are_run_before_the_service_ends(tmp_path: Path) -> None:
    served = Service(tmp_path)
    note = tmp_path / "note"
    for _ in range(20):
        assert served.call({"note": str(note), "sleep": 0.1}, x_amz_invocation_type="Event").status == 202
    said = served.stop()
    assert note.read_text() == "x" * 20
    assert "not run" not in said


def test_events_for_which_the_grace_time_is_too_short_are_counted(tmp_path: Path) -> None:
    served = Service(tmp_path, "--set", "agent.grace=0.3", "--set", "function.timeout=60")
    for _ in range(4):
        served.call({"sleep": 30}, x_amz_invocation_type="Event")
    assert "events not run: 4" in served.stop()


def test_calls_for_which_the_grace_time_is_too_short_are_answered_that_the_service_ended(tmp_path: Path) -> None:
    served = Service(tmp_path, "--set", "agent.grace=0.3", "--set", "function.timeout=60")
    replies: list[Reply] = []
    callers = [threading.Thread(target=lambda: replies.append(served.call({"sleep": 30}))) for _ in range(6)]
    for caller in callers:  # more of them than there are workers
        caller.start()
    sleep(3)  # until all have been taken in
    said = served.stop()
    for caller in callers:
        caller.join()
    assert [reply.status for reply in replies] == [500] * 6
    assert all("The service ended before this call was answered" in reply.json["Message"] for reply in replies)
    assert "Traceback" not in said


def test_a_caller_that_takes_no_answer_keeps_no_place(tmp_path: Path) -> None:
    served = Service(tmp_path, "--waiting", "0")
    body = json.dumps({"padding": "x" * SIX_MB}).encode()
    with ExitStack() as stack:
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", served.port))
            caller.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            caller.recv(10)
        assert served.call({"n": 1}).json == {"n": 1}
    served.stop()


@pytest.mark.timing
def test_a_refused_caller_that_does_not_hang_up_delays_no_end(tmp_path: Path) -> None:
    served = Service(tmp_path)
    with socket.create_connection(("127.0.0.1", served.port), 30) as caller:
        caller.sendall(HEAD.replace(b"pricing", b"none") + b"Content-Length: 1000000\r\n\r\n")
        assert caller.recv(1000).startswith(b"HTTP/1.1 404")
        began = monotonic()
        served.stop()
        assert monotonic() - began < 10

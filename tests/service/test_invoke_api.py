"""AWS's Invoke API as `htcgrid serve` speaks it, by the Lambda contract."""

import base64
import json
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from time import monotonic, sleep
from uuid import UUID

import pytest
from program_end import output_at_end
from served import Service, encoded

LIMIT = 6_291_456


def test_an_answer_is_200_with_the_executed_version(service: Service) -> None:
    reply = service.call({"x": [1, "é"]})
    assert (reply.status, reply.json) == (200, {"x": [1, "é"]})
    assert reply.headers["x-amz-executed-version"] == "$LATEST"
    assert UUID(reply.headers["x-amzn-requestid"]).version
    assert "x-amz-function-error" not in reply.headers
    assert "x-amz-log-result" not in reply.headers


@pytest.mark.parametrize("event", [[], "text", 0, None, 1.5, {"a": {"b": []}}])
def test_any_json_document_is_an_event_and_an_answer(service: Service, event: object) -> None:
    reply = service.call(event)
    assert (reply.status, reply.json) == (200, event)


def test_no_body_is_an_empty_object(service: Service) -> None:
    assert service.call(b"").json == {}


def test_a_function_error_is_200_with_its_document_and_a_header(service: Service) -> None:
    reply = service.call({"raise": True})
    assert (reply.status, reply.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert (reply.json["errorType"], reply.json["errorMessage"]) == ("ValueError", "no such price")
    assert reply.json["requestId"] == reply.headers["x-amzn-requestid"]


def test_an_answer_that_looks_like_an_error_is_an_answer(service: Service) -> None:
    reply = service.call({"errorType": "ValueError", "errorMessage": "not one"})
    assert reply.json == {"errorType": "ValueError", "errorMessage": "not one"}
    assert "x-amz-function-error" not in reply.headers


def test_a_timeout_and_an_exit_are_function_errors_and_the_next_call_succeeds(service: Service) -> None:
    late = service.call({"sleep": 30})
    assert (late.status, late.headers["x-amz-function-error"]) == (200, "Unhandled")
    assert late.json["errorType"] == "Sandbox.Timedout"
    assert late.json["errorMessage"].endswith("Error: Task timed out after 2.00 seconds")
    ended = service.call({"exit": True})
    assert ended.json["errorType"] == "Runtime.ExitError"
    assert ended.json["errorMessage"].endswith("exit status 3")
    assert service.call({"n": 1}).json == {"n": 1}


def test_the_log_tail_comes_where_it_is_asked_for(service: Service) -> None:
    reply = service.call({"print": "spot is 101.5"}, x_amz_log_type="Tail")
    log = base64.b64decode(reply.headers["x-amz-log-result"]).decode()
    assert log.startswith(f"START RequestId: {reply.headers['x-amzn-requestid']} Version: $LATEST\n")
    assert "\nspot is 101.5\n" in log
    assert "\nREPORT RequestId: " in log


def test_the_log_tail_is_at_most_4_kb(service: Service) -> None:
    log = base64.b64decode(service.call({"print": "x" * 9000}, x_amz_log_type="Tail").headers["x-amz-log-result"])
    assert len(log) == 4096
    assert b"REPORT RequestId" in log


def test_the_client_context_reaches_the_handler(service: Service) -> None:
    context = encoded({"custom": {"desk": "rates"}, "env": {"locale": "de"}, "client": {"app_title": "x"}})
    answer = service.call({"context": True}, x_amz_client_context=context).json
    assert answer["custom"]["desk"] == "rates"
    assert answer["env"] == {"locale": "de"}


@pytest.mark.parametrize("context", ["not base64!", encoded([1]), base64.b64encode(b"{").decode()])
def test_a_client_context_that_is_none_is_400(service: Service, context: str) -> None:
    reply = service.call({}, x_amz_client_context=context)
    assert (reply.status, reply.kind) == (400, "InvalidRequestContentException")


# --- Which function ----------------------------------------------------------------------------------

ARN = "arn:aws:lambda:eu-west-1:123456789012:function:other"


@pytest.mark.parametrize(
    "name",
    ["other", "function:other", "123456789012:function:other", ARN, ARN.replace(":", "%3A"), f"{ARN}:$LATEST"],
)
def test_a_function_is_found_by_name_and_by_arn(service: Service, name: str) -> None:
    assert service.call({}, name=name).json == "other"


@pytest.mark.parametrize(
    "path",
    [
        "/2015-03-31/functions/none/invocations",
        "/2015-03-31/functions/other:7/invocations",
        "/2015-03-31/functions/other/invocations?Qualifier=prod",
        "/2015-03-31/functions/function/invocations",
        "/2015-03-31/functions/other/invocations/more",
        "/2015-03-31/functions//invocations",
        "/",
        "/%",
    ],
)
def test_what_is_not_there_is_404(service: Service, path: str) -> None:
    reply = service.call({}, path)
    assert (reply.status, reply.kind) == (404, "ResourceNotFoundException")
    assert set(reply.json) == {"Type", "Message"}


def test_the_qualifier_latest_is_known(service: Service) -> None:
    assert service.call({}, "/2015-03-31/functions/other/invocations?Qualifier=$LATEST").json == "other"


# --- What is refused ---------------------------------------------------------------------------------


def test_an_event_that_is_not_json_is_400(service: Service) -> None:
    reply = service.call(b"{spot: 1}")
    assert (reply.status, reply.kind) == (400, "InvalidRequestContentException")
    assert "Could not parse request body into json" in reply.json["Message"]


def test_an_event_that_is_not_utf_8_is_400(service: Service) -> None:
    assert service.call(b'"\xff"').status == 400


def test_an_event_of_6_mib_is_taken_and_one_byte_more_is_413(service: Service) -> None:
    assert service.call(b'"%s"' % (b"x" * (LIMIT - 2)), name="other").json == "other"
    reply = service.call(b'"%s"' % (b"x" * (LIMIT - 1)))
    assert (reply.status, reply.kind) == (413, "RequestTooLargeException")


def test_a_far_too_large_event_is_413_and_its_sender_reads_that(service: Service) -> None:
    reply = service.call(b"x" * (8 * LIMIT))
    assert (reply.status, reply.kind) == (413, "RequestTooLargeException")


def test_another_media_type_is_415(service: Service) -> None:
    reply = service.call({}, content_type="text/csv")
    assert (reply.status, reply.kind) == (415, "UnsupportedMediaTypeException")


def test_another_invocation_type_is_400(service: Service) -> None:
    reply = service.call({}, x_amz_invocation_type="Sometimes")
    assert (reply.status, reply.kind) == (400, "InvalidParameterValueException")


def test_a_dry_run_runs_nothing(service: Service, tmp_path: Path) -> None:
    reply = service.call({"note": str(tmp_path / "note")}, x_amz_invocation_type="DryRun")
    assert (reply.status, reply.body) == (204, b"")
    assert service.call({}, name="none", x_amz_invocation_type="DryRun").status == 404
    assert not (tmp_path / "note").exists()


# --- Events ------------------------------------------------------------------------------------------


def test_an_event_is_accepted_with_202_and_runs_once(service: Service, tmp_path: Path) -> None:
    note = tmp_path / "note"
    reply = service.call({"note": str(note)}, x_amz_invocation_type="Event")
    assert (reply.status, reply.body) == (202, b"")
    _eventually(note.exists)
    assert service.call(b"{", x_amz_invocation_type="Event").status == 400


def test_an_event_that_fails_is_tried_three_times_and_then_reported(tmp_path: Path) -> None:
    served = Service(tmp_path)
    note = tmp_path / "note"
    served.call({"note": str(note), "raise": True}, x_amz_invocation_type="Event")
    _eventually(lambda: note.exists() and note.read_text() == "xxx")
    assert served.process.stderr is not None
    assert "failed after 3 tries" in served.process.stderr.readline()
    served.stop()
    assert note.read_text() == "xxx"


def _eventually(holds: object) -> None:
    deadline = monotonic() + 60
    while not holds():  # type: ignore[operator]
        assert monotonic() < deadline
        sleep(0.02)


# --- Many at once ------------------------------------------------------------------------------------


def test_fifty_callers_at_once_on_two_workers_get_their_own_answers(service: Service) -> None:
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda n: service.call({"n": n}).json, range(1000)))
    assert answers == [{"n": n} for n in range(1000)]


def test_calls_under_way_are_answered_before_the_service_ends(tmp_path: Path) -> None:
    served = Service(tmp_path, "--set", "function.timeout=20")
    note = tmp_path / "note"
    with ThreadPoolExecutor(2) as pool:
        replies = [pool.submit(served.call, {"n": n, "note": str(note), "sleep": 3}) for n in range(2)]
        _eventually(lambda: note.exists() and note.read_text() == "xx")
        assert "Calls under way: 2." in served.stop()
        assert [(reply.result().status, reply.result().json["n"]) for reply in replies] == [(200, 0), (200, 1)]


def test_a_second_signal_ends_the_service_without_waiting_for_calls(tmp_path: Path) -> None:
    served = Service(tmp_path, "--set", "function.timeout=300")
    note = tmp_path / "note"
    with ThreadPoolExecutor(1) as pool:
        reply = pool.submit(served.call, {"n": 1, "note": str(note), "sleep": 200})
        _eventually(note.exists)
        served.process.send_signal(signal.SIGTERM)
        assert served.process.stderr is not None
        assert "send the same signal again to stop them at once" in served.process.stderr.readline()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(20) == -signal.SIGTERM
        assert isinstance(reply.exception(), OSError | HTTPException)
        output_at_end(served.process)


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Service]:
    served = Service(tmp_path, "--waiting", "3")
    yield served
    served.stop()


def test_a_call_beyond_the_places_and_the_waiting_ones_is_429_and_the_others_are_answered(narrow: Service) -> None:
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(lambda n: narrow.call({"n": n, "sleep": 1}), range(12)))
    accepted = [reply for reply in replies if reply.status == 200]
    refused = [reply for reply in replies if reply.status == 429]
    assert (len(accepted), len(refused)) == (5, 7)  # two run, three wait
    assert {reply.kind for reply in refused} == {"TooManyRequestsException"}
    assert refused[0].headers["retry-after"] == "1"
    assert narrow.call({"n": 1}).json == {"n": 1}


def test_callers_that_hang_up_cost_no_place(narrow: Service) -> None:
    for _ in range(8):
        caller = threading.Thread(target=_hang_up, args=(narrow,))
        caller.start()
        caller.join()
    _eventually(lambda: narrow.call({"n": 1}).status == 200)
    assert narrow.call({"n": 2}).json == {"n": 2}


def _hang_up(service: Service) -> None:
    import socket  # noqa: PLC0415

    body = json.dumps({"sleep": 0.1, "padding": "x" * 100_000}).encode()
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        head = f"POST /2015-03-31/functions/pricing/invocations HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
        caller.sendall(head.encode() + body)


def test_the_callers_trace_is_the_handlers(service: Service) -> None:
    trace = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    assert service.call({"trace": True}, x_amzn_trace_id=trace).json == trace
    w3c = "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
    assert service.call({"trace": True}, traceparent=w3c).json == trace
    assert service.call({"trace": True}).json.startswith("Root=1-")

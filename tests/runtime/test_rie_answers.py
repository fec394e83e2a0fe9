"""What an answer of the emulator is taken for; the bodies are those that it was seen to send."""

import json

import pytest

from htcgrid.runtime.rie_answers import classify, handlers_own
from htcgrid.spi import FailureKind, Unavailable

ID = "0981cde1-6413-48cf-9fbe-53d8398f004f"
EXIT = f'{{"errorType":"Runtime.ExitError","errorMessage":"RequestId: {ID} Error: Runtime exited with error: exit status 3"}}'
IMPORT = (
    '{"errorMessage": "Unable to import module \'m\': No module named \'m\'", "errorType": "Runtime.ImportModuleError", '
    '"requestId": "", "stackTrace": []}'
)
RAISED = f'{{"errorMessage": "x", "errorType": "ValueError", "requestId": "{ID}", "stackTrace": ["  File ..."]}}'
NODE = '{"errorType": "Error", "errorMessage": "x", "trace": ["Error: x"]}'
TOO_LARGE = (
    '{"errorType":"Function.ResponseSizeTooLarge","errorMessage":'
    '"Response payload size exceeded maximum allowed payload size (6291556 bytes)."}'
)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, "1", None),
        (200, "", None),
        (200, "null", None),
        (200, '"Task timed out after 2.00 seconds"', None),
        (200, '{"errorType": "A"}', None),
        (200, '{"errorType": 1, "errorMessage": "b"}', None),
        (200, '{"errorType": "A", "errorMessage": "b", "price": 1}', None),
        (200, '[{"errorType": "A", "errorMessage": "b"}]', None),
        (200, '{"errorType": "A", broken', None),
        (502, '"it answered, then it ended"', None),
        (200, RAISED, FailureKind.HANDLER_ERROR),
        (200, NODE, FailureKind.HANDLER_ERROR),
        (200, TOO_LARGE, FailureKind.PAYLOAD_TOO_LARGE),
        (502, EXIT, FailureKind.EXIT),
        (502, IMPORT, FailureKind.INIT_ERROR),
    ],
)
def test_an_answer_is_reported_as_it_came(status: int, body: str, kind: FailureKind | None) -> None:
    assert classify(status, body.encode(), ID, 3.0) == (kind, body.encode())


def test_the_text_of_a_timeout_becomes_the_document_of_the_service() -> None:
    kind, document = classify(200, b"Task timed out after 2.00 seconds", ID, 1.5)

    assert kind is FailureKind.TIMEOUT
    assert json.loads(document) == {
        "errorType": "Sandbox.Timedout",
        "errorMessage": f"RequestId: {ID} Error: Task timed out after 1.50 seconds",
    }


def test_nothing_at_all_says_that_the_runtime_ended_before_it_was_up() -> None:
    kind, document = classify(502, b"", ID, 3.0)

    assert kind is FailureKind.INIT_ERROR
    assert json.loads(document)["errorType"] == "Runtime.ExitError"


@pytest.mark.parametrize("status", [400, 404, 500, 503])
def test_a_status_that_no_invocation_has_is_no_outcome(status: int) -> None:
    with pytest.raises(Unavailable, match=str(status)):
        classify(status, b"oops", ID, 3.0)


def test_the_emulators_own_lines_are_not_the_handlers() -> None:
    log = (
        f"START RequestId: {ID} Version: $LATEST\n"
        "22 Nov 2026 22:20:35,287 [INFO] (rapid) INIT START(type: on-demand, phase: init)\n"
        "no newline22 Nov 2026 22:41:27,441 [INFO] (rapid) INVOKE RTDONE(status: success)\n"
        f"hello\nno newlineEND RequestId: {ID}\n"
        f"REPORT RequestId: {ID}\tInit Duration: 0.07 ms\tDuration: 581.02 ms\n"
        "START of the handler's own line\n"
    )
    assert handlers_own(log.encode()) == b"no newlinehello\nno newlineSTART of the handler's own line\n"

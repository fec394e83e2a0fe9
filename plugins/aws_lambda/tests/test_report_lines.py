import json
from typing import Any

import pytest

from htcgrid_aws_lambda.report_lines import Report, read

REPORT = (
    b"REPORT RequestId: 8f\tDuration: 201.67 ms\tBilled Duration: 682 ms\tMemory Size: 2048 MB\t"
    b"Max Memory Used: 81 MB\tInit Duration: 480.25 ms\t\n"
)


def test_a_report_line_is_read_whole() -> None:
    assert read(REPORT).report == Report(201.67, 682, 2048, 81, 480.25)


def test_the_services_lines_are_parted_from_the_handlers() -> None:
    tail = (
        b"INIT_START Runtime Version: python:3.12.v1\tRuntime Version ARN: arn\n"
        b"START RequestId: 8f Version: 7\nfirst\nsecond without an endEND RequestId: 8f\n" + REPORT
    )
    assert read(tail).printed == b"first\nsecond without an end"


def test_lines_that_a_handler_prints_to_look_like_the_services_stay() -> None:
    forged = b"REPORT RequestId: no\tDuration: 1 ms\tBilled Duration: 1 ms\nEND RequestId: no\n"
    log = read(b"START RequestId: 8f Version: 7\n" + forged + b"END RequestId: 8f\n" + REPORT)
    assert log.printed == forged
    assert log.report is not None
    assert log.report.billed_ms == 682


def test_a_trace_line_goes_with_the_report() -> None:
    traced = REPORT + b"XRAY TraceId: 1-61\tSegmentId: 78\tSampled: true\t\n"
    assert read(b"x\n" + traced).printed == b"x\n"


def test_a_tail_cut_at_its_start_keeps_what_is_left() -> None:
    assert read(b"st of a line\nnext\nEND RequestId: 8f\n" + REPORT).printed == b"st of a line\nnext\n"


def test_a_tail_without_a_report_is_all_the_handlers() -> None:
    log = read(b"hello\n")
    assert (log.printed, log.report) == (b"hello\n", None)


def test_an_initialisation_that_failed_in_the_invocation_is_seen() -> None:
    line = b"INIT_REPORT Init Duration: 9.04 ms\tPhase: %b\tStatus: error\tError Type: Error\n"
    assert read(line % b"invoke" + REPORT).init_failed
    assert not read(line % b"init" + REPORT).init_failed


def test_the_json_log_format_is_read_too() -> None:
    metrics = {
        "durationMs": 5.2,
        "billedDurationMs": 6,
        "memorySizeMB": 128,
        "maxMemoryUsedMB": 40,
        "initDurationMs": 99.5,
    }
    lines = [
        {"time": "t", "type": "platform.start", "record": {"requestId": "8f"}},
        {"level": "INFO", "message": "mine"},
        {
            "time": "t",
            "type": "platform.report",
            "record": {"requestId": "8f", "metrics": metrics, "status": "success"},
        },
    ]
    log = read(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    assert log.report == Report(5.2, 6, 128, 40, 99.5)
    assert json.loads(log.printed) == {"level": "INFO", "message": "mine"}


@pytest.mark.parametrize("record", ["text", None, {"metrics": None}, {"metrics": {"billedDurationMs": "6"}}], ids=str)
@pytest.mark.parametrize("kind", ["report", "initReport"])
def test_a_handler_that_prints_an_odd_report_in_json_ends_nothing(kind: str, record: Any) -> None:
    assert read(json.dumps({"type": f"platform.{kind}", "record": record}).encode() + b"\n").report is None


@pytest.mark.parametrize("number", ["1.2.3", "...", "9" * 400])
def test_a_handler_that_prints_an_odd_report_as_text_ends_nothing(number: str) -> None:
    line = f"REPORT RequestId: no\tDuration: {number} ms\tBilled Duration: {number} ms\n"
    assert read(line.encode()).report is not None

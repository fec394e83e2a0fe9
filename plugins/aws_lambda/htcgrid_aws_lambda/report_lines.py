"""What the service writes about an invocation, taken out of the log tail that comes with the answer.

Both of Lambda's log formats are read: lines of text (`REPORT RequestId: ...`, fields parted by tabs) and
JSON (`{"type": "platform.report", "record": {...}}`). What is left is what the handler printed.
"""

import re
from dataclasses import dataclass
from typing import Any

from htcgrid.planes import parsed

_REPORT = re.compile(rb"REPORT RequestId: (?P<id>\S+)\t(?P<fields>[^\n]*)(\nXRAY TraceId: [^\n]*)?\n?")
_FRAME = re.compile(rb"(START RequestId: (?P<start>\S+) Version: [^\n]*\n)|(END RequestId: (?P<end>\S+)\n?)")
_INIT = re.compile(rb"^(INIT_START|INIT_REPORT) [^\n]*\n?", re.MULTILINE)
_NUMBER = re.compile(r"\d{1,15}(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Report:
    """The figures that AWS bills by. Times in milliseconds, memory in MB."""

    duration_ms: float = 0.0
    billed_ms: int = 0
    memory_mb: int = 0
    max_memory_mb: int = 0
    init_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Log:
    """A log tail, read. `report` is None where the tail has none.

    `init_failed` says that the initialisation failed which the service starts anew within an invocation,
    once the first one has failed.
    """

    printed: bytes = b""
    report: Report | None = None
    init_failed: bool = False


def read(tail: bytes) -> Log:
    """Separate the service's own lines from the handler's."""
    reports = list(_REPORT.finditer(tail))
    if not reports:
        return _read_json(tail) if b'"platform.' in tail else Log(tail)
    last = reports[-1]  # the service's comes after anything a handler may print
    printed = tail[: last.start()] + tail[last.end() :]
    printed = _FRAME.sub(lambda line: b"" if last["id"] in (line["start"], line["end"]) else line.group(), printed)
    init_failed = any(b"Phase: invoke\tStatus: error" in line.group() for line in _INIT.finditer(printed))
    return Log(_INIT.sub(b"", printed), _of_fields(last["fields"].decode(errors="replace")), init_failed)


def _of_fields(text: str) -> Report:
    fields = dict(field.split(": ", 1) for field in text.split("\t") if ": " in field)

    def number(name: str) -> float:
        found = _NUMBER.match(fields.get(name, ""))
        return float(found.group()) if found else 0.0

    return Report(
        number("Duration"),
        round(number("Billed Duration")),
        round(number("Memory Size")),
        round(number("Max Memory Used")),
        number("Init Duration") if "Init Duration" in fields else None,
    )


def _read_json(tail: bytes) -> Log:
    printed, report, init_failed = [], None, False
    for line in tail.splitlines(keepends=True):
        record = _platform_record(line)
        if record is None:
            printed.append(line)
        elif record["type"] == "platform.report":
            report = _of_metrics(record.get("record", {}).get("metrics", {})) or report
        elif record["type"] == "platform.initReport":
            init = record.get("record", {})
            init_failed = init.get("phase") == "invoke" and init.get("status") == "error"
    return Log(b"".join(printed), report, init_failed)


def _platform_record(line: bytes) -> dict[str, Any] | None:
    try:
        record = parsed(line)
    except ValueError:
        return None
    known = isinstance(record, dict) and str(record.get("type", "")).startswith("platform.")
    return record if known and isinstance(record.get("record", {}), dict) else None


def _of_metrics(metrics: Any) -> Report | None:
    """The report with these metrics; None where they are not numbers, as in a line that a handler printed."""
    try:
        return Report(
            metrics.get("durationMs", 0.0) + 0.0,
            round(metrics.get("billedDurationMs", 0)),
            round(metrics.get("memorySizeMB", 0)),
            round(metrics.get("maxMemoryUsedMB", 0)),
            metrics["initDurationMs"] + 0.0 if "initDurationMs" in metrics else None,
        )
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None

"""The lines of a results file: how one is written, read again, and mended after a crash."""

import base64
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from pathlib import Path
from time import gmtime, strftime

from pydantic_core import from_json

from htcgrid.spi import Outcome, Rejected, Result

_LINE = (
    '{"id":%s,"fingerprint":"%08x","status":"%s",%s,"attempt":%d,"started":"%s.%03dZ"'
    ',"duration_ms":%.3f,"billed_ms":%d,"max_memory_mb":%d}\n'
)
# Every line begins so; what follows need not be read to resume.
_HEAD = re.compile(rb'\{"id":("(?:[^"\\]|\\.)*"),"fingerprint":"([0-9a-f]{8})","status":"(?:succeeded|failed)"')
_ID = re.compile(rb'\{"id":"(?:[^"\\]|\\.)*"')
_BEGIN = b'{"id":"'
_AFTER_ID = b',"fingerprint":"'
_GZIP = b"\x1f\x8b"
_CHUNK = 1 << 20


def line(result: Result, fingerprint: int) -> str:
    """One result as one line. Runs once a task, so it is one formatting with no detours."""
    outcome = result.outcome
    started = outcome.started
    second = int(started)
    if outcome.failure is None:
        text = _json_text(outcome.payload)
        status = "succeeded"
        body = f'"output":{text}' if text is not None else _base64(outcome.payload)
    else:
        status, body = "failed", _error(outcome)
    return _LINE % (
        quote(result.task.id),
        fingerprint,
        status,
        body,
        result.attempt,
        _second(second),
        (started - second) * 1000,
        outcome.duration_ms,
        outcome.billed_ms,
        outcome.max_memory_mb,
    )


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))


def _base64(payload: bytes) -> str:
    """An answer that is not JSON, which handlers may return."""
    return f'"output_base64":"{base64.b64encode(payload).decode()}"'


def _error(outcome: Outcome) -> str:
    text = _json_text(outcome.payload)
    document = text if text is not None else quote(outcome.payload.decode("utf-8", "replace"))
    log = quote(outcome.log_tail.decode("utf-8", "replace"))
    return f'"error":{document},"failure":"{outcome.failure}","log_tail":{log}'


def _json_text(payload: bytes) -> str | None:
    try:
        from_json(payload)
    except ValueError:
        try:
            json.loads(payload.decode())  # takes escaped lone surrogates, as the runtime client does
        except (ValueError, RecursionError):
            return None
    text = payload.decode()
    # A line break can only be white space between two parts of the document.
    return text.replace("\n", " ").replace("\r", " ") if "\n" in text or "\r" in text else text


def read_results(path: Path) -> Iterator[tuple[str, int]]:
    """The id and fingerprint of every result in the file; `Rejected` where a line is not a result of ours."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        for number, text in enumerate(file, 1):
            head = _HEAD.match(text)
            if head is None:
                raise _foreign(path, f"line {number}")
            yield json.loads(head[1]), int(head[2], 16)


def _foreign(path: Path, place: str) -> Rejected:
    return Rejected(
        f"{path}, {place}: this is not a result of htcgrid. Name another file in [sink] path, or move this one away."
    )


def repair_plain(fd: int, path: Path) -> None:
    """Cut off a last line that a crash has torn; `Rejected` where it was never one of ours."""
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _CHUNK)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        if not _is_torn_result(os.pread(fd, _CHUNK, end)):
            raise _foreign(path, "last line")
        os.ftruncate(fd, end)


def _is_torn_result(text: bytes) -> bool:
    """Whether a result may begin so. What a power cut leaves may be zeros."""
    whole_id = _ID.match(text)
    if whole_id is None:
        return text[: len(_BEGIN)] == _BEGIN[: len(text)] or not text.strip(b"\0")
    rest = text[whole_id.end() :][: len(_AFTER_ID)]
    return _AFTER_ID.startswith(rest)


def repair_gzip(fd: int, path: Path) -> None:
    """Cut off a last member that a crash has torn; each `put` appended one. `Rejected` as above."""
    if not _GZIP.startswith(os.pread(fd, len(_GZIP), 0)):
        raise _foreign(path, "which is no gzip file")
    good = at = 0
    begun = False
    member = zlib.decompressobj(wbits=31)
    while chunk := os.pread(fd, _CHUNK, at):
        at += len(chunk)
        while chunk:
            try:
                text = member.decompress(chunk)
                if not begun and text and not _is_torn_result(text):
                    raise _foreign(path, "line 1")
                begun = begun or bool(text)
            except zlib.error:
                os.ftruncate(fd, good)
                return
            chunk = member.unused_data
            if member.eof:
                good = at - len(chunk)
                member = zlib.decompressobj(wbits=31)
    os.ftruncate(fd, good)

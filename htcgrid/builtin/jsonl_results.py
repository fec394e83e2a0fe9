"""Writes and reads the lines of a results file."""

import base64
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quote
from pathlib import Path
from time import gmtime, strftime
from typing import NamedTuple

from pydantic_core import from_json

from htcgrid.runtime.parsing import parsed
from htcgrid.spi import Outcome, Rejected, Result

_LINE = (
    '{"id":%s,"fingerprint":"%08x","status":"%s",%s,"attempt":%d,"started":"%s.%03dZ"'
    ',"duration_ms":%.3f,"billed_ms":%d,"max_memory_mb":%d}\n'
)
# The beginning of every line; a resumed run does not need to read the rest.
_HEAD = re.compile(
    rb'\{"id":"([^"\\]*(?:\\.[^"\\]*)*)","fingerprint":"([0-9a-f]{8})","status":"(?:succeeded|(failed))"'
    rb'(?:,"generation":([0-9]{1,9}))?'
)
_ID = re.compile(rb'\{"id":"(?:[^"\\]|\\.)*"')
BEGIN = b'{"id":"'
_AFTER_ID = b',"fingerprint":"'


def line(result: Result, fingerprint: int) -> str:
    """One result as one line. It runs once a task, so it formats everything at once."""
    outcome = result.outcome
    started = outcome.started
    second = int(started)
    if outcome.failure is None:
        status, body = "succeeded", _output(outcome.payload)
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


def pieces(result: Result, fingerprint: int) -> Sequence[bytes]:
    """The line of a large answer in pieces, with the answer unchanged; empty if it must be changed: then use `line`.

    Decoding an answer, formatting it and encoding it again would make four copies of it.
    """
    outcome = result.outcome
    payload = outcome.payload
    if outcome.failure is not None or b"\n" in payload or b"\r" in payload or not _is_strict_json(payload):
        return ()
    before, after = line(replace(result, outcome=replace(outcome, payload=b"0")), fingerprint).split('"output":0', 1)
    return before.encode() + b'"output":', payload, after.encode()


def in_generation(text: str, generation: int) -> str:
    """The line of a task that was run again. An id cannot contain the text that is searched: its quotes are escaped."""
    head, status, rest = text.partition('","status":"')
    word, quote_mark, rest = rest.partition('"')
    return f'{head}{status}{word}{quote_mark},"generation":{generation}{rest}'


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))


def _output(payload: bytes) -> str:
    if (text := _json_text(payload)) is not None:
        return f'"output":{text}'
    try:
        text = payload.decode()
        parsed(text)
    except ValueError:  # an answer that is not JSON, which handlers may return
        return f'"output_base64":"{base64.b64encode(payload).decode()}"'
    return f'"output_text":{quote(text)}'  # NaN or Infinity, which Python's clients write though JSON has neither


def _error(outcome: Outcome) -> str:
    text = _json_text(outcome.payload)
    document = text if text is not None else quote(outcome.payload.decode("utf-8", "replace"))
    log = quote(outcome.log_tail.decode("utf-8", "replace"))
    where = f',"environment":{quote(outcome.environment)}' if outcome.environment else ""
    return f'"error":{document},"failure":"{outcome.failure}","log_tail":{log}{where}'


def _is_strict_json(payload: bytes) -> bool:
    try:
        from_json(payload, allow_inf_nan=False)
    except ValueError:
        return False
    return True


def _json_text(payload: bytes) -> str | None:
    """The document on one line; None if a strict parser would reject it."""
    try:
        from_json(payload, allow_inf_nan=False)
    except ValueError:
        try:
            parsed(payload.decode(), strict=True)  # accepts escaped lone surrogates, as the runtime client does
        except ValueError:
            return None
    text = payload.decode()
    # A line break can only be white space between two parts of the document.
    return text.replace("\n", " ").replace("\r", " ") if "\n" in text or "\r" in text else text


class Head(NamedTuple):
    """The beginning of a line."""

    task_id: str
    fingerprint: int
    failed: bool
    generation: int

    @property
    def state(self) -> int:
        """Generation and success as one number above 0."""
        return 2 * self.generation + self.failed + 1


def head_of(text: bytes) -> Head | None:
    """The head of a line, which may be incomplete; None if it is not a result."""
    found = _HEAD.match(text)
    if found is None:
        return None
    task_id, fingerprint, failed, generation = found.groups()
    # Most ids have no escapes and so do not need the JSON parser, which would take most of the time.
    name = json.loads(b'"%b"' % task_id) if b"\\" in task_id else task_id.decode()
    return Head(name, int(fingerprint, 16), failed is not None, int(generation) if generation else 0)


def read_results(path: Path) -> Iterator[Head | int]:
    """The head of every result in the file. At a damaged line it yields the line's place in bytes, and ends.

    Raises `Rejected` if a line was never a result of htcgrid.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    at = 0
    with opener(path, "rb") as file:
        for number, text in enumerate(file, 1):
            head = head_of(text)
            if head is None or not _is_json(text):
                if is_torn_result(text):
                    yield at
                    return
                raise foreign(path, f"line {number}")
            yield head
            at += len(text)


def _is_json(text: bytes) -> bool:
    try:
        from_json(text)
    except ValueError:
        try:
            parsed(text.decode())
        except ValueError:
            return False
    return True


def foreign(path: Path, place: str) -> Rejected:
    """The error for a file that is not a file of results."""
    return Rejected(
        f"{path}, {place}: this is not a result of htcgrid. Name another file in [sink] path, or move this one away."
    )


def is_torn_result(text: bytes) -> bool:
    """Whether this may be the beginning of a result. After a power cut, zeros may stand where the rest of it was."""
    text = text.partition(b"\0")[0]
    whole_id = _ID.match(text)
    if whole_id is None:
        return text[: len(BEGIN)] == BEGIN[: len(text)]
    rest = text[whole_id.end() :][: len(_AFTER_ID)]
    return _AFTER_ID.startswith(rest)

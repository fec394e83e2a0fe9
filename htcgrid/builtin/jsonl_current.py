"""The current results of a file: if a task was run again, only its last line counts.

A redrive appends its results. The failures that they replace are dropped when the file is closed, or, if that run was
killed, when the next run opens it: the other lines are copied unchanged into a new file, which replaces the old one.
"""

import fcntl
import gzip
import json
import os
import re
import zlib
from calendar import timegm
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from time import strptime
from typing import IO, Any

from htcgrid.builtin.id_table import IdTable
from htcgrid.builtin.jsonl_results import BEGIN, Head, foreign, head_of
from htcgrid.runtime.parsing import parsed
from htcgrid.spi import GENERATION, FailureKind, Outcome, Rejected, Result, Task

_MEMBER_LINES = 10_000
_CHUNK = 1 << 20
_FAILED = b'"status":"failed"'
_GENERATION = b'"generation":'
_FIGURES = re.compile(
    rb',"attempt":(\d+),"started":"([0-9T:-]+)\.(\d+)Z","duration_ms":([0-9.]+),"billed_ms":(\d+),"max_memory_mb":(\d+)\}$'
)
"""The end of a line."""


def failed(path: Path) -> Iterator[Result]:
    """The failures in the file that no later generation has replaced."""
    later = _later_generations(path)
    for text in _lines_with(path, _FAILED):
        if (head := head_of(text)) is not None and head.failed and _stands(head, later):
            yield _result(path, head, text)


def every_result(path: Path) -> Iterator[Result]:
    """All current results. For a success only the figures at the end of the line are read, not the answer."""
    for text in current(path):
        head = head_of(text)
        if head is None:
            raise foreign(path, "a line")
        yield _result(path, head, text) if head.failed else _success(path, head, text)


def current(path: Path) -> Iterator[bytes]:
    """The lines of the current results. A last line that is still being written is skipped."""
    later = _later_generations(path)
    for text in _lines(path):
        # Most lines are not parsed: a success of the first generation is always current.
        head = head_of(text) if _FAILED in text or _GENERATION in text else None
        if head is None or _stands(head, later):
            yield text


def _stands(head: Head, later: IdTable) -> bool:
    return (later.get(head.task_id) or head.state) == head.state


def _later_generations(path: Path) -> IdTable:
    """The last state of each task that was run again."""
    later = IdTable()
    for text in _lines_with(path, _GENERATION):
        if (head := head_of(text)) is not None and head.generation:
            later[head.task_id] = head.state
    return later


def _lines_with(path: Path, word: bytes) -> Iterator[bytes]:
    """The lines that contain these bytes. Other lines of a plain file are checked in blocks, in a tenth of the time."""
    checked = 0
    if path.suffix != ".gz":
        for block in _blocks(path):
            if not block.startswith(BEGIN) or block.count(b"\n" + BEGIN) + 1 != (lines := block.count(b"\n")):
                break
            checked += lines
            at = block.find(word)
            while at >= 0:
                end = block.index(b"\n", at) + 1
                yield block[block.rfind(b"\n", 0, at) + 1 : end]
                at = block.find(word, end)
        else:
            return
    for text in islice(_lines(path), checked, None):
        if word in text:
            yield text


def _blocks(path: Path) -> Iterator[bytes]:
    """The file in blocks of whole lines, about a megabyte each. A last line that is still being written is skipped.

    If the file cannot be read, or its last line is not the beginning of a result, the last block does not begin like a
    result: then `_lines` finds out what is wrong.
    """
    rest = b""
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                whole, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    yield whole + newline
    except OSError:
        yield b""
    if not BEGIN.startswith(rest) and not rest.startswith(BEGIN):
        yield rest


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with _opened(path) as file:
            for number, text in enumerate(file, 1):
                if BEGIN.startswith(text):
                    return  # the last line is still being written
                if not text.startswith(BEGIN):
                    raise Rejected(
                        f"{path}, line {number}: this is not a result of htcgrid, or it is damaged. Name a file of results "
                        "in [sink] path. If a crash has damaged the end of the file, start the run again: it repairs the file."
                    )
                if not text.endswith(b"\n"):
                    return
                yield text
    except EOFError:
        return  # a member that is still being written
    except (OSError, zlib.error) as error:
        if isinstance(error, gzip.BadGzipFile) and str(error).endswith("(b'\\x1f')"):
            return  # only the first byte of the next member is written
        reason = getattr(error, "strerror", None) or error
        raise Rejected(f"[sink] path = {str(path)!r} cannot be read: {reason}.") from error


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb", buffering=1 << 20)


def _result(path: Path, head: Head, text: bytes) -> Result:
    try:
        document: dict[str, Any] = parsed(text)
        outcome = Outcome(
            head.task_id,
            json.dumps(document["error"]).encode(),
            FailureKind(document["failure"]),
            started=_seconds(document["started"]),
            duration_ms=document["duration_ms"],
            billed_ms=document["billed_ms"],
            max_memory_mb=document["max_memory_mb"],
            log_tail=document["log_tail"].encode("utf-8", "surrogatepass"),
            environment=document.get("environment", ""),
        )
        attributes = {GENERATION: str(head.generation)} if head.generation else {}
        return Result(Task(head.task_id, b"", attributes), outcome, document["attempt"])
    except (KeyError, ValueError, TypeError) as error:
        raise Rejected(
            f"{path}: the result of task {head.task_id!r} is damaged: {type(error).__name__}: {error}."
        ) from error


def _success(path: Path, head: Head, text: bytes) -> Result:
    found = _FIGURES.search(text, max(0, text.rfind(b',"attempt":')))
    if found is None:
        raise Rejected(f"{path}: the result of task {head.task_id!r} is damaged: its line has no figures at the end.")
    attempt, second, fraction, duration, billed, memory = found.groups()
    outcome = Outcome(
        head.task_id,
        b"",
        started=_whole_second(second.decode()) + int(fraction) / 1000,
        duration_ms=float(duration),
        billed_ms=int(billed),
        max_memory_mb=int(memory),
    )
    attributes = {GENERATION: str(head.generation)} if head.generation else {}
    return Result(Task(head.task_id, b"", attributes), outcome, int(attempt))


@lru_cache(maxsize=8)
def _whole_second(text: str) -> int:
    return timegm(strptime(text, "%Y-%m-%dT%H:%M:%S"))


def _seconds(text: str) -> float:
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return _whole_second(whole) + float(f"0.{fraction or 0}")


def compact(fd: int, path: Path) -> int:
    """Replace this file, which is locked, by a new file with only the current lines; returns the new one, open and locked.

    Raises `OSError` if that fails: the file is then unchanged.
    """
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name}.compacted")
    new = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write(new, path)
        os.fchmod(new, os.fstat(fd).st_mode & 0o7777)
        os.fsync(new)
        beside.replace(target)
    except BaseException:
        os.close(new)
        with suppress(OSError):
            beside.unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    os.close(fd)
    return new


def _write(fd: int, path: Path) -> None:
    compressed = path.suffix == ".gz"
    batch: list[bytes] = []
    with os.fdopen(os.dup(fd), "wb") as file:
        for text in current(path):
            batch.append(text)
            if len(batch) >= _MEMBER_LINES:
                file.write(gzip.compress(b"".join(batch), 6) if compressed else b"".join(batch))
                batch.clear()
        if batch:
            file.write(gzip.compress(b"".join(batch), 6) if compressed else b"".join(batch))

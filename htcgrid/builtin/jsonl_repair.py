"""Removes what a crash or a power cut has damaged at the end of a results file, so that those tasks run again."""

import logging
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from htcgrid.builtin.jsonl_results import Head, foreign, is_torn_result, read_results
from htcgrid.spi import Rejected

log = logging.getLogger(__name__)

_GZIP = b"\x1f\x8b"
_MEMBER = b"\x1f\x8b\x08"
_CHUNK = 1 << 20
_BATCH_LINES = 10_000
"""The most lines that one `put` writes. Each `put` waits for the disk, so a power cut damages no more lines than this."""


def resume(fd: int, path: Path) -> Iterator[Head]:
    """Repair the end of the file; returns the head of every result in it. Raises `Rejected` for another program's file."""
    if path.suffix == ".gz":
        _repair_gzip(fd, path)
    else:
        _repair_plain(fd, path)
    for found in read_results(path):
        if isinstance(found, int):
            if path.suffix == ".gz":
                raise _damaged_text(path, found)
            _put_damaged_lines_aside(fd, path, found)
            return
        yield found


def _repair_plain(fd: int, path: Path) -> None:
    """Cut off a last line that a crash has left incomplete. Raises `Rejected` if it was never a result."""
    if not _begins_like_results(os.pread(fd, _CHUNK, 0)):
        raise foreign(path, "line 1")
    size = end = os.fstat(fd).st_size
    while end > 0:
        start = max(0, end - _CHUNK)
        newline = os.pread(fd, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        if not is_torn_result(os.pread(fd, _CHUNK, end)):
            raise foreign(path, "last line")
        os.ftruncate(fd, end)


def _begins_like_results(text: bytes) -> bool:
    """Whether this may be the beginning of a file of results; a power cut may have left zeros in place of its first lines."""
    rest = text.lstrip(b"\0")
    if len(rest) < len(text) and b"\n" in rest:
        rest = rest.partition(b"\n")[2]
    return _is_text_of_results(rest)


def _is_text_of_results(text: bytes) -> bool:
    return not text.startswith(b"\0") and is_torn_result(text)


def _put_damaged_lines_aside(fd: int, path: Path, start: int) -> None:
    lines = 0
    for at in range(start, os.fstat(fd).st_size, _CHUNK):
        lines += os.pread(fd, _CHUNK, at).count(b"\n")
    if lines > _BATCH_LINES:
        raise Rejected(
            f"{path} is damaged at byte {start:,}, and {lines - 1:,} lines follow. Its disk may be failing: keep a copy. "
            "Delete the damaged line, and its task runs again."
        )
    _put_aside(fd, path, start)


def _put_aside(fd: int, path: Path, start: int) -> None:
    """Move the bytes from `start` on into another file in the same folder, and log that."""
    beside = path.with_name(path.name + ".damaged")
    size = os.fstat(fd).st_size
    with beside.open("ab") as file:
        for at in range(start, size, _CHUNK):
            file.write(os.pread(fd, _CHUNK, at))
        file.flush()
        os.fsync(file.fileno())
    os.ftruncate(fd, start)
    os.fsync(fd)
    log.warning(
        "%s is damaged at its end, as after a power cut: its last %d bytes, from byte %d on, were moved to %s. "
        "The tasks of these results run again.",
        *(path, size - start, start, beside),
    )


def _repair_gzip(fd: int, path: Path) -> None:
    """Cut off a last gzip member that is incomplete; each `put` appends a member."""
    if not _GZIP.startswith(os.pread(fd, len(_GZIP), 0)):
        raise foreign(path, "which is not a gzip file")
    good = at = 0
    begun = False
    member = zlib.decompressobj(wbits=31)
    while chunk := os.pread(fd, _CHUNK, at):
        at += len(chunk)
        while chunk:
            try:
                text = member.decompress(chunk)
            except zlib.error:
                _put_damaged_member_aside(fd, path, good)
                return
            if not begun and not _is_text_of_results(text):
                raise foreign(path, "line 1")
            begun = begun or bool(text)
            chunk = member.unused_data
            if member.eof:
                good = at - len(chunk)
                member = zlib.decompressobj(wbits=31)
    if good < at and (after := _next_whole_member(fd, good)) is not None:  # a damaged member may seem to have no end
        raise _damaged_inside(path, good, after)
    os.ftruncate(fd, good)


def _put_damaged_member_aside(fd: int, path: Path, good: int) -> None:
    after = _next_whole_member(fd, good)
    if after is not None:
        raise _damaged_inside(path, good, after)
    _put_aside(fd, path, good)


def _damaged_text(path: Path, at: int) -> Rejected:
    """The text of a compressed file is checked by gzip, so no crash has damaged it: another program has written it."""
    return Rejected(
        f"{path} is damaged at byte {at:,} of its unpacked text: the line there is not a whole result. Unpack it with `gunzip`, "
        "delete that line, and compress it again; then its task runs again."
    )


def _damaged_inside(path: Path, good: int, after: int) -> Rejected:
    return Rejected(
        f"{path} is damaged between bytes {good:,} and {after:,}, and whole results follow. Its disk may be failing: keep a "
        f"copy. `(head -c {good} {path}; tail -c +{after + 1} {path}) > repaired.jsonl.gz` writes a file without the damaged "
        "part. Put that file in its place, and the tasks of the damaged part run again."
    )


def _next_whole_member(fd: int, damaged: int) -> int | None:
    """Where the next member begins that can be read to its end; None if there is none."""
    size = os.fstat(fd).st_size
    at = damaged + 1
    while at < size:
        chunk = os.pread(fd, _CHUNK + len(_MEMBER) - 1, at)
        found = chunk.find(_MEMBER)
        if found < 0:
            at += _CHUNK
        elif _is_whole_member(fd, at + found):
            return at + found
        else:
            at += found + 1
    return None


def _is_whole_member(fd: int, at: int) -> bool:
    member = zlib.decompressobj(wbits=31)
    try:
        while not member.eof and (chunk := os.pread(fd, _CHUNK, at)):
            member.decompress(chunk)
            at += len(chunk)
    except zlib.error:
        return False
    return member.eof

"""The manifests of runs, in a file in the folder of the results: one line of JSON for each run."""

import os
from collections.abc import Iterator
from pathlib import Path

from htcgrid.builtin.jsonl_descriptor import synchronise
from htcgrid.spi import Unavailable


def add(results: Path, document: bytes) -> None:
    """Append one. Raises `Unavailable` if the file cannot be written."""
    path = _beside(results)
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            line = _end_of_a_torn_line(fd) + document + b"\n"
            written = os.write(fd, line)  # in one call, because several agents may share the file
            synchronise(fd)
        finally:
            os.close(fd)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error
    if written < len(line):
        raise Unavailable(f"{path}: only {written} of {len(line)} bytes could be written; the disk may be full")


def _end_of_a_torn_line(fd: int) -> bytes:
    """A line break, where the disk was full or the machine stopped in the middle of the last line."""
    size = os.fstat(fd).st_size
    return b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""


def lines(results: Path) -> Iterator[bytes]:
    """All of them, in the order in which they were added. Raises `Unavailable` if the file cannot be read."""
    path = _beside(results)
    try:
        with path.open("rb") as file:
            yield from (line.rstrip(b"\n") for line in file if line.strip())
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


def _beside(results: Path) -> Path:
    return results.with_name(f"{results.name}.manifest.jsonl")

"""The manifests of runs, in a file in the folder of the results: one line of JSON for each run."""

import os
from collections.abc import Iterator
from pathlib import Path

from htcgrid.spi import Unavailable


def add(results: Path, document: bytes) -> None:
    """Append one. Raises `Unavailable` if the file cannot be written."""
    path = _beside(results)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, document + b"\n")  # in one call, because several agents may share the file
        finally:
            os.close(fd)
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from error


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

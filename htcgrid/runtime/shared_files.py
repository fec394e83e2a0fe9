"""Files in `/dev/shm` that a process made and did not remove before it was killed: memory that nobody would free.

Only the process's own files are removed: made while it lived, open for writing at its end, and open in no other process.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

_FOLDER = "/dev/shm/"  # noqa: S108 - it is cleaned up, not used

_File = tuple[int, int]
"""A file's device and inode."""


def present() -> frozenset[_File]:
    """The files that exist before the process starts, and so were made by others."""
    found: set[_File] = set()
    folders = [_FOLDER]
    while folders:
        folder = folders.pop()
        with suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
            device = os.stat(folder).st_dev  # noqa: PTH116 - called for each process that starts
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    found.add((device, entry.inode()))
    return frozenset(found)


def held(pids: Iterable[int], others: frozenset[_File]) -> Mapping[str, _File]:
    """The files that these processes have open for writing, without those that were there before."""
    found = {path: _identity(path) for pid in pids for path in _writable(pid)}
    return {path: file for path, file in found.items() if file is not None and file not in others}


def remove(files: Mapping[str, _File]) -> None:
    """Remove these, unless they are gone or another process has them."""
    if not files:
        return
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    in_use = {path for pid in pids for path in _writable(pid, read_only_too=True)}
    for path, file in files.items():
        if path not in in_use and _identity(path) == file:
            with suppress(FileNotFoundError, PermissionError):
                Path(path).unlink()


def _identity(path: str) -> _File | None:
    try:
        found = os.lstat(path)
    except (FileNotFoundError, PermissionError):
        return None
    return found.st_dev, found.st_ino


def _writable(pid: int, *, read_only_too: bool = False) -> set[str]:
    """The paths that a process has open or mapped for writing, or at all."""
    found = set()
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            path = str(entry.readlink())
            if path.startswith(_FOLDER) and (read_only_too or os.lstat(entry).st_mode & 0o200):
                found.add(path)
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        maps = Path(f"/proc/{pid}/maps").read_text(errors="surrogateescape")
        if _FOLDER in maps:
            lines = [line.split(maxsplit=5) for line in maps.splitlines() if f" {_FOLDER}" in line]
            found |= {path for _, mode, _, _, _, path in lines if read_only_too or mode[1] + mode[3] == "ws"}
    return found

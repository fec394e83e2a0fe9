"""The memory of a process and all below it, counted as a control group counts it, without one.

What counts: anonymous memory, and files in memory (`memfd_create`, `/dev/shm`, shared mappings). What does not: pages of
files on a disk, which the kernel can drop. Pages that several processes share count once, in proportion.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

_MB = 1 << 20
_LITTLE_KB = 1024
"""Shared memory that is too small to be measured exactly, such as the page that a worker shares with its supervisor."""
_MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ ([0-9a-f]+):([0-9a-f]+) (\d+)")

_File = tuple[int, int]
"""A file's device and inode."""


def at_most_mb(pid: int) -> float:
    """An upper bound, quickly: pages that processes share count for each, and files both as open and as mapped."""
    pids = list(family(pid))
    return sum(map(_resident_kb, pids)) / 1024 + sum(_open_files(pids).values()) / _MB


def charged_mb(pid: int, *, is_shared: bool = False) -> float:
    """Each page once, or by these processes' share of it; slower, because all mappings are read.

    `is_shared` says that processes which are not its descendants share its pages too.
    """
    pids = list(family(pid))
    files = _open_files(pids)
    sizes = _kilobytes(Path(f"/proc/{pid}/status"))
    shared_kb = max(sizes.get("RssShmem", 0), sum(files.values()) / 1024)
    if not is_shared and len(pids) == 1 and shared_kb < _LITTLE_KB:
        # No descendant shares it, and its supervisor has none of its pages.
        return (sizes.get("RssAnon", 0) + shared_kb) / 1024
    # Read before and after: what is mapped or unmapped meanwhile must not count both as a share and as a file.
    before = _mapped(pids, files)
    shares = sum(map(_share_kb, pids)) / 1024
    mapped = before | _mapped(pids, files)
    return shares + sum(max(0, size - mapped[file]) for file, size in files.items()) / _MB


def _resident_kb(pid: int) -> int:
    sizes = _kilobytes(Path(f"/proc/{pid}/status"))
    return sizes.get("RssAnon", 0) + sizes.get("RssShmem", 0)


def _share_kb(pid: int) -> int:
    try:
        sizes = _kilobytes(Path(f"/proc/{pid}/smaps_rollup"))
    except PermissionError:  # a program of another user's, such as `sudo`
        return _resident_kb(pid)
    return sizes.get("Pss_Anon", 0) + sizes.get("Pss_Shmem", 0)


def _mapped(pids: Iterable[int], files: Mapping[_File, int]) -> Counter[_File]:
    """How much of each of these files is resident in these processes, in bytes; the most of any one of them."""
    found: Counter[_File] = Counter()
    if files:
        for pid in pids:
            found |= _mapped_by(pid, files)
    return found


def _mapped_by(pid: int, files: Mapping[_File, int]) -> Counter[_File]:
    """How much of each of these files is resident in this process, in bytes."""
    found: Counter[_File] = Counter()
    file: _File = (0, 0)
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError), Path(f"/proc/{pid}/smaps").open() as lines:
        for line in lines:
            if heading := _MAPPING.match(line):
                major, minor, inode = heading.groups()
                file = (os.makedev(int(major, 16), int(minor, 16)), int(inode))
            elif file in files and line.startswith("Rss:"):
                found[file] += int(line.split()[1]) * 1024
    return found


def _open_files(pids: Iterable[int]) -> Mapping[_File, int]:
    """Files in memory that these have open, and how much memory each takes, in bytes."""
    sizes: dict[_File, int] = {}
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                if str(entry.readlink()).startswith(("/memfd:", "/dev/shm/")):  # noqa: S108 - to look at it
                    found = entry.stat()
                    sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sizes


def _kilobytes(file: Path) -> Mapping[str, int]:
    """The sizes that a file of /proc lists, in KiB; none once the process has ended."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 3 and words[2] == "kB"}


def family(pid: int) -> Iterator[int]:
    """A process and its descendants."""
    left = [pid]  # a handler may start a longer chain of processes than Python allows nested calls
    while left:
        pid = left.pop()
        yield pid
        left += _children(pid)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for thread in list(Path(f"/proc/{pid}/task").iterdir()):
            with suppress(FileNotFoundError, ProcessLookupError):  # this thread has ended
                found += map(int, (thread / "children").read_text().split())
    return found

"""How much memory a container uses, read where the kernel says so."""

import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_INACTIVE = (b"inactive_file ", b"total_inactive_file ")


class MemoryMeter:
    """The memory of a process's control group, counted as `docker stats` does: page cache that is not in use left out.

    Quiet where the group cannot be read, as with an engine in a virtual machine: then it is 0.
    """

    def __init__(self, pid: int) -> None:
        self._usage, self._detail = _files(pid)

    def megabytes(self) -> float:
        """MiB in use now."""
        if self._usage is None or self._detail is None:
            return 0.0
        try:
            usage = int(self._usage.read_bytes())
            inactive = _inactive(self._detail.read_bytes())
        except (OSError, ValueError):
            return 0.0
        return max(0, usage - inactive) / (1 << 20)


def _inactive(detail: bytes) -> int:
    found = 0
    for line in detail.splitlines():
        if line.startswith(_INACTIVE):
            found = int(line.rpartition(b" ")[2])
    return found


def _files(pid: int) -> tuple[Path | None, Path | None]:
    """The files of usage and detail: those of the memory controller, else of the one hierarchy."""
    try:
        groups = (Path("/proc") / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None, None
    for line in groups:
        _, controllers, group = line.split(":", 2)
        inside = group.lstrip("/")
        if "memory" in controllers.split(","):
            folder = _ROOT / "memory" / inside
            return _readable(folder / "memory.usage_in_bytes"), _readable(folder / "memory.stat")
    for line in groups:
        if line.startswith("0::"):
            folder = _ROOT / line[3:].lstrip("/")
            return _readable(folder / "memory.current"), _readable(folder / "memory.stat")
    return None, None


def _readable(path: Path) -> Path | None:
    return path if os.access(path, os.R_OK) else None

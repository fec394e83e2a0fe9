"""How much memory a container uses, read where the kernel says so."""

from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_INACTIVE = (b"inactive_file ", b"total_inactive_file ")


class ContainerMemory:
    """The memory of a container's control group, counted as `docker stats` does: page cache that is not in use left out.

    `pid` is the container's first process. Where the container has no group of its own, as with a rootless engine and
    control groups version 1, or none that can be read, as with an engine in a virtual machine, it is 0.
    """

    def __init__(self, pid: int, container: str) -> None:
        self._usage, self._detail, self._events = _files(pid, container)
        self._kills = 0

    def megabytes(self) -> float:
        """MiB in use now."""
        try:
            usage = int(self._usage.read_bytes())
            inactive = _last(self._detail.read_bytes(), _INACTIVE)
        except (OSError, ValueError):
            return 0.0
        return max(0, usage - inactive) / (1 << 20)

    def is_counted(self) -> bool:
        """Whether there is a group of the container's own."""
        return self._usage.exists()

    def has_killed(self) -> bool:
        """Whether the kernel has killed a process of the group for its memory since this was asked last."""
        try:
            kills = _last(self._events.read_bytes(), (b"oom_kill ",))
        except (OSError, ValueError):
            return False
        before, self._kills = self._kills, kills
        return kills > before


def _last(table: bytes, names: tuple[bytes, ...]) -> int:
    """The value of the last line with one of these names."""
    found = 0
    for line in table.splitlines():
        if line.startswith(names):
            found = int(line.rpartition(b" ")[2])
    return found


def _files(pid: int, container: str) -> tuple[Path, Path, Path]:
    """The files of usage, detail and events: of the memory controller, else of the one hierarchy."""
    try:
        groups = (_PROC / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        groups = []
    # Every engine names the group after the container. Another group has other processes too: of a session, or of the machine.
    parts = [parts for parts in (line.split(":", 2) for line in groups) if container in parts[2]]
    for _, controllers, group in parts:
        if "memory" in controllers.split(","):
            folder = _ROOT / "memory" / group.lstrip("/")
            return folder / "memory.usage_in_bytes", folder / "memory.stat", folder / "memory.oom_control"
    unified = next((group for number, _, group in parts if number == "0"), "no-such-group")
    folder = _ROOT / unified.lstrip("/")
    return folder / "memory.current", folder / "memory.stat", folder / "memory.events"

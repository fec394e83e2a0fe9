"""Which processes of this machine show a text that should be secret."""

from pathlib import Path


def showing(secret: bytes, what: str) -> set[int]:
    """Those that have it in that file of theirs below /proc: `cmdline`, `environ`."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if secret in (folder / what).read_bytes():
                found.add(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # some are the machine's own
            continue
    return found


def processes_beside(pid: int) -> set[int]:
    """All of the same process namespace: those of a container, by the number of one of them."""
    namespace = Path(f"/proc/{pid}/ns/pid").readlink()
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns" / "pid").readlink() == namespace:
                found.add(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
    return found

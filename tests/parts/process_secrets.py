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

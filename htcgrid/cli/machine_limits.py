"""What to do when the machine runs out of files, threads, processes, memory or disk space."""

import errno
import resource
from collections.abc import Callable, Iterator


def advice(error: BaseException) -> str | None:
    """A sentence about the limit that was reached; None if the error is a bug and not a limit."""
    for each in _causes(error):
        if isinstance(each, MemoryError) or (isinstance(each, ImportError) and "failed to map segment" in str(each)):
            return f"There is no memory left{_of(resource.RLIMIT_AS, ' of')}. {_MEMORY}"
        if isinstance(each, RuntimeError) and "can't start new thread" in str(each):
            return f"No further thread can be started. {_PROCESSES}"
        if isinstance(each, FileNotFoundError) and "No usable temporary directory" in str(each):
            return f"{each.strerror}. Free some space in one of them, or set TMPDIR to a folder that can be written."
        if isinstance(each, OSError) and each.errno in _ADVICE:
            where = f" ({each.filename})" if each.filename and each.errno not in _OF_ANY_FILE else ""
            return f"{each.strerror or each}{where}. {_ADVICE[each.errno]()}"
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _of(limit: int, before: str = "") -> str:
    """The limit of this process, if it has one."""
    soft, _ = resource.getrlimit(limit)
    return "" if soft == resource.RLIM_INFINITY else f"{before} {soft}".rstrip()


def _files() -> str:
    return (
        f"This process may have{_of(resource.RLIMIT_NOFILE)} files open. Raise that limit (`ulimit -n`), or have fewer "
        "workers. Nothing is lost: what has no result is run again."
    )


_PROCESSES = (
    "Raise the limit on processes and threads (`ulimit -u`, TasksMax of a service, the pids limit of a container) or on "
    "memory (`ulimit -v`), or use fewer workers. Nothing is lost: tasks without a result run again."
)
_MEMORY = (
    "Raise the limit on memory (`ulimit -v`, or that of the container), or use fewer workers. "
    "Nothing is lost: what has no result is run again."
)
_DISK = "Free some space on that file system or raise the quota. Nothing is lost: tasks without a result run again."

_OF_ANY_FILE = (errno.EMFILE, errno.ENFILE)
"""Errors that come with whichever file was opened next, whose name says nothing."""
_ADVICE: dict[int, Callable[[], str]] = {
    errno.EMFILE: _files,
    errno.ENFILE: lambda: "The machine has too many files open. Raise `sysctl fs.file-max`, or use fewer workers.",
    errno.EAGAIN: lambda: _PROCESSES,
    errno.ENOMEM: lambda: _MEMORY,
    errno.ENOSPC: lambda: _DISK,
    errno.EDQUOT: lambda: _DISK,
    errno.EFBIG: lambda: "Raise the limit on the size of a file (`ulimit -f`). Nothing is lost.",
    errno.EIO: lambda: "The disk could not be read or written. Check its health (`dmesg`). Nothing is lost.",
    errno.EROFS: lambda: "That file system is read-only. Name another folder; that of temporary files is TMPDIR.",
    errno.E2BIG: lambda: "The environment or the arguments of a program are too long. Shorten [function] environment.",
}

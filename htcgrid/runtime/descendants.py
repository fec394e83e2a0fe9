"""Lists and ends the descendants of this process."""

import os
import signal
import time

_TRACKER_SECONDS = 0.5


def children() -> list[int]:
    """The children of this process; orphans of workers that have ended are among them."""
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123
        return [int(pid) for pid in listing.read().split()]


def end_all(keep: set[int]) -> None:
    """End all children except these, and all descendants that become children of this process meanwhile.

    A program that has changed its user, such as sudo, may not be killed. It is left, and removed once it has ended.
    """
    spared = set(keep)
    while strays := set(children()) - spared:
        trackers = {pid for pid in strays if _is_tracker(pid)}
        spared |= _end(strays - trackers) | _await_end(trackers)


def _is_tracker(pid: int) -> bool:
    """Whether this is Python's resource tracker (or loky's), which removes shared memory after its makers have ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line:  # noqa: PTH123
            return b"resource_tracker" in line.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _await_end(pids: set[int]) -> set[int]:
    """Wait a short time for these to end by themselves; returns those that may not be killed."""
    deadline = time.monotonic() + _TRACKER_SECONDS
    while pids and time.monotonic() < deadline:
        pids = {pid for pid in pids if os.waitpid(pid, os.WNOHANG) == (0, 0)}
        time.sleep(0.002)
    return _end(pids)


def _end(pids: set[int]) -> set[int]:
    """Kill these and their groups, and wait until they are gone; returns those that may not be killed."""
    spared = set()
    for pid in pids:
        for kill in (os.killpg, os.kill):
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                spared.add(pid)
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG if pid in spared else 0)
        except ChildProcessError:
            continue
    return spared

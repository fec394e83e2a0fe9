"""The program that execution environments are forked from; started by `nursery.Nursery`.

It has AWS's runtime client loaded, so that a Python worker is there in milliseconds, and it is the
parent of every environment, so that none outlives the agent: it sees the agent's end, however that
comes, as the end of its control socket, and ends everything it started, even what has left its group.

Requests and replies are JSON, one message each, on a SEQPACKET socket:

- `{"setup": {"environment": {...}, "keep": [...], "python": true}}`, first and once;
- `{"spawn": {...}}` with the environment's file descriptors, answered by `{"pid": n}`;
- `{"reap": pid}`, answered by `{"status": n}`, a signal being negative.
"""

import ctypes
import gc
import json
import mmap
import os
import signal
import socket
import sys
from functools import lru_cache
from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_MESSAGE_BYTES = 1 << 16


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.setsid()
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    setup: dict[str, Any] = {}
    workers: set[int] = set()
    while True:
        try:
            message, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 4)
        except ConnectionResetError:
            break  # the agent was killed with a reply of ours unread
        if not message:
            break
        request = json.loads(message)
        if "setup" in request:
            setup = request["setup"]
            _prepare(setup)
            reply = {}
        elif "spawn" in request:
            pid = _spawn(control, request["spawn"], fds)
            workers.add(pid)
            reply = {"pid": pid}
        else:
            workers.discard(request["reap"])
            reply = {"status": _reap(request["reap"], workers)}
        try:
            control.send(json.dumps(reply).encode())
        except BrokenPipeError:
            break
    _end(workers)
    while strays := set(_children()):  # what the workers left behind has become ours
        _end(strays)


def _prepare(setup: dict[str, Any]) -> None:
    """Take on the environments' variables, then load the client, which reads some of them as it loads."""
    kept = {name: os.environ[name] for name in setup["keep"] if name in os.environ}
    os.environ.clear()
    os.environ.update(kept | setup["environment"])
    if setup["python"]:
        import awslambdaric.bootstrap  # noqa: F401, PLC0415 - forked workers find it loaded

        import htcgrid.runtime.worker  # noqa: F401, PLC0415
    gc.collect()
    gc.freeze()


def _spawn(control: socket.socket, request: dict[str, Any], fds: list[int]) -> int:
    pid = os.fork()
    if pid == 0:
        # Nothing may leave this branch but by the end of the process.
        status = 70
        try:
            control.close()
            _become(request, fds)
            status = 0
        except SystemExit as end:
            status = _exit_status(end)
        except KeyboardInterrupt:
            sys.excepthook(*sys.exc_info())
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)  # Python ends so, by the signal
        except BaseException:  # noqa: BLE001 - the last frame of the process: show it as Python would
            sys.excepthook(*sys.exc_info())
            status = 1
        finally:
            _flush_and_exit(status)
    for fd in fds:
        os.close(fd)
    return pid


def _exit_status(end: SystemExit) -> int:
    """The status that Python itself would end with."""
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)  # noqa: T201 - as Python does
    return 1


def _flush_and_exit(status: int) -> NoReturn:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _become(request: dict[str, Any], fds: list[int]) -> None:
    """Turn this fork into an execution environment."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # What this environment leaves orphaned stays below it while it lives, and so is known to be its own.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(0)  # the parent died before the line above
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    log = fds[0]
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - pathlib is not worth loading here
        os.dup2(nothing.fileno(), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["command"]:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program would inherit that
            signal.signal(number, signal.SIG_DFL)
        os.set_inheritable(log, False)  # it has the log as 1 and 2
        os.execvp(request["command"][0], request["command"])  # noqa: S606 - a program, no shell
    _run_python(request, log, fds[1], fds[2])


def _run_python(request: dict[str, Any], log: int, channel: int, page: int) -> None:
    from awslambdaric import bootstrap  # noqa: PLC0415 - loaded by _prepare

    from htcgrid.runtime import board  # noqa: PLC0415
    from htcgrid.runtime.worker import FramedClient  # noqa: PLC0415

    gc.unfreeze()
    _quicken_environ()
    sys.path[0:0] = [request["folder"]]
    client = FramedClient(
        socket.socket(fileno=channel), mmap.mmap(page, board.SIZE), log, request["function_arn"], request["limit"]
    )
    os.close(page)
    try:
        bootstrap.run(request["handler"], client)
    finally:
        client.flush()


def _quicken_environ() -> None:
    """Have `os.environ` answer as ever in less time: AWS's client asks it for six variables an event.

    The inherited lookups recode name and value each time, and tell what is missing by raising a KeyError
    and catching it. Both recodings are pure functions, and can be remembered.
    """

    class Environ(type(os.environ)):  # type: ignore[misc]
        def get(self, name: str, default: Any = None) -> Any:
            value = self._data.get(self.encodekey(name))
            return default if value is None else self.decodevalue(value)

        def __contains__(self, name: object) -> bool:
            return self.encodekey(name) in self._data

    os.environ.encodekey = lru_cache(os.environ.encodekey)
    os.environ.decodevalue = lru_cache(os.environ.decodevalue)
    os.environ.__class__ = Environ


def _reap(pid: int, workers: set[int]) -> int:
    """Wait for a worker that has ended, and end what it left behind."""
    _, status = os.waitpid(pid, 0)
    _end(set(_children()) - workers)
    return os.waitstatus_to_exitcode(status)


def _children() -> list[int]:
    """Who this process is the parent of; orphans of workers that have ended have become its children too."""
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123
        return [int(pid) for pid in listing.read().split()]


def _end(pids: set[int]) -> None:
    """Kill these and their groups, and wait until they are gone."""
    for pid in pids:
        for kill in (os.killpg, os.kill):
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
    for pid in pids:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            continue


if __name__ == "__main__":
    main()

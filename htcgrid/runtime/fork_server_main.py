"""The program that execution environments are forked from; started by `fork_server.ForkServer`.

It has AWS's runtime client loaded, so that a Python worker is there in milliseconds, and it is the
parent of every environment, so that none outlives the agent: it sees the agent's end, however that
comes, as the end of its control socket, and ends everything it started, even what has left its group.

Requests and replies are JSON, one message each, on a SEQPACKET socket:

- `{"spawn": {...}}` with the environment's file descriptors, answered by `{"pid": n}`, or by `{"error": text}` where
  the machine allows no more processes;
- `{"reap": pid}`, answered by `{"status": n}`, a signal being negative.
"""

import ctypes
import gc
import json
import mmap
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Collection
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_MESSAGE_BYTES = 1 << 16
_TRACKER_SECONDS = 0.5


def main(control_fd: int, home: str, clients: Collection[str]) -> None:
    """Serve until the agent ends. `clients` are the modules that AWS's runtime client has loaded, none without it.

    `home` is a folder to be removed at the end.
    """
    control = socket.socket(fileno=control_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the agent's to handle
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    os.chdir("/")  # it holds no folder of the user's
    guard = _guarded(control)
    if clients:
        # Forked workers find them loaded.
        import htcgrid.runtime.worker  # noqa: PLC0415
        import htcgrid.runtime.worker_signals  # noqa: F401, PLC0415
    gc.collect()
    gc.freeze()
    _serve(control, guard, clients)
    control.close()
    _end_all(keep=set())
    shutil.rmtree(home, ignore_errors=True)


def _serve(control: socket.socket, guard: int, clients: Collection[str]) -> None:
    """Do what the agent asks for, until it has ended."""
    workers: set[int] = set()
    watched = select.poll()
    for descriptor in (control.fileno(), guard):
        watched.register(descriptor, select.POLLIN)
    while True:
        if any(descriptor == guard for descriptor, _ in watched.poll()):
            break  # somebody has killed it
        try:
            message, fds, _, _ = socket.recv_fds(control, _MESSAGE_BYTES, 4)
        except ConnectionResetError:
            break  # the agent was killed with a reply of ours unread
        if not message:
            break
        for fd in fds:
            os.set_inheritable(fd, False)  # what a handler starts is not to have them
        request = json.loads(message)
        if "spawn" in request:
            reply = _spawn(control, request["spawn"], fds, clients)
            if "pid" in reply:
                workers.add(reply["pid"])
        else:
            workers.discard(request["reap"])
            reply = {"status": _reap(request["reap"], workers)}
        try:
            control.send(json.dumps(reply).encode())
        except BrokenPipeError:
            break


def _guarded(control: socket.socket) -> int:
    """Go on as the child of a guard, which ends what is left where this program is killed; the agent sees its end.

    Returns a descriptor that is readable once the guard has ended: then this program ends all in its place.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    reading, writing = os.pipe()
    server = os.fork()
    if server == 0:
        os.close(writing)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return reading
    control.close()
    os.close(reading)
    _, status = os.waitpid(server, 0)
    _end_all(keep=set())
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGKILL:
        os.kill(os.getpid(), signal.SIGKILL)  # the agent is to see the same end
    os._exit(code & 0xFF)


def _spawn(control: socket.socket, request: dict[str, Any], fds: list[int], clients: Collection[str]) -> dict[str, Any]:
    try:
        pid = os.fork()
    except OSError as error:  # EAGAIN: `ulimit -u`, or the limit of the control group
        pid, reply = -1, {"error": error.strerror}
    if pid == 0:
        # It ends as any program does, with Python's own end: buffers are flushed, and what is registered with
        # `atexit` runs. The frames of `main` below do nothing on the way.
        control.close()
        _become(request, fds, clients)
        sys.exit(0)
    for fd in fds:
        os.close(fd)
    return {"pid": pid} if pid > 0 else reply


def _become(request: dict[str, Any], fds: list[int], clients: Collection[str]) -> None:
    """Turn this fork into an execution environment."""
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # What this environment leaves orphaned stays below it while it lives, and so is known to be its own.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() == 1:
        os._exit(0)  # the parent died before the line above
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    log = fds[0]
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - pathlib is not worth loading here
        os.dup2(nothing.fileno(), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["command"]:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program would inherit that
            signal.signal(number, signal.SIG_DFL)
        os.execvp(request["command"][0], request["command"])  # noqa: S606 - a program, no shell
    _run_python(request, fds[1:], clients)


def _run_python(request: dict[str, Any], fds: list[int], clients: Collection[str]) -> None:
    from awslambdaric import bootstrap  # noqa: PLC0415 - loaded before the fork

    from htcgrid.runtime import shared_memory  # noqa: PLC0415
    from htcgrid.runtime.worker import FramedClient  # noqa: PLC0415
    from htcgrid.runtime.worker_environ import quicken  # noqa: PLC0415
    from htcgrid.runtime.worker_signals import leave_to_the_agent  # noqa: PLC0415

    log, channel, page = fds
    gc.unfreeze()
    quicken()
    sys.path[0:0] = [request["folder"]]
    client = FramedClient(
        socket.socket(fileno=channel),
        mmap.mmap(page, shared_memory.SIZE),
        log,
        request["function_arn"],
        request["limit"],
        bytes.fromhex(request.get("mark", "")),
    )
    os.close(page)
    leave_to_the_agent()
    _be_aws_program(request["handler"])
    _forget_what_the_user_has_too(clients)
    try:
        bootstrap.run(request["handler"], client)
    finally:
        client.flush()


def _be_aws_program(handler: str) -> None:
    """Have `__main__` be what it is under `python -m awslambdaric`: monitoring tools look for `bootstrap` there."""
    import awslambdaric.__main__ as program  # noqa: PLC0415 - loaded before the fork

    from htcgrid.runtime.worker import FramedClient  # noqa: PLC0415

    program.bootstrap.LambdaRuntimeClient = FramedClient  # these tools wrap its methods, to send what they have
    main_module = ModuleType("__main__")
    main_module.__dict__.update(vars(program), __name__="__main__")
    sys.modules["__main__"] = main_module
    sys.argv = [str(program.__file__), handler]


def _forget_what_the_user_has_too(clients: Collection[str]) -> None:
    """Have `import resource` find the user's own `resource.py`, where only this program has loaded Python's.

    What AWS's client has loaded stays, as it does on the service.
    """
    ours = {name for name in sys.modules if "." not in name and name not in clients}
    for name in ours - set(sys.builtin_module_names) - {"__main__"}:
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is None or spec.origin in {"built-in", "frozen"}:
            continue
        found = PathFinder.find_spec(name)
        if found is not None and found.origin is not None and found.origin != spec.origin:
            for module in [each for each in sys.modules if each == name or each.startswith(name + ".")]:
                del sys.modules[module]


def _reap(pid: int, workers: set[int]) -> int:
    """Wait for a worker that has ended, and end what it left behind."""
    _, status = os.waitpid(pid, 0)
    _end_all(keep=workers)
    return os.waitstatus_to_exitcode(status)


def _children() -> list[int]:
    """Who this process is the parent of; orphans of workers that have ended have become its children too."""
    with open(f"/proc/self/task/{os.getpid()}/children") as listing:  # noqa: PTH123
        return [int(pid) for pid in listing.read().split()]


def _end_all(keep: set[int]) -> None:
    """End all children but these, and what becomes a child of this process by that, however deep it was."""
    while strays := set(_children()) - keep:
        trackers = {pid for pid in strays if _is_tracker(pid)}
        _end(strays - trackers)
        _await_end(trackers)


def _is_tracker(pid: int) -> bool:
    """Whether this is Python's resource tracker (or loky's), which removes shared memory once its makers have ended."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as line:  # noqa: PTH123
            return b"resource_tracker" in line.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def _await_end(pids: set[int]) -> None:
    """Give these a moment to end by themselves."""
    deadline = time.monotonic() + _TRACKER_SECONDS
    while pids and time.monotonic() < deadline:
        pids = {pid for pid in pids if os.waitpid(pid, os.WNOHANG) == (0, 0)}
        time.sleep(0.002)
    _end(pids)


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

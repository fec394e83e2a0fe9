"""The program that execution environments are forked from; started by `fork_server.ForkServer`.

It has AWS's runtime client loaded, so that a Python worker starts in milliseconds. It is the parent of every environment,
so that none outlives the agent: however the agent ends, its control socket ends, and then this program ends everything that
it started, even processes that have left its group.

Requests and replies are JSON, one message each, on a SEQPACKET socket:

- `{"spawn": {...}}` with the environment's file descriptors, answered by `{"pid": n}`, or by `{"error": text}` where
  the machine allows no more processes;
- `{"reap": pid}`, answered by `{"status": n}`, a signal being negative;
- `{"preload": {...}}`, only as the first request, with a file for what is printed: see `htcgrid.runtime.preload`.
"""

import gc
import json
import mmap
import os
import select
import shutil
import signal
import socket
import sys
from collections.abc import Collection
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any, NoReturn

from htcgrid.runtime.descendants import end_all
from htcgrid.runtime.fork_server_guard import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, guarded, prctl

_MESSAGE_BYTES = 1 << 18
"""More than the longest command and the credentials of a function need, as JSON."""


def main(control_fd: int, home: str, clients: Collection[str]) -> None:
    """Serve until the agent ends. `clients` are the modules that AWS's runtime client has loaded, none without it.

    `home` is a folder to be removed at the end.
    """
    control = socket.socket(fileno=control_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent handles Ctrl-C
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    # A program that has started the agent may have ignored or blocked these, for itself.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    os.chdir("/")  # it holds no folder of the user's
    guard = guarded(control)
    if clients:
        # Forked workers find them loaded.
        import htcgrid.runtime.worker  # noqa: PLC0415
        import htcgrid.runtime.worker_signals  # noqa: F401, PLC0415
    gc.collect()
    gc.freeze()
    server = Server(control, guard, home, clients)
    server.serve()
    server.end()


class Server:
    """Does what the agent asks for."""

    def __init__(self, control: socket.socket, guard: int, home: str, clients: Collection[str]) -> None:
        self._control = control
        self._guard = guard
        self._home = home
        self._clients = clients
        self._poll = select.poll()
        for descriptor in (control.fileno(), guard):
            self._poll.register(descriptor, select.POLLIN)

    def serve(self, *, has_module: bool = False) -> tuple[dict[str, Any], list[int]] | None:
        """Serve until the agent has ended.

        If the function's module is already loaded (`has_module`), it also returns in each worker, with the request for
        that worker.
        """
        workers: set[int] = set()
        while (received := self._received()) is not None:
            request, fds = received
            if "preload" in request:
                from htcgrid.runtime import preload  # noqa: PLC0415 - few functions use it

                preload.load(self, request["preload"], fds[0], self._clients)
            elif "spawn" in request:
                pid, reply = self._spawn(request["spawn"], fds, has_module=has_module)
                if pid == 0:
                    return request["spawn"], fds[1:]
                if pid > 0:
                    workers.add(pid)
                self.reply(reply)
            else:
                workers.discard(request["reap"])
                self.reply({"status": _reap(request["reap"], workers)})
        return None

    def reply(self, answer: dict[str, Any]) -> None:
        try:
            self._control.send(json.dumps(answer).encode())
        except BrokenPipeError:
            return  # the agent has ended, which the next read shows

    def end(self) -> NoReturn:
        """End all that was started, and this program; `atexit` functions of the user's module do not run."""
        self._control.close()
        end_all(keep=set())
        shutil.rmtree(self._home, ignore_errors=True)
        os._exit(0)

    def _received(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next request; None once the agent or the guard has ended."""
        if any(descriptor == self._guard for descriptor, _ in self._poll.poll()):
            return None  # the guard was killed
        try:
            message, fds, _, _ = socket.recv_fds(self._control, _MESSAGE_BYTES, 4)
        except ConnectionResetError:
            return None  # the agent was killed before it read a reply
        if not message:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)  # programs that a handler starts must not get them
        return json.loads(message), fds

    def _spawn(self, request: dict[str, Any], fds: list[int], *, has_module: bool) -> tuple[int, dict[str, Any]]:
        reply: dict[str, Any]
        try:
            pid = os.fork()
            reply = {"pid": pid}
        except OSError as error:  # EAGAIN: `ulimit -u`, or the limit of the control group
            pid, reply = -1, {"error": error.strerror}
        if pid == 0:
            # A worker ends like any Python program: buffers are flushed and `atexit` functions run. The callers of this
            # method, which it returns through, do nothing then.
            self._control.close()
            _become(request, fds)
            if not has_module:
                _run_python(request, fds[1:], self._clients)
                sys.exit(0)
        else:
            for fd in fds:
                os.close(fd)
        return pid, reply


def _become(request: dict[str, Any], fds: list[int]) -> None:
    """Turn this fork into an execution environment."""
    os.setsid()
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # Orphans of this environment stay below it while it lives, so that they are known to be its own.
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
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


def _run_python(request: dict[str, Any], fds: list[int], clients: Collection[str]) -> None:
    from awslambdaric import bootstrap  # noqa: PLC0415 - loaded before the fork

    from htcgrid.runtime.worker import FramedClient  # noqa: PLC0415
    from htcgrid.runtime.worker_environ import quicken  # noqa: PLC0415
    from htcgrid.runtime.worker_signals import leave_to_the_agent  # noqa: PLC0415

    gc.unfreeze()
    loaded = quicken()
    sys.path[0:0] = [request["folder"]]
    client = FramedClient(*connected(request, fds), loaded=loaded)
    leave_to_the_agent()
    be_aws_program(request["handler"])
    forget_what_the_user_has_too(clients)
    try:
        bootstrap.run(request["handler"], client)
    finally:
        client.flush()


def connected(request: dict[str, Any], fds: list[int]) -> tuple[socket.socket, mmap.mmap, int, str, int, bytes]:
    """The arguments of a `FramedClient`: its socket, page and log, the function's ARN, the limit of an answer, and the mark."""
    from htcgrid.runtime import shared_memory  # noqa: PLC0415

    log, channel, page = fds
    memory = mmap.mmap(page, shared_memory.SIZE)
    os.close(page)
    mark = bytes.fromhex(request.get("mark", ""))
    return socket.socket(fileno=channel), memory, log, request["function_arn"], request["limit"], mark


def be_aws_program(handler: str) -> None:
    """Make `__main__` what it is under `python -m awslambdaric`: monitoring tools look for `bootstrap` there."""
    import awslambdaric.__main__ as program  # noqa: PLC0415 - loaded before the fork

    from htcgrid.runtime.worker import FramedClient  # noqa: PLC0415

    program.bootstrap.LambdaRuntimeClient = FramedClient  # these tools wrap its methods, to send what they have
    main_module = ModuleType("__main__")
    main_module.__dict__.update(vars(program), __name__="__main__")
    sys.modules["__main__"] = main_module
    sys.argv = [str(program.__file__), handler]


def forget_what_the_user_has_too(clients: Collection[str]) -> None:
    """Make `import resource` find the user's own `resource.py`, where only this program has loaded Python's.

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
    end_all(keep=workers)
    return os.waitstatus_to_exitcode(status)

"""The function's module, imported once in the fork server and shared by all workers that are forked from it.

AWS's own `bootstrap.run` imports it, so logging, `sys.path` and `__main__` are as they are in a worker. The client that it
then asks for an invocation is the fork server itself: it forks workers there, and in each of them it becomes a `FramedClient`.

After the import it checks for things that a fork cannot share: threads, connections, processes, random numbers.
"""

import fcntl
import gc
import os
import random
import signal
import socket
import stat
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from awslambdaric import bootstrap

from htcgrid.runtime import fork_server_main as program
from htcgrid.runtime.descendants import children
from htcgrid.runtime.fork_server_guard import PR_SET_PDEATHSIG, prctl
from htcgrid.runtime.worker import FramedClient, Invocation
from htcgrid.runtime.worker_environ import quicken
from htcgrid.runtime.worker_signals import leave_to_the_agent

if TYPE_CHECKING:
    from htcgrid.runtime.fork_server_main import Server

_LOG_BYTES = 4096
_MESSAGE_LETTERS = 1000
_NAMED = 5
_SIGNALS = sorted(set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP})
_SHARED_KINDS = ("socket:", "anon_inode:[eventpoll]", "anon_inode:[io_uring]")


def load(server: "Server", request: Mapping[str, Any], log: int, clients: Collection[str]) -> None:
    """Import the module and serve from then on; does not return in the fork server.

    The agent is told `{"imported": true, "seconds": s, "refused": [...], "warnings": [...]}`, or
    `{"imported": false, "error": text}`, after which this program ends.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the agent ends an import that takes too long
    signal.setitimer(signal.ITIMER_REAL, request["seconds"] + 1)  # and this timer does if the agent has ended before
    client = _ForkingClient(server, log, request["folder"])
    os.chdir(request["folder"])
    sys.path[0:0] = [request["folder"]]
    program.be_aws_program(request["handler"])
    program.forget_what_the_user_has_too(clients)
    try:
        bootstrap.run(request["handler"], client)
    except BaseException as error:
        if type(client) is _ForkingClient:
            client.give_up(type(error).__name__, str(error))
        client.flush()
        raise


class _ForkingClient(FramedClient):
    """The client that `bootstrap.run` asks for an invocation after the module is imported."""

    def __init__(self, server: "Server", log: int, folder: str) -> None:
        self._server = server
        self._server_pid = os.getpid()
        self._folder = folder
        self._began = time.monotonic_ns()
        self._printed_in = log
        self._handlers = {number: signal.getsignal(number) for number in _SIGNALS}
        self._streams = [os.dup(1), os.dup(2)]
        for stream in (1, 2):
            os.dup2(log, stream)
        self._files = set(_open_files())

    def wait_next_invocation(self) -> Invocation:
        if os.getpid() != self._server_pid:
            os._exit(0)  # the module has forked, and this is the child
        printed, handlers, folder = self._after_the_import()
        spawned = self._server.serve(has_module=True)
        if spawned is None:
            self._server.end()
        os.chdir(folder)
        os.write(1, printed)  # as every environment prints it that imports the module by itself
        self.__class__ = FramedClient  # type: ignore[assignment]
        FramedClient.__init__(self, *program.connected(*spawned), loaded=quicken())
        leave_to_the_agent()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _draw_other_numbers()
        return self.wait_next_invocation()

    def post_init_error(self, error: Any, _error_type: str | None = None) -> None:
        self.give_up(str(error.get("errorType")), str(error.get("errorMessage")))

    def give_up(self, error_type: str, message: str) -> None:
        """Report to the agent that there is no module to share, and end."""
        if os.getpid() == self._server_pid:
            self._server.reply({"imported": False, "error": f"{error_type}: {message}"[:_MESSAGE_LETTERS]})
            self._server.end()
        os._exit(0)

    def _after_the_import(self) -> tuple[bytes, Mapping[int, Any], str]:
        """Make this a program to fork from, and tell the agent. Returns what was printed, and what the module has changed
        that is each worker's: how signals are handled, and the current folder."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        seconds = (time.monotonic_ns() - self._began) / 1e9
        for stream, kept in enumerate(self._streams, 1):
            os.dup2(kept, stream)
            os.close(kept)
        size = os.fstat(self._printed_in).st_size
        printed = os.pread(self._printed_in, _LOG_BYTES, max(0, size - _LOG_BYTES))
        os.close(self._printed_in)
        changed: dict[int, Any] = {}
        for number, before in self._handlers.items():
            if (now := signal.getsignal(number)) != before:
                changed[number] = now
                signal.signal(number, before)
        folder = str(Path.cwd())
        os.chdir("/")
        refused, warnings = list(_refused(self._files)), list(_warnings(self._files, self._folder))
        gc.collect()
        gc.freeze()  # otherwise the collector writes into every object, and each worker gets its own copy of the memory
        prctl(PR_SET_PDEATHSIG, signal.SIGCONT, 0, 0, 0)  # as before the import
        self._server.reply({"imported": True, "seconds": seconds, "refused": refused, "warnings": warnings})
        return printed, changed, folder


def _refused(known: Collection[int]) -> Iterator[str]:
    """What makes workers fail that are forked from this process."""
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if threads:
        yield f"threads that still run ({_named(threads)}), and a worker has none of them"
    if started := children():
        yield f"processes that still run (ids {_named(list(map(str, started)))}), which belong to no worker"
    shared = [_shown(fd) for fd in _open_files() if fd not in known and _target(fd).startswith(_SHARED_KINDS)]
    if shared:
        yield f"open connections ({_named(shared)}), which all workers would read from and write to at once"


def _warnings(known: Collection[int], folder: str) -> Iterator[str]:
    """What may make workers fail, or share what they should not."""
    native = _threads_after_a_fork() - len(threading.enumerate())
    if native > 0:
        yield (
            f"it leaves {native} threads of a compiled library running, and a worker has none of them; if handlers hang, "
            "leave out `preload`"
        )
    written = [_target(fd) for fd in _open_files() if fd not in known and _is_written(fd)]
    if written:
        yield (
            f"it leaves files open for writing ({_named(written)}), with one position for all workers; open them in the "
            "handler"
        )
    if generators := sorted(_generators(folder)):
        yield (
            f"it makes random generators ({_named(generators)}), which draw the same numbers in every worker; make them in "
            "the handler, or on its first call"
        )


def _threads_after_a_fork() -> int:
    """How many threads this process has after a fork: some libraries, such as OpenBLAS, end theirs before it."""
    if _threads() > 1:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    return _threads()


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _generators(folder: str) -> Iterator[str]:
    numpy = sys.modules.get("numpy.random")
    kinds = tuple(filter(None, [random.Random, *(getattr(numpy, name, None) for name in ("Generator", "RandomState"))]))
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file is None or not Path(file).is_relative_to(folder) or "site-packages" in file:
            continue
        for variable, value in list(vars(module).items()):
            if isinstance(value, kinds) and not isinstance(value, random.SystemRandom):
                yield f"{name}.{variable}"


def _draw_other_numbers() -> None:
    """Seed these libraries: Python seeds only its own `random` anew in a forked process."""
    for name in ("numpy.random", "torch"):
        if (seed := getattr(sys.modules.get(name), "seed", None)) is not None:
            seed()


def _open_files() -> list[int]:
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    return [fd for fd in numbers if _target(fd)]  # not that of the listing itself


def _target(fd: int) -> str:
    with suppress(OSError):
        return str(Path(f"/proc/self/fd/{fd}").readlink())
    return ""


def _is_written(fd: int) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.fstat(fd).st_mode) and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    return False


def _shown(fd: int) -> str:
    """A connection, described by the address of its other end."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as connection:
        with suppress(OSError):
            peer = connection.getpeername()
            return f"to {peer[0]}:{peer[1]}" if isinstance(peer, tuple) else f"to {peer or 'another socket'!s}"
        return f"a socket of {connection.family.name}"
    return _target(fd)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more

"""Starts the fork server, and through it execution environments."""

import fcntl
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from htcgrid.runtime import layers, strays
from htcgrid.runtime.account import Account
from htcgrid.spi import Function, Rejected, Unavailable

log = logging.getLogger(__name__)

INHERITED = ("LD_LIBRARY_PATH", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "USER", "VIRTUAL_ENV")
"""Variables of the agent that environments get. Credentials are not among them, nor is HOME, where SDKs
find those of `~/.aws`."""

HANDLERS_PYTHON = ("-X", "utf8", *(("-X", "gil=1") if "t" in sys.abiflags else ()))
"""Options of a Python that runs AWS's client. A free-threaded Python turns the GIL on for it anyway; without the option it
would write that into the handler's log."""

_MESSAGE_BYTES = 1 << 16
_LOOK_SECONDS = 1.0
"""How long the program may take before it gets SIGCONT: a handler may have stopped it, because it is its parent."""
_CLOSE_LOOKS = 10
# Tools that watch processes have searched for this comment since the first version. The packages come from where the agent
# has them, though this Python may have installed others of these names.
_PROGRAM = """\
# htcgrid's fork server (fork_server_main)
import sys
fd, home, *paths = sys.argv[1:]
sys.path[:0] = paths
import htcgrid{client}
del sys.path[:len(paths)]
sys.path += [path for path in paths if path not in sys.path]
clients = ()
{load}
from htcgrid.runtime.fork_server_main import main
main(int(fd), home, clients)
"""
_CLIENT = ", awslambdaric"
_LOAD = "import awslambdaric.__main__, awslambdaric.bootstrap; clients = frozenset(sys.modules) - {'htcgrid'}"
"""Loaded first, so that the modules of AWS's client can be distinguished from those that our own code loads."""


def with_inherited(own: Mapping[str, str], names: Iterable[str], added: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """These variables, this program's variables with one of the names, and search paths with these folders at the end."""
    return layers.extended({name: os.environ[name] for name in names if name in os.environ} | dict(own), added)


def new_home() -> str:
    """An empty folder for handlers. Raises `Rejected`."""
    try:
        return tempfile.mkdtemp(prefix="htcgrid-home-")
    except OSError as error:
        raise Rejected(
            f"The handlers' home cannot be made: {error.strerror or error}. Name a folder that this user may write to as TMPDIR."
        ) from error


class NotImported(Exception):
    """The function's module cannot be imported in the fork server. Each environment that imports it shows why."""


class ForkServer:
    """A handle on `fork_server_main`. Calls may come from any thread; it serves them one by one."""

    def __init__(
        self,
        environment: Mapping[str, str],
        keep: Sequence[str] = INHERITED,
        *,
        added: Mapping[str, Sequence[str]] = MappingProxyType({}),
        python: bool = True,
        account: Account | None = None,
    ) -> None:
        self._environment = with_inherited(environment, keep, added)
        self._python = python
        self._account = account
        if account is not None:
            self._environment["USER"] = account.name
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._program: subprocess.Popen[bytes] | None = None
        self._home = ""
        self.has_module = False
        """Whether workers share the function's module, and so the memory that it takes."""

    def open(self) -> None:
        self._home = new_home()
        try:
            self._start()
        except BaseException:
            shutil.rmtree(self._home, ignore_errors=True)
            raise

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # It must not get the number of a standard stream, if those of the agent are closed.
        theirs_fd = fcntl.fcntl(theirs, fcntl.F_DUPFD_CLOEXEC, 3)
        theirs.close()
        if self._account is not None:
            os.chown(self._home, self._account.user, self._account.group)
        try:
            # -P: a file in the current folder must not replace a module of the standard library. It is started with the
            # function's variables and no others: Python reads some at its start (PYTHONHASHSEED), and no
            # `/proc/PID/environ` of a handler or its parent may hold the agent's.
            command = [sys.executable, "-P", *HANDLERS_PYTHON, "-c"]
            program = _PROGRAM.format(client=_CLIENT if self._python else "", load=_LOAD if self._python else "")
            self._program = subprocess.Popen(
                [*command, program, str(theirs_fd), self._home, *_places("htcgrid", "awslambdaric")],
                env={"HOME": self._home} | self._environment,
                cwd=self._environment.get("LAMBDA_TASK_ROOT"),  # what a relative PYTHONPATH means
                pass_fds=[theirs_fd],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if _is_inheritable(2) else subprocess.DEVNULL,
                **self._rights(),
            )
        except BaseException as error:
            ours.close()
            if not isinstance(error, BlockingIOError):  # EAGAIN
                raise
            raise Unavailable(
                f"The program that workers are forked from cannot be started: {_no_process(error.strerror)}"
            ) from error
        finally:
            os.close(theirs_fd)
        self._control = ours

    def _rights(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        return {
            "user": self._account.user,
            "group": self._account.group,
            "extra_groups": self._account.groups,
        }

    def preload(self, function: Function, seconds: float) -> None:
        """Import the function's module for all workers, before the first of them is started.

        Raises `NotImported` if it cannot be imported, or takes longer than that: then this must be closed. Raises `Rejected`
        if workers cannot share what it has made.
        """
        request = {"handler": function.handler, "folder": str(function.code.resolve()), "seconds": seconds}
        with self._lock:
            reply = self._ask_to_import(request, seconds)
        if "error" in reply:
            raise NotImported(reply["error"])
        if reply["refused"]:
            raise Rejected(
                f"preload = true, but when {function.handler!r} is imported it leaves {'; and '.join(reply['refused'])}. Make "
                "these in the handler, or on its first call; or leave out `preload`, and every environment imports the "
                "module by itself."
            )
        for warning in reply["warnings"]:
            log.warning("preload = true, and when %r is imported %s.", function.handler, warning)
        log.info("%r was imported once for all environments; that took %.1f s.", function.handler, reply["seconds"])
        self.has_module = True

    def _ask_to_import(self, request: Mapping[str, Any], seconds: float) -> Mapping[str, Any]:
        printed = os.memfd_create("import", os.MFD_CLOEXEC)
        is_answered = False
        try:
            reply = self._ask({"preload": request}, [printed], seconds)
            is_answered = True
        except TimeoutError:
            return {"error": f"the import has not ended after {seconds:g} s"}
        except Unavailable as error:
            return {"error": str(error)}
        else:
            return reply
        finally:
            os.close(printed)
            if not is_answered and self._program is not None:
                self._program.kill()  # it reads no requests while it imports

    def spawn(self, request: Mapping[str, Any], fds: Sequence[int]) -> tuple[int, int]:
        """Start an environment; returns its process id and a pidfd. `fds` are its log, channel and page."""
        with self._lock:
            reply = self._ask({"spawn": request}, fds)
            if "error" in reply:
                raise Unavailable(f"No worker process can be started: {_no_process(reply['error'])}")
            pid = reply["pid"]
            # The fork server has not reaped it yet, so the id is still its own even if it has ended.
            try:
                return pid, os.pidfd_open(pid)
            except ProcessLookupError:
                raise self._end() from None  # both were killed after the answer

    def reap(self, pid: int) -> int:
        """The exit status of an environment whose pidfd says it has ended; a signal is negative."""
        with self._lock:
            return int(self._ask({"reap": pid})["status"])

    def has_ended(self) -> bool:
        """Whether the program has ended; another fork server is needed then."""
        return self._program is None or self._program.poll() is not None

    def close(self) -> None:
        """End every environment and wait for that."""
        with self._lock:  # a running call gets its answer first, or the error that the program has ended
            if self._control is not None:
                self._control.close()
                self._control = None
        if self._program is not None and self._await_end(self._program) != 0:
            strays.end(self._home)  # it was killed, perhaps with the guard that would have ended the others
        if self._home:
            shutil.rmtree(self._home, ignore_errors=True)  # a fork server that was killed has not removed it

    def _ask(self, request: Mapping[str, Any], fds: Sequence[int] = (), seconds: float | None = None) -> dict[str, Any]:
        if self._control is None:
            if self._program is not None and self._program.returncode:
                raise self._end()  # another thread has closed it because it had ended
            raise Unavailable("The process plane is closed.")
        try:
            socket.send_fds(self._control, [json.dumps(request).encode()], list(fds))
            reply = self._receive(self._control, seconds)
        except (BrokenPipeError, ConnectionResetError):
            reply = b""
        except BaseException:
            # Interrupted, as by Ctrl-C: the reply that still comes would be read as the reply to the next request.
            self._control.close()
            self._control = None
            raise
        if not reply:
            raise self._end()
        answer: dict[str, Any] = json.loads(reply)
        return answer

    def _receive(self, control: socket.socket, seconds: float | None) -> bytes:
        """The reply; raises `TimeoutError` if it does not come within this time."""
        control.settimeout(seconds or _LOOK_SECONDS)
        while True:
            try:
                return control.recv(_MESSAGE_BYTES)
            except TimeoutError:
                if seconds is not None:
                    raise
                self._go_on()

    def _await_end(self, program: "subprocess.Popen[bytes]") -> int:
        for _ in range(_CLOSE_LOOKS):
            try:
                return program.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                self._go_on()
        program.kill()
        return program.wait()

    def _go_on(self) -> None:
        """Continue the program and its guard, which are one group, in case something has stopped them."""
        with suppress(ProcessLookupError, PermissionError):
            if self._program is not None:
                os.killpg(self._program.pid, signal.SIGCONT)

    def _end(self) -> Unavailable:
        status = self._await_end(self._program) if self._program else None
        return Unavailable(f"The program that workers are forked from has ended (status {status}); was it killed?")


def _no_process(error: object) -> str:
    return (
        f"{error}. Raise the limit of processes (`ulimit -u`, or `pids.max` of the control group), or write a smaller "
        "`workers` in the plane's table."
    )


def _is_inheritable(fd: int) -> bool:
    """Whether it is open and inheritable. Where standard error is closed, a file of the agent may have its number."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _places(*packages: str) -> Sequence[str]:
    """The folders that these are imported from, which the agent may have found by its own PYTHONPATH."""
    specs = [find_spec(package) for package in packages]
    return list(dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in specs if spec and spec.origin))

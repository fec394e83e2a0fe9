"""The process plane: handlers run in worker processes on this machine."""

import logging
import os
import platform
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from htcgrid.builtin import process_command
from htcgrid.runtime import account, layers
from htcgrid.runtime.account import Account
from htcgrid.runtime.environment import ExecutionEnvironment
from htcgrid.runtime.fork_server import INHERITED, ForkServer, NotImported
from htcgrid.runtime.framed import FramedEnvironment
from htcgrid.runtime.memory_watch import MemoryWatch
from htcgrid.runtime.pool import EnvironmentPool
from htcgrid.runtime.variables import this_python, variables
from htcgrid.spi import Capability, Function, Plugin, Rejected, limits

if TYPE_CHECKING:
    from htcgrid.builtin.process_reduced import PlainProcesses

log = logging.getLogger(__name__)


class ProcessInvoker(EnvironmentPool):
    """A pool of worker processes, each an execution environment."""

    class Config(Plugin.Config):
        workers: int = Field(
            0, ge=0, le=10_000, description="how many environments run side by side; 0 means one for each processor"
        )
        inherit: tuple[str, ...] = Field((), description="names of variables of this shell that handlers may see")
        preload: bool = Field(
            False,
            description="whether the function's module is imported once and shared by all environments: for imports that "
            "take seconds or hundreds of megabytes. Python only; docs/lambda.md says what it changes",
        )
        transport: Literal["socket", "http", "rie"] | None = Field(
            None,
            description='"socket" (for Python only, and its default), "http" (the Runtime API) or "rie" (the emulator)',
        )
        supervision: Literal["full", "reduced"] = Field(
            "full",
            description='"full" (Linux only), or "reduced" for other systems: plain subprocesses, whose time and end are '
            "supervised; memory is neither limited nor measured. docs/platforms.md says what else is missing",
        )
        user: str = Field(
            "", description="the user that handlers run as, by name or number; only if htcgrid runs as root"
        )
        rie: Path = Field(Path("aws-lambda-rie"), description='the program of the emulator, for transport = "rie"')

        @model_validator(mode="after")
        def _goes_with_reduced(self) -> Self:
            given = {"preload": self.preload, "user": self.user, "transport": self.transport not in {None, "http"}}
            if self.supervision == "reduced" and (names := [name for name, is_given in given.items() if is_given]):
                raise ValueError(
                    f'supervision = "reduced" cannot be combined with {" and ".join(names)}; leave one of the two out'
                )
            return self

    config: Config
    max_batch = 2048
    capabilities = frozenset(Capability)

    def __init__(self, config: Config, function: Function) -> None:
        super().__init__(config, function)
        self._reduced: PlainProcesses | None = None
        if config.supervision == "reduced":
            from htcgrid.builtin import process_reduced  # noqa: PLC0415 - few runs need it, and the import slows the start

            self._reduced = process_reduced.PlainProcesses(function, config.inherit)
            self.capabilities = process_reduced.CAPABILITIES
        elif (system := platform.system()) != "Linux":
            raise Rejected(
                f'The plane "process" needs Linux, and this is {system}. Run htcgrid in a Linux container or virtual machine, '
                'for example with Docker. Or write supervision = "reduced" in the table of the plane: then handlers run in '
                "plain subprocesses here, without a memory limit."
            )
        self._processors = _processors()
        forked = process_command.is_python(function) and not function.environment.get("AWS_LAMBDA_EXEC_WRAPPER")
        self._transport = config.transport or ("socket" if forked and self._reduced is None else "http")
        self._fork_server: ForkServer | None = None
        self._account: Account | None = None
        self._preloads = config.preload
        self._lock = threading.Lock()
        self._watch = MemoryWatch()

    def size(self) -> int:
        return self.config.workers or self._processors

    def starting_at_once(self) -> int:
        """One for each processor: an import that shares a processor with thirty others takes thirty times as long."""
        return self._processors

    def open(self) -> None:
        self._check()
        self._preloads = self.config.preload
        self._watch = MemoryWatch()
        if self._reduced is not None:
            self._reduced.open()
        super().open()

    def close(self) -> None:
        super().close()
        self._watch.close()
        if self._fork_server is not None:
            self._fork_server.close()
            self._fork_server = None
        if self._reduced is not None:
            self._reduced.close()

    def advise(self, attempts: int) -> Iterable[str]:
        return () if self._reduced is None else (self._reduced.advice,)

    def environment(self, place: int) -> ExecutionEnvironment:
        if self._reduced is not None:
            return self._reduced.environment(self._has_spare_processor)
        fork_server = self._living_fork_server()
        if self._transport == "socket":
            return FramedEnvironment(self.function, fork_server, self.is_one_idle, self._watch)
        from htcgrid.builtin import process_http  # noqa: PLC0415 - few runs need it, and the import slows the start

        emulator = self.config.rie if self._transport == "rie" else None
        return process_http.environment(self.function, fork_server, emulator, self._has_spare_processor)

    def _has_spare_processor(self) -> bool:
        """Whether there are more processors than busy environments."""
        return self.busy() < self._processors

    def _living_fork_server(self) -> ForkServer:
        """The fork server; a new one if the last one was killed."""
        with self._lock:
            if self._fork_server is not None and self._fork_server.has_ended():
                self._fork_server.close()
                self._fork_server = None
            if self._fork_server is None:
                is_python = process_command.is_python(self.function)
                runtime = this_python() if is_python else self.function.runtime
                self._fork_server = self._new_fork_server(runtime)
            return self._fork_server

    def _new_fork_server(self, runtime: str) -> ForkServer:
        fork_server = ForkServer(
            variables(self.function, "" if runtime.startswith("provided") else runtime),
            (*INHERITED, *self.config.inherit),
            added=layers.search_paths(self.function),
            python=self._transport == "socket",
            account=self._account,
        )
        fork_server.open()
        if self._preloads:
            try:
                fork_server.preload(self.function, limits.INIT_SECONDS + self.function.timeout)
            except NotImported as error:
                fork_server.close()
                self._preloads = False
                log.warning(
                    "preload = true, but %r cannot be imported once for all environments: %s. So each environment imports it.",
                    *(self.function.handler, error),
                )
                return self._new_fork_server(runtime)
            except BaseException:
                fork_server.close()
                raise
        return fork_server

    def _check(self) -> None:
        if self._reduced is None and not Path("/proc/self/task").exists():
            raise Rejected(
                "The process plane watches its workers through /proc, which is not mounted here. Mount it (`mount -t proc "
                "proc /proc`), or start the container with it."
            )
        process_command.check(self.function)
        layers.check(self.function.layers)
        if self.config.user:
            self._account = account.named(self.config.user)
            account.check(self._account, self.function.code.resolve())
        if self._transport == "socket" and not process_command.is_python(self.function):
            raise Rejected('transport = "socket" is for Python only. Write transport = "http", or leave the key out.')
        if process_command.wrapper_of(self.function) and self._transport == "socket":
            raise Rejected(
                'transport = "socket" forks its workers, so AWS_LAMBDA_EXEC_WRAPPER of [function] environment would not run. '
                'Write transport = "http", or leave the key out.'
            )
        if self.config.preload:
            self._check_preload()
        if self._transport == "rie" and shutil.which(str(self.config.rie)) is None:
            message = (
                f"rie = {str(self.config.rie)!r}: there is no such program. Name AWS's Runtime Interface Emulator; "
                "the wheel of aws-sam-cli contains it as samcli/local/rapid/aws-lambda-rie-x86_64."
            )
            raise Rejected(message)

    def _check_preload(self) -> None:
        if self._transport != "socket":
            raise Rejected(
                'preload = true is for Python handlers on the transport "socket", whose workers are forked from one process. '
                f"This function uses the transport {self._transport!r}, which starts a new program for each environment. "
                "Leave out `preload`."
            )
        if self.function.credentials != "none":
            log.warning(
                "preload = true and credentials = %r: there are no credentials yet when the module is imported, so AWS "
                "clients that it makes then have none. Make clients in the handler, or on its first call.",
                self.function.credentials,
            )


def _processors() -> int:
    """How many processors this program may use; if the system does not say that, how many the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

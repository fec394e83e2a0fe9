"""`supervision = "reduced"`: environments that are plain subprocesses, for systems where the fork server cannot run."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from htcgrid.builtin import process_command
from htcgrid.runtime import layers
from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.environment import ExecutionEnvironment
from htcgrid.runtime.fork_server import INHERITED, new_home, with_inherited
from htcgrid.runtime.plain_sandbox import PlainSandbox
from htcgrid.runtime.variables import this_python, variables
from htcgrid.spi import Capability, Function

CAPABILITIES = frozenset(Capability) - {Capability.MEMORY, Capability.METERING}
_ADVICE = (
    'supervision = "reduced": memory is neither limited nor measured, so a handler can use all memory of the machine. A '
    "process that a handler starts in a new session goes on after a timeout, and if the agent is killed, running handlers "
    "go on until they end. On Linux leave the key out; on other systems Docker keeps all limits."
)


class PlainProcesses:
    """Makes environments that share an empty HOME: in the agent's own HOME, handlers could find credentials."""

    advice = _ADVICE

    def __init__(self, function: Function, inherit: Sequence[str]) -> None:
        self._function = function
        self._keep = (*INHERITED, *inherit)
        self._home = ""

    def open(self) -> None:
        self._home = new_home()

    def close(self) -> None:
        if self._home:
            shutil.rmtree(self._home, ignore_errors=True)
            self._home = ""

    def environment(self, has_spare_processor: Callable[[], bool]) -> ExecutionEnvironment:
        """A new environment, not started."""
        function = self._function
        runtime = this_python() if process_command.is_python(function) else function.runtime
        own = variables(function, "" if runtime.startswith("provided") else runtime)
        sandbox = PlainSandbox(
            process_command.command(function, is_plain=True),
            str(Path(function.code).resolve()),
            {"HOME": self._home} | with_inherited(own, self._keep, layers.search_paths(function)),
        )
        return ApiEnvironment(function, sandbox, has_spare_processor=has_spare_processor)

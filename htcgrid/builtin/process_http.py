"""Environments of the process plane whose runtime uses HTTP: with the Runtime API, or inside AWS's emulator."""

from collections.abc import Callable
from pathlib import Path

from htcgrid.builtin import process_command
from htcgrid.builtin.process_emulator import EmulatorProcess
from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.environment import ExecutionEnvironment
from htcgrid.runtime.fork_server import ForkServer
from htcgrid.runtime.process_sandbox import ProcessSandbox
from htcgrid.runtime.rie import RieEnvironment
from htcgrid.spi import Function


def environment(
    function: Function, fork_server: ForkServer, emulator: Path | None, has_spare_processor: Callable[[], bool]
) -> ExecutionEnvironment:
    """A new environment, not started; inside this emulator if one is given."""
    command = process_command.command(function)
    folder = str(function.code.resolve())
    if emulator is not None:
        return RieEnvironment(function, EmulatorProcess(fork_server, emulator, command, folder))
    sandbox = ProcessSandbox(fork_server, command, folder)
    return ApiEnvironment(function, sandbox, has_spare_processor=has_spare_processor)

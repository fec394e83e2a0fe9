"""Environments of the process plane whose runtime speaks HTTP: on the Runtime API, or in AWS's emulator."""

from collections.abc import Callable
from pathlib import Path

from htcgrid.builtin import process_command
from htcgrid.builtin.process_emulator import EmulatorProcess
from htcgrid.runtime.api import ApiEnvironment
from htcgrid.runtime.child_sandbox import ChildSandbox
from htcgrid.runtime.environment import ExecutionEnvironment
from htcgrid.runtime.nursery import Nursery
from htcgrid.runtime.rie import RieEnvironment
from htcgrid.spi import Function


def environment(
    function: Function, nursery: Nursery, emulator: Path | None, has_spare_processor: Callable[[], bool]
) -> ExecutionEnvironment:
    """One that is not started yet; inside this emulator where one is named."""
    command = process_command.command(function)
    folder = str(function.code.resolve())
    if emulator is not None:
        return RieEnvironment(function, EmulatorProcess(nursery, emulator, command, folder))
    sandbox = ChildSandbox(nursery, command, folder)
    return ApiEnvironment(function, sandbox, has_spare_processor=has_spare_processor)

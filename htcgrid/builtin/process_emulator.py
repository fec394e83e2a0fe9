"""Runs the Runtime Interface Emulator as a process on this machine; it starts the function's command."""

import shutil
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from htcgrid.runtime.fork_server import ForkServer
from htcgrid.runtime.process_sandbox import ProcessSandbox
from htcgrid.runtime.rie import EmulatorSandbox

_HOST = "127.0.0.1"


class EmulatorProcess(ProcessSandbox, EmulatorSandbox):
    """The emulator on two free ports of the loopback, for its callers and for its runtime."""

    def __init__(self, fork_server: ForkServer, emulator: Path, command: Sequence[str], folder: str) -> None:
        self._port, api_port = _free_ports(2)
        emulating = [
            shutil.which(str(emulator)) or str(emulator),
            "--log-level",
            "info",  # without it the emulator reads the function's LOG_LEVEL, and ends if it does not know its value
            "--runtime-interface-emulator-address",
            f"{_HOST}:{self._port}",
            "--runtime-api-address",
            f"{_HOST}:{api_port}",
        ]
        super().__init__(fork_server, [*emulating, *command], folder)

    @property
    def address(self) -> tuple[str, int]:
        return (_HOST, self._port)


def _free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago. The emulator accepts only numbers, so ports cannot be reserved for it."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((_HOST, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]

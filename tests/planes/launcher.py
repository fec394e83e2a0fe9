"""A remote plane as its author writes it: what starts a relay elsewhere, and nothing else.

Here "elsewhere" is another process of this machine; `ssh` or `docker exec` before the command makes it another one.
"""

import sys
from typing import Any

from htcgrid.planes import CommandStream, RemoteInvoker, Stream
from htcgrid.spi import Plugin


class LaunchedInvoker(RemoteInvoker):
    class Config(Plugin.Config):
        machines: int = 2
        before: tuple[str, ...] = ()  # such as ssh and a host

    config: Any

    def size(self) -> int:
        return int(self.config.machines)

    def connect(self, place: int) -> Stream:
        return CommandStream([*self.config.before, sys.executable, "-m", "htcgrid.planes.relay_program"])

"""A port for a server that must be told one."""

import errno
import random
import socket

_NEVER_GIVEN = range(20_000, 30_000)
"""Below those that the kernel gives to whoever asks for any, so that it is not gone before the server has it."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port of this host that nobody has. Raises `OSError` where the host is not this machine."""
    while True:
        port = random.choice(_NEVER_GIVEN)
        try:
            with socket.create_server((host, port)):
                return port
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise

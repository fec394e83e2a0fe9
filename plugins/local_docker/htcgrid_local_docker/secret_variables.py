"""How a container's program gets its credentials: through standard input, since `docker inspect` shows all variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

# Builtins only: images have little more. The program itself finds nothing on its standard input.
_SCRIPT = 'while read -r pair && [ -n "$pair" ]; do export "$pair"; done; exec "$@" </dev/null'
SHELL = "/bin/sh"


def entrypoint(program: Sequence[str]) -> list[str]:
    """An entry point that waits for `send`, and then becomes `program` and the arguments that follow."""
    return [SHELL, "-c", _SCRIPT, "htcgrid", *program]


def attach(client: Any, container: str) -> Any:
    """The standard input of a container that is created with `stdin_open`, before it is started."""
    return client.attach_socket(container, {"stdin": 1, "stream": 1})


def send(stdin: Any, secret: Mapping[str, str]) -> None:
    """Hand the variables over to a container that is started, and close its standard input."""
    text = "".join(f"{name}={value}\n" for name, value in secret.items()) + "\n"
    connection = getattr(stdin, "_sock", stdin)  # the SDK gives a socket, or a file around one
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has ended, which is seen elsewhere
            connection.sendall(text.encode())
    finally:
        # First: Python 3.13 complains of a response that it finds open around a closed socket when it is garbage.
        if (response := getattr(stdin, "_response", None)) is not None:
            response.close()
        stdin.close()
        connection.close()

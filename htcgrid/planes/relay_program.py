"""A relay that uses its standard input and output: `python -m htcgrid.planes.relay_program`.

A `RemoteInvoker` starts it with a command, such as `ssh HOST python3 -m htcgrid.planes.relay_program`. When its input ends,
it ends everything that it started, and then itself. The client's first request names the plane and the function.
"""

import importlib.metadata
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from htcgrid.planes import code_archive
from htcgrid.planes.relay import Connection, Relay
from htcgrid.spi import Function, Invoker, Rejected
from htcgrid.stop_request import StopRequest


def main() -> None:
    reader, writer = _taken()
    with tempfile.TemporaryDirectory(prefix="htcgrid-relay-") as folder:
        code = Path(folder)
        code.chmod(0o755)  # a plane may run handlers as another user
        relay = Relay(lambda wanted: _plane(wanted, code), code)
        stop = StopRequest()
        stop.make_on([signal.SIGTERM])

        def write(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[os.write(writer, view) :]

        stream = os.fdopen(reader, "rb")  # never closed: closing would wait for the thread that reads it
        connection = Connection(relay, stream, write, stop.make)
        threading.Thread(target=connection.serve, daemon=True).start()
        stop.wait()
        if relay.plane is not None:
            relay.plane.close()
        os.close(writer)
    os._exit(0)  # a thread may still wait for an environment that is now closed


def _taken() -> tuple[int, int]:
    """Standard input and output for the relay only: what other code prints goes to standard error."""
    reader, writer = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return reader, writer


def _plane(wanted: Mapping[str, Any], code: Path) -> Invoker:
    name = wanted["plane"]
    for point in importlib.metadata.entry_points(group="htcgrid.invoker", name=name):
        plane = point.load()
        where: dict[str, Any] = {"code": code}
        if wanted["with_layers"]:
            where = {"code": code / code_archive.TASK, "layers": (code / code_archive.LAYERS,)}
        function = Function.model_validate({**wanted["function"], **where})
        made: Invoker = plane(plane.Config.model_validate(wanted["options"]), function)
        return made
    raise Rejected(
        f"The plane {name!r} is not installed on the relay's machine, for {sys.executable}. Install it there."
    )


if __name__ == "__main__":
    main()

"""A socket that listens in the network namespace of another process, such as a container's.

A socket belongs to the namespace that it was made in, whoever holds it. So a helper of one thread joins the namespace,
makes the socket and passes it back; what accepts from it is this process, and nothing has to run in the container.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

from htcgrid.spi import Rejected, Unavailable

_HELPER = Path(__file__).with_name("namespace_helper.py")
_SECONDS = 20.0


def listen_in(pid: int, host: str, port: int) -> socket.socket:
    """Listen at an address of the network namespace of process `pid`; a port of 0 is any free one.

    Raises `Rejected` where this user may not join it, `Unavailable` where the process is gone.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        # Isolated and without `site`: it starts in a few milliseconds, and nothing of the user's is loaded in a namespace.
        command = [sys.executable, "-I", "-S", str(_HELPER), str(pid), host, str(port), str(theirs.fileno())]
        try:
            done = subprocess.run(
                command, pass_fds=[theirs.fileno()], timeout=_SECONDS, capture_output=True, check=False, env={}
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(
                f"No socket was made in the network of process {pid} within {_SECONDS:.0f} s: this machine is too busy."
            ) from None
        if done.returncode == 0:
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
            return socket.socket(fileno=descriptors[0])
    said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
    if "FileNotFoundError" in said or "ProcessLookupError" in said:
        raise Unavailable(f"The process {pid} of a container was gone before it was served.")
    if "Cannot assign requested address" in said:
        raise Unavailable(
            f"The address {host} of a network of the engine is not there yet, or the engine was started anew."
        )
    raise Rejected(
        f"This user (id {os.geteuid()}) may not listen in the network of a container ({said}). Run htcgrid as the user whose "
        "engine this is: as root for root's engine, or with an engine of your own (systemctl --user start podman.socket)."
    )

"""The first process of a Lambda container; `container_entry.sh` says what it does."""

from collections.abc import Sequence
from importlib.resources import files

_SELF = "htcgrid"
_EMULATOR = "/usr/local/bin/aws-lambda-rie"
_ENTRY_SCRIPT = "/lambda-entrypoint.sh"


def command(folder: str, program: Sequence[str]) -> list[str]:
    """The `command` of a container that starts and ends `program` when the agent says so, through `folder`."""
    script = files("htcgrid.planes").joinpath("container_entry.sh").read_text(encoding="utf-8")
    lines = [line for line in script.splitlines() if line and not line.startswith("#")]
    return ["/bin/sh", "-c", "\n".join(lines), _SELF, folder, *program]


def program(handler: str, transport: str, port: int) -> list[str]:
    """What AWS's base images run, for every language. The emulator listens on `port`, on loopback only.

    With AWS's own entry script the emulator would listen on every address of the container.
    """
    if transport == "rie":
        # Without --log-level the emulator reads the function's LOG_LEVEL, and ends if it does not know its value.
        addresses = ["--log-level", "info", "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
        return [_EMULATOR, *addresses, "--runtime-api-address", f"127.0.0.1:{port + 1000}", _ENTRY_SCRIPT, handler]
    return [_ENTRY_SCRIPT, handler]

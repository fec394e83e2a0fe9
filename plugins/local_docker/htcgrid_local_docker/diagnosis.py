"""An environment that never became ready: whether the handler is the cause, or the image, which would fail for every task."""

import re

from htcgrid.planes import parsed
from htcgrid.spi import Outcome, Rejected

from htcgrid_local_docker.container_spec import ContainerSpec, command

CLIENTS = re.compile(r"lambda|bootstrap|aws_?ric", re.IGNORECASE)
"""What the names of runtime clients, and of scripts that run them, have in common."""
_MISSING_CLIENT = re.compile(rb"No module named '?awslambdaric|Cannot find module '[^']*aws-lambda-ric|AWSLambda")


_FOREIGN = re.compile(rb"\bexec\b.*(failed|format error)|failed to exec", re.IGNORECASE)
"""What the init process of a container prints for a program that the kernel cannot run."""
_NO_SHELL = re.compile(rb"exec /bin/sh failed|/bin/sh: no such file|failed to exec pid1: No such file")
"""As Docker's init process says it, and Podman's, whose program is the shell where a container gets credentials."""


def check_came_up(outcome: Outcome, spec: ContainerSpec) -> None:
    """Raise `Rejected` where this initialisation error means that no task will ever run in this image.

    A runtime client reports a handler that cannot be loaded by a document of its own; one that says
    that the process ended, or never called, was written by the supervisor.
    """
    kind = _error_type(outcome)
    if kind not in {"Runtime.ExitError", "Sandbox.Timedout"}:
        return
    started = " ".join([*(spec.options.entrypoint or spec.image.entrypoint), *(command(spec) or spec.image.command)])
    printed = outcome.log_tail.decode(errors="replace").strip()
    said = f" It printed:\n{printed}" if printed else " It printed nothing."
    if spec.image.is_emulated and _FOREIGN.search(outcome.log_tail):
        raise Rejected(
            f"The image {spec.image.reference!r} is for {spec.image.architecture}, which this machine cannot run. Install "
            f"emulation (apt-get install qemu-user-static), or use an image for this machine.{said}"
        )
    if _NO_SHELL.search(outcome.log_tail) and spec.function.credentials != "none":
        raise Rejected(
            f"The image {spec.image.reference!r} has no /bin/sh, through which a container gets its credentials. Add one to the "
            'image, or write credentials = "none" in [function].'
        )
    if kind == "Sandbox.Timedout":
        raise Rejected(
            f"The container of {spec.image.reference!r} ran `{started}` and never called the Runtime API at "
            f"{spec.network.gateway}. Either it is not a runtime client (set `entrypoint` to one; with an emulator of its own, "
            'write transport = "rie"), or a firewall of this machine stops containers from calling it, or it takes longer to '
            f"come up than it may (10 s and the function's timeout, which is [function] timeout).{said}"
        )
    if not CLIENTS.search(started) or _MISSING_CLIENT.search(outcome.log_tail):
        raise Rejected(
            f"The container of {spec.image.reference!r} ran `{started}`, which ended without calling the Lambda Runtime API: "
            "the image has no runtime client. Use one of AWS's base images, install the client (pip install awslambdaric, "
            f"npm install aws-lambda-ric) and set `entrypoint` to it.{said}"
        )


def _error_type(outcome: Outcome) -> str:
    try:
        return str(parsed(outcome.payload)["errorType"])
    except (ValueError, KeyError, TypeError):
        return ""

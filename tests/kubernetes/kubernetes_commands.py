"""`htcgrid` as a user runs it: a process of its own."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

Kubectl = Callable[..., str]
_COMMANDS = ("deploy", "scale", "status", "undeploy")
_PROGRAM = f"from htcgrid.cli.main import COMMANDS, main; [COMMANDS.setdefault(n, '') for n in {_COMMANDS}]; main()"


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    error: str


def htcgrid(*arguments: str, environment: dict[str, str] | None = None) -> Done:
    """Run it to its end, whatever that is."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    return Done(done.returncode, done.stdout, done.stderr)


def went_well(*arguments: str) -> str:
    """What it prints."""
    done = htcgrid(*arguments)
    assert done.status == 0, f"htcgrid {' '.join(arguments)}: {done.status}\n{done.out}{done.error}"
    return done.out

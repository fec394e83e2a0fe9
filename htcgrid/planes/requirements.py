"""Installs `requirements.txt` as AWS Lambda needs it, on every kind of machine."""

import subprocess
import sys
from pathlib import Path

from htcgrid.planes import architectures
from htcgrid.spi import Rejected

# What AWS's runtimes can load: Amazon Linux 2023 has glibc 2.34, Amazon Linux 2 (up to Python 3.11) has 2.26.
# For pip, `manylinux2014` includes the older names, but none of the newer ones, so each is listed.
_GLIBC_MINOR = {"new": 34, "old": 26}


def install(requirements: Path, target: Path, python: str, architecture: str) -> None:
    """Put the packages of `requirements` into the folder `target`, for `python` ("3.12") and `architecture`.

    Only wheels: a source distribution would be built for this machine. Raises `Rejected` with pip's error.
    """
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"),
        *("--no-compile", "--only-binary=:all:", "--implementation", "cp", "--python-version", python),
        *(option for tag in platforms(python, architecture) for option in ("--platform", tag)),
        *("--target", str(target), "--requirement", str(requirements)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Rejected(
            f"pip cannot install {requirements} for Python {python} on {architecture}:\n{done.stderr.strip()}\n"
            "Only wheels for Amazon Linux are used. If a package has none, put it in a container image."
        )


def platforms(python: str, architecture: str) -> list[str]:
    """Platform tags for pip, newest first, that AWS's runtime for `python` can load."""
    minor = int(python.partition(".")[2])
    newest = _GLIBC_MINOR["new" if minor >= 12 else "old"]
    machine = architectures.of_machines(architecture)
    return [*(f"manylinux_2_{glibc}_{machine}" for glibc in range(newest, 16, -1)), f"manylinux2014_{machine}"]

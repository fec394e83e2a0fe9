"""The names of processor architectures: AWS Lambda's, those of container images and Kubernetes, and those of machines."""

import platform

from htcgrid.spi import Rejected

_NAMES = {"x86_64": ("amd64", "x86_64"), "arm64": ("arm64", "aarch64")}
"""For each of Lambda's names, the values of `[function] architecture`: the name for images, and for machines."""


def of_images(architecture: str) -> str:
    """Its name for images and nodes. Raises `Rejected` if AWS Lambda has no such architecture."""
    return _names(architecture)[0]


def of_machines(architecture: str) -> str:
    """Its name for machines, and for wheels. Raises `Rejected` if AWS Lambda has no such architecture."""
    return _names(architecture)[1]


def here() -> str:
    """The architecture of this machine, as AWS Lambda names it; empty if Lambda has no such architecture."""
    return next((name for name, names in _NAMES.items() if platform.machine() in {name, *names}), "")


def _names(architecture: str) -> tuple[str, str]:
    if architecture not in _NAMES:
        known = " or ".join(f'"{name}"' for name in _NAMES)
        raise Rejected(f"[function] architecture = {architecture!r} is not one of AWS Lambda's. Write {known}.")
    return _NAMES[architecture]

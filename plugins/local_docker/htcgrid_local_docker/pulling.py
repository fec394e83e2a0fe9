"""The progress of a pull, reported every few seconds."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from htcgrid.spi import HtcgridError, Rejected, Unavailable

from htcgrid_local_docker.engine import explained

_SAY_SECONDS = 3.0
_NETWORK = ("timeout", "no such host", "dial tcp", "connection refused", "server misbehaving", "network is unreachable")


class Pull:
    """Takes in the engine's events of a pull, a few a second for each layer."""

    def __init__(self, reference: str, say: Callable[[str], None]) -> None:
        self._reference = reference
        self._say = say
        self._layers: dict[str, tuple[int, int]] = {}
        self._said = time.monotonic()
        say(f"pulling the image {reference}")

    def take(self, event: Mapping[str, Any]) -> None:
        """One event; raises what it reports."""
        if "error" in event:
            raise self.failed(str(event["error"]))
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            self._layers[event["id"]] = (detail.get("current", 0), detail["total"])  # the engine leaves out a 0
        elif event.get("status") == "Download complete" and event.get("id") in self._layers:
            total = self._layers[event["id"]][1]
            self._layers[event["id"]] = (total, total)
        if time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            self._say(f"pulling the image {self._reference}: {self._sizes()}")

    def done(self) -> None:
        self._say(f"pulled the image {self._reference}")

    def failed(self, said: str) -> HtcgridError:
        """The error that stopped the pull, with what to do about it."""
        error = explained(said.rstrip("."), f"pull the image {self._reference!r}")
        if isinstance(error, Unavailable):
            return error
        lower = said.lower()
        if any(sign in lower for sign in _NETWORK):
            message = (
                f"The image {self._reference!r} is not on this engine, and its registry cannot be reached: {said}. "
                f"Check the name and the network, or load it (docker load, docker build -t {self._reference} ...)."
            )
            return Rejected(message)
        if any(sign in lower for sign in ("not found", "manifest unknown", "does not exist", "denied")):
            message = (
                f"The image {self._reference!r} is neither on this engine nor in its registry, or the registry requires a login: "
                f"{said}. Check the name, build it (htcgrid build), or log in (docker login)."
            )
            return Rejected(message)
        return error

    def _sizes(self) -> str:
        here, total = (sum(sizes) for sizes in zip(*self._layers.values(), strict=True)) if self._layers else (0, 0)
        return f"{here / 1e6:.0f} of {total / 1e6:.0f} MB"

"""The image that containers are made of: found, pulled, and checked before anything is started."""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, ImageNotFound
from docker.utils import parse_repository_tag
from htcgrid.planes import architectures
from htcgrid.spi import Rejected

from htcgrid_local_docker.engine import Engine, message_of
from htcgrid_local_docker.pulling import Pull


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is here. `names` are the environment variables that it sets by itself."""

    reference: str
    id: str
    architecture: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    names: frozenset[str]

    @property
    def is_emulated(self) -> bool:
        """Whether it is for another kind of processor than this machine's."""
        here = architectures.here()
        return (architectures.of_images(here) if here else platform.machine()) != self.architecture


def find(engine: Engine, reference: str, architecture: str, pull: str, say: Callable[[str], None]) -> Image:
    """The image of that name, pulled by the policy `pull`: `missing`, `always` or `never`.

    Raises `Rejected` where it cannot be found or pulled, or is for another architecture than `architecture`
    ("x86_64", "arm64", or empty: any).
    """
    wanted = architectures.of_images(architecture) if architecture else None
    image = None if pull == "always" else _look(engine, reference)
    if image is not None and wanted and image.architecture != wanted and pull != "never":
        image = None
    if image is None:
        if pull == "never":
            message = f'There is no image {reference!r} on this engine, and pull = "never". Build or load it, or let it be pulled.'
            raise Rejected(message)
        _pull(engine, reference, wanted, say)
        image = _look(engine, reference)
    if image is None:
        raise Rejected(f"The image {reference!r} was pulled and is not there; another has removed it.")
    if wanted and image.architecture != wanted:
        message = (
            f"The image {reference!r} is for {image.architecture}, but [function] architecture = {architecture!r}. "
            f"Build it for that (docker build --platform linux/{wanted}), or change `architecture`."
        )
        raise Rejected(message)
    return image


def _look(engine: Engine, reference: str) -> Image | None:
    with engine.speaking(f"look for the image {reference!r}"):
        try:
            found: dict[str, Any] = engine.client.inspect_image(reference)
        except ImageNotFound:
            return None
    config = found["Config"] or {}
    return Image(
        reference,
        found["Id"],
        found["Architecture"],
        tuple(config.get("Entrypoint") or ()),
        tuple(config.get("Cmd") or ()),
        frozenset(pair.partition("=")[0] for pair in config.get("Env") or ()),
    )


def _pull(engine: Engine, reference: str, wanted: str | None, say: Callable[[str], None]) -> None:
    repository, tag = parse_repository_tag(reference)
    pull = Pull(reference, say)
    chosen = f"linux/{wanted}" if wanted else None
    with engine.speaking(f"pull the image {reference!r}"):
        try:
            # Credentials are those of Docker's own config, which the SDK reads.
            for event in engine.client.pull(repository, tag or "latest", stream=True, decode=True, platform=chosen):
                pull.take(event)
        except APIError as error:
            raise pull.failed(message_of(error)) from None
    pull.done()

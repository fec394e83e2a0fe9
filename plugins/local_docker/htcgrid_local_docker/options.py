"""The plane's keys in the config file."""

import re
from pathlib import Path
from typing import Literal, Self

from htcgrid.spi import Plugin
from pydantic import Field, field_validator, model_validator

_IMAGE = re.compile(r"([a-zA-Z0-9][-a-zA-Z0-9._/:@]*)?")
_NETWORK = re.compile(r"([a-zA-Z0-9][-a-zA-Z0-9_.]*)?")
_USER = re.compile(r"([0-9]{1,10}|[a-z_][-a-z0-9_.]*)(:([0-9]{1,10}|[a-z_][-a-z0-9_.]*))?")
_VOLUME = re.compile(r"[^:]+:/[^:]*(:[a-zA-Z,]+)?")
_GPUS = re.compile(r"(all|[0-9]{1,4}|[a-zA-Z0-9][-a-zA-Z0-9/]*(,[a-zA-Z0-9][-a-zA-Z0-9/]*)*)?")
_HOST = re.compile(r"((unix|npipe|tcp|http|https|ssh)://.+)?")
_LEAST_CPUS = 0.01  # the kernel shares out a millisecond in a tenth of a second, and no less
_MOST_ID = 2**31 - 1


class Options(Plugin.Config):
    """`[planes.NAME]` with `plugin = "local_docker"`."""

    image: str = Field("", description="the function's container image")
    base_image: str = Field("", description="an image with a runtime; `[function] code` is mounted in it, read-only")
    workers: int = Field(
        0, ge=0, le=10_000, description="how many containers run side by side; 0 means one for each processor"
    )
    transport: Literal["http", "rie"] = Field("http", description='"http" (the Runtime API) or "rie" (the emulator)')
    entrypoint: tuple[str, ...] = Field((), description="in place of the image's own entry point")
    command: tuple[str, ...] = Field(
        (), description="in place of the image's command; if empty, the handler, if that is set"
    )
    pull: Literal["missing", "always", "never"] = Field("missing", description="when to pull the image")
    network: str = Field("", description="a Docker network that handlers may use; if empty, one without a way out")
    cpus: float = Field(1.0, ge=0, le=10_000, description="processors that a container may use; 0 means all")
    pids: int = Field(1024, ge=16, le=4_194_304, description="processes and threads that a container may have")
    user: str = Field("993:990", description="user and group that the handler runs as; root is refused")
    writable_root: bool = Field(False, description="whether a handler may write outside /tmp, until its container ends")
    env_file: Path | None = Field(None, description="a file of NAME=VALUE lines for the handler's environment")
    volumes: tuple[str, ...] = Field((), description='folders of this machine, as in "/data:/mnt/data:ro"')
    gpus: str = Field("", description='"all", a number, or ids as in "0,2"')
    host: str = Field(
        "", description="the engine's address; if empty, that of DOCKER_HOST, of Docker's context, or its usual socket"
    )

    @field_validator("image", "base_image")
    @classmethod
    def _is_an_image(cls, image: str) -> str:
        if not _IMAGE.fullmatch(image):
            raise ValueError('the name of an image, as in "public.ecr.aws/lambda/python:3.13"')
        return image

    @field_validator("network")
    @classmethod
    def _is_a_network(cls, network: str) -> str:
        if not _NETWORK.fullmatch(network):
            raise ValueError("the name of a Docker network: letters, digits, _ . and - only")
        return network

    @field_validator("cpus")
    @classmethod
    def _can_be_shared_out(cls, cpus: float) -> float:
        if 0 < cpus < _LEAST_CPUS:
            raise ValueError(f"the least that a container can be given is {_LEAST_CPUS:g}; 0 is all there is")
        return cpus

    @field_validator("user")
    @classmethod
    def _is_a_user(cls, user: str) -> str:
        if user and not _USER.fullmatch(user):
            raise ValueError('a user and a group, by name or by number, as in "993:990"')
        if any(part.isdigit() and int(part) > _MOST_ID for part in user.split(":")):
            raise ValueError(f"a number of a user or a group is {_MOST_ID} at most")
        return user

    @field_validator("volumes")
    @classmethod
    def _are_volumes(cls, volumes: tuple[str, ...]) -> tuple[str, ...]:
        for volume in volumes:
            if not _VOLUME.fullmatch(volume):
                raise ValueError(
                    f'{volume!r} is not a volume: write FOLDER:/PLACE or FOLDER:/PLACE:ro, as in "/data:/mnt/data:ro"'
                )
        return volumes

    @field_validator("gpus")
    @classmethod
    def _are_gpus(cls, gpus: str) -> str:
        if not _GPUS.fullmatch(gpus):
            raise ValueError('"all", a number, or ids as in "0,2"')
        return gpus

    @field_validator("host")
    @classmethod
    def _is_an_address(cls, host: str) -> str:
        if not _HOST.fullmatch(host):
            raise ValueError('an address as in "unix:///var/run/docker.sock", "tcp://HOST:2376" or "ssh://USER@HOST"')
        user, at, _ = host.partition("://")[2].partition("@")
        if at and ":" in user:
            raise ValueError("an address without a password, which messages would show: use a key, or TLS")
        return host

    @model_validator(mode="after")
    def _one_image(self) -> Self:
        if bool(self.image) == bool(self.base_image):
            message = (
                "name one of `image` (it holds the handler) and `base_image` (the code folder is mounted in it), as in "
                'base_image = "public.ecr.aws/lambda/python:3.13"'
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _no_root(self) -> Self:
        user = self.user.partition(":")[0]
        if user in {"", "root"} or (user.isdigit() and int(user) == 0):
            raise ValueError(f'user = "{self.user}" is root, or is not a user. Write a user id, as in "993:990"')
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        if self.network == "none":
            message = (
                'network = "none" has no way to the Runtime API either. '
                "Leave `network` out: the handler then reaches nothing but that"
            )
            raise ValueError(message)
        if self.network == "host" and self.transport == "rie":
            raise ValueError('transport = "rie" needs a network of the container\'s own, not "host"')
        return self

    @property
    def reference(self) -> str:
        """The image that containers are made of."""
        return self.image or self.base_image

"""The plane's keys in the config file."""

from pathlib import Path
from typing import Literal, Self

from htcgrid.spi import Plugin
from pydantic import Field, model_validator


class Options(Plugin.Config):
    """`[planes.NAME]` with `plugin = "local_docker"`."""

    image: str = Field("", description="the function's container image")
    base_image: str = Field("", description="an image with a runtime; `[function] code` is mounted in it, read-only")
    workers: int = Field(0, ge=0, description="containers side by side; 0: one a processor")
    transport: Literal["api", "rie"] = Field("api", description="api (the Lambda Runtime API) or rie (the emulator)")
    entrypoint: tuple[str, ...] = Field((), description="in place of the image's own entry point")
    command: tuple[str, ...] = Field((), description="in place of the image's command; else the handler, if it is set")
    pull: Literal["missing", "always", "never"] = Field("missing", description="when to pull the image")
    network: str = Field("", description="a Docker network that handlers may use; empty: one that leads nowhere")
    cpus: float = Field(1.0, ge=0, description="processors' time that a container may use; 0: all")
    pids: int = Field(1024, ge=16, description="processes and threads that a container may have")
    user: str = Field("993:990", description="user and group that the handler runs as; root is refused")
    writable_root: bool = Field(False, description="whether a handler may write outside /tmp, until its container ends")
    env_file: Path | None = Field(None, description="a file of NAME=VALUE lines for the handler's environment")
    volumes: tuple[str, ...] = Field((), description='folders of this machine, as in "/data:/mnt/data:ro"')
    gpus: str = Field("", description='"all", a number, or ids as in "0,2"')
    logs: Path | None = Field(None, description="a folder that gets a log file for each container")
    host: str = Field("", description="the engine's address; else DOCKER_HOST, Docker's context, or its usual socket")

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
        if self.user.partition(":")[0] in {"", "0", "root"}:
            raise ValueError(f'user = "{self.user}" is root, or nobody at all. Write a user id, as in "993:990"')
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

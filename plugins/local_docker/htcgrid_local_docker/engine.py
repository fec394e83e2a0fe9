"""The Docker Engine: connecting to it, and messages for its errors that say what to do."""

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker
import requests
from docker.context import ContextAPI
from docker.errors import (
    APIError,
    DockerException,
    NotFound,
    TLSParameterError,
    create_api_error_from_http_exception,
)
from docker.utils import kwargs_from_env
from htcgrid.planes import parsed
from htcgrid.spi import HtcgridError, Rejected, Unavailable

log = logging.getLogger("htcgrid.local_docker.engine")

_GREETING_SECONDS = 4
_ANSWER_SECONDS = 60


class Engine:
    """A connection to the Docker Engine; threads may share it."""

    def __init__(self, host: str = "") -> None:
        self._host = host
        self._client: docker.APIClient | None = None
        self._components: frozenset[str] = frozenset()
        self._said: set[str] = set()
        self.is_rootless = False
        """Whether it runs as an ordinary user, with a network namespace of its own."""
        self.keeps_limits = True
        """Whether its containers have control groups: an ordinary user has none to give with version 1."""

    @property
    def is_podman(self) -> bool:
        """Whether this is Podman, which speaks Docker's API and one of its own."""
        return "Podman Engine" in self._components

    @property
    def is_local(self) -> bool:
        """Whether its ports are ports of this machine, as far as its address tells."""
        scheme, _, rest = self.address.partition("://")
        host = rest.partition("/")[0].rpartition(":")[0]
        return scheme in {"unix", "npipe", "http+unix"} or host in {"localhost", "127.0.0.1", "[::1]"}

    def process_id(self) -> int:
        """The process that serves its Unix socket. Raises `Rejected` where it has none, `Unavailable` where it does not answer."""
        scheme, _, path = self.address.partition("://")
        if scheme not in {"unix", "http+unix"}:
            raise Rejected(
                f"The rootless Docker Engine at {self.address} must be reached by its Unix socket: set DOCKER_HOST."
            )
        with self.speaking("find its process"), socket.socket(socket.AF_UNIX) as greeting:
            greeting.connect(path)
            return int.from_bytes(greeting.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)

    @property
    def is_open(self) -> bool:
        """Whether it is between `open` and `close`."""
        return self._client is not None

    @property
    def client(self) -> Any:
        """Docker's low-level client. Its calls go inside `speaking`."""
        assert self._client is not None  # noqa: S101 - between open and close
        return self._client

    @property
    def address(self) -> str:
        """Where the engine is, as a user would write it."""
        return str(self._settings().get("base_url") or "unix:///var/run/docker.sock")

    def open(self) -> None:
        """Connect. Raises `Unavailable` where no engine answers, `Rejected` where it may not be used."""
        with self.speaking("connect to it"):
            self._client = docker.APIClient(**self._settings(), version="auto", timeout=_GREETING_SECONDS)
            components = self._client.version().get("Components") or ()
            self._components = frozenset(str(each.get("Name")) for each in components)
            info = self._client.info()
            self.is_rootless = "name=rootless" in (info.get("SecurityOptions") or ())
            self.keeps_limits = not self.is_rootless or (
                bool(info.get("MemoryLimit"))
                and info.get("CgroupVersion") != "1"
                and info.get("CgroupDriver") == "systemd"  # nothing else hands control groups to an ordinary user
            )
        self._client.timeout = _ANSWER_SECONDS

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def check(self) -> None:
        """Greet the engine on a new connection: one that is shutting down still answers on the old."""
        greeting = Engine(self._host)
        try:
            greeting.open()
        finally:
            greeting.close()

    def warn_once(self, message: str) -> None:
        """Warn about limits of this engine that apply to all of its containers."""
        if message not in self._said:
            self._said.add(message)
            log.warning(message)

    def prepare(self, container: str) -> None:
        """Have Podman make everything of a container, its network included, without starting its program."""
        client = self.client
        # Podman's own API, in a version that all since 4.0 serve.
        response = client.post(f"{client.base_url}/v4.0.0/libpod/containers/{container}/init", timeout=client.timeout)
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            raise create_api_error_from_http_exception(error) from error

    def stream(self, path: str, **params: object) -> Any:
        """A request whose answer comes bit by bit, to be read from its descriptor; call it before there is any.

        Returns the response, which closes the connection; raises what the client raises.
        """
        client = self.client
        url = f"{client.base_url}/v{client.api_version}{path}"
        response = client.post(url, params=params, stream=True, timeout=None)
        try:
            response.raise_for_status()
        except requests.HTTPError as error:
            raise create_api_error_from_http_exception(error) from error
        return response

    def _settings(self) -> dict[str, Any]:
        if self._host:
            return {"base_url": self._host}
        try:
            settings: dict[str, Any] = kwargs_from_env()
            if not settings.get("base_url"):
                context = ContextAPI.get_current_context()
                if context is not None and context.name != "default":
                    settings = {"base_url": context.Host, "tls": context.TLSConfig or False}
        except (TLSParameterError, DockerException) as error:
            raise Rejected(f"Docker's own settings (DOCKER_HOST, its context) cannot be used: {error}.") from None
        return settings

    @contextmanager
    def speaking(self, purpose: str) -> Iterator[None]:
        """Around calls of the client: all their errors become `Unavailable` or `Rejected`."""
        try:
            yield
        except APIError as error:
            raise explained(message_of(error), purpose) from None
        except (DockerException, requests.RequestException, OSError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: BaseException) -> HtcgridError:
        cause = _os_error(error)
        if isinstance(cause, PermissionError):
            return Rejected(
                f"This user (id {os.geteuid()}) may not use the Docker Engine's socket {self.address}. "
                "Join its group (sudo usermod -aG docker $USER, then log in again), or run the engine rootless."
            )
        if isinstance(cause, FileNotFoundError | ConnectionRefusedError):
            return Unavailable(
                f"No Docker Engine answers at {self.address}. Start it (sudo systemctl start docker, or Docker Desktop), "
                "or say where it is with DOCKER_HOST or `host` in the config."
            )
        return Unavailable(f"The connection to the Docker Engine at {self.address} failed: {_short(error)}.")


def explained(said: str, purpose: str) -> HtcgridError:
    """An error that the engine has reported, with what to do about it."""
    for pattern, kind, advice in _KNOWN:
        if re.search(pattern, said, re.IGNORECASE):
            return kind(f"The Docker Engine could not {purpose}: {said}. {advice}")
    return Rejected(f"The Docker Engine could not {purpose}: {said}.")


_KNOWN: tuple[tuple[str, type[HtcgridError], str], ...] = (
    (
        "no space left on device|disk quota exceeded",
        Unavailable,
        "Its disk is full: `docker system df` shows what takes room, `docker system prune` frees it.",
    ),
    (
        "init binary|docker-init|catatonit",
        Rejected,
        "The engine's own init program is not installed: `apt-get install catatonit` for Podman, `tini` for Docker.",
    ),
    (
        "executable file not found|no such file or directory.*(exec|starting container)|exec:.*not found",
        Rejected,
        "The image has no such program; set `entrypoint` to the one that speaks the Lambda Runtime API.",
    ),
    (
        "permission denied.*(exec|starting container)|exec.*permission denied",
        Rejected,
        "The program may not be executed by the container's user; `chmod +x` it in the image.",
    ),
    (
        "exec format error",
        Rejected,
        "The image is for another kind of processor, and this machine does not emulate it; install qemu-user-static.",
    ),
    (
        "could not select device driver",
        Rejected,
        "`gpus` needs NVIDIA's container toolkit on this machine; install it, or leave `gpus` out.",
    ),
    (
        "non-overlapping IPv4 address pool|all predefined address pools",
        Unavailable,
        "`docker network prune` frees the addresses of networks that are unused; or name a network with `network`.",
    ),
    ("minimum memory limit", Rejected, "Raise [function] memory."),
    (
        # Of a registry; what else is denied (a folder, a rule of SELinux) no login changes.
        r"unauthorized|authentication required|no basic auth credentials|pull access denied|resource is denied|(^|: )denied:|invalid username",
        Rejected,
        "Log in to the registry (`docker login`), and check the name.",
    ),
    (
        "permission denied|access denied|operation not permitted",
        Rejected,
        "The engine may not use it: check the folder's owner and mode. A rootless engine has no more rights than its user.",
    ),
    (
        "cannot connect to the docker daemon|shutting down|context canceled|connection reset",
        Unavailable,
        "It seems to be stopping.",
    ),
)


def is_gone(error: APIError) -> bool:
    """Whether there is no such container any more. Docker answers 404; Podman 500, where it is removed at the same moment."""
    return isinstance(error, NotFound) or "no such container" in message_of(error).lower()


def message_of(error: APIError) -> str:
    """The engine's message, without what the SDK puts around it."""
    said = error.explanation or str(error)
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    with suppress(ValueError, KeyError, TypeError):
        said = parsed(said)["message"]
    return str(said).strip().rstrip(".")


def _os_error(error: BaseException) -> OSError | None:
    """The error of the operating system inside: SDK, requests and urllib3 wrap it in one another."""
    seen: list[BaseException] = [error]
    for each in seen:
        if isinstance(each, OSError) and each.errno is not None:
            return each
        inside = [*each.args, each.__cause__, each.__context__, getattr(each, "reason", None)]
        seen += [one for one in inside if isinstance(one, BaseException) and one not in seen]
        if len(seen) > 50:
            break
    return None


def _short(error: BaseException) -> str:
    return str(_os_error(error) or error)

"""What every container of a plane is made of: limits, network, environment, mounts."""

import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount
from htcgrid.planes import code_folder, collect, variables
from htcgrid.spi import RESERVED_ENVIRONMENT, Function, Rejected

from htcgrid_local_docker import ownership, secret_variables
from htcgrid_local_docker.images import Image
from htcgrid_local_docker.network import Network
from htcgrid_local_docker.options import Options

TASK_ROOT = "/var/task"
LAYERS = "/opt"
RIE_PORT = 8080
THIS_MACHINE = "host.docker.internal"
"""The name by which a container reaches this machine, as Docker Desktop has it."""
_EMULATORS_LEVELS = frozenset(("trace", "debug", "info", "warn", "warning", "error", "fatal", "panic"))
_IMAGES_OWN = {"LAMBDA_TASK_ROOT": TASK_ROOT, "LAMBDA_RUNTIME_DIR": "/var/runtime"}


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """Everything that all containers of the plane share."""

    image: Image
    network: Network
    options: Options
    function: Function
    environment: Mapping[str, str]
    layers: Path | None = None
    """A folder of this machine with all layers of the function."""

    def __repr__(self) -> str:
        """Without the environment, which may hold secrets."""
        return f"ContainerSpec({self.image.reference!r}, network={self.network.name!r})"


def spec_of(options: Options, function: Function, image: Image, network: Network) -> ContainerSpec:
    """Put the specification together. Raises `Rejected` for an environment file or a code folder that will not do."""
    if options.base_image:
        check_code(function)
    level = function.environment.get("LOG_LEVEL", "info")
    if options.transport == "rie" and level.lower() not in _EMULATORS_LEVELS:
        raise Rejected(
            f"[function] environment: LOG_LEVEL = {level!r} ends the emulator, which takes it for its own. Write "
            'transport = "http", or a level that it knows too: debug, info, warning or error.'
        )
    return ContainerSpec(image, network, options, function, _environment(options, function, image))


def create_arguments(
    spec: ContainerSpec, client: Any, added: Mapping[str, str], *, with_secrets: bool = False
) -> dict[str, Any]:
    """The arguments of the SDK's `create_container`; `added` are variables of this one container.

    `with_secrets` says that more of them come through its standard input.
    """
    options = spec.options
    entrypoint = list(options.entrypoint)
    if with_secrets:
        entrypoint = secret_variables.entrypoint(entrypoint or spec.image.entrypoint)
    code = (
        [Mount(TASK_ROOT, str(spec.function.code.resolve()), type="bind", read_only=True)] if options.base_image else []
    )
    if spec.layers is not None:
        code.append(Mount(LAYERS, str(spec.layers.resolve()), type="bind", read_only=True))
    rie = options.transport == "rie"
    published = rie and not spec.network.own
    return {
        "image": spec.image.id,
        "command": command(spec, with_secrets=with_secrets),
        "entrypoint": entrypoint or None,
        "stdin_open": with_secrets,
        "environment": {**spec.environment, **added},
        "labels": ownership.labels(spec.function),
        "user": options.user,
        "working_dir": TASK_ROOT if options.base_image else None,
        "ports": [RIE_PORT] if published else None,
        "host_config": client.create_host_config(
            init=True,  # so that the runtime is not process 1, which signals from inside do not end
            mem_limit=spec.function.memory << 20,
            memswap_limit=spec.function.memory << 20,
            nano_cpus=int(options.cpus * 1e9) or None,
            pids_limit=options.pids,
            read_only=not options.writable_root,
            tmpfs={"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={spec.function.ephemeral_storage}m"},  # noqa: S108
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            network_mode=spec.network.name,
            extra_hosts=_hosts(spec.network),
            mounts=code,
            binds=list(options.volumes),
            port_bindings={RIE_PORT: ("127.0.0.1",)} if published else None,
            device_requests=_gpus(options.gpus),
            log_config=LogConfig(type="json-file", config={"max-size": "10m", "max-file": "1"}),
        ),
    }


def _hosts(network: Network) -> dict[str, str]:
    """On the machine's own network, or none, a container has no address of this machine that is not its own."""
    if network.name in {"host", "none"}:
        return {}
    return {THIS_MACHINE: "host-gateway" if network.is_inside else network.gateway}


def command(spec: ContainerSpec, *, with_secrets: bool = False) -> list[str] | None:
    """What follows the entry point: as the config says, else the handler, else as the image says."""
    if spec.options.command:
        return list(spec.options.command)
    if spec.function.handler:
        return [spec.function.handler]
    # The engine forgets the image's command where its entry point is replaced.
    return list(spec.image.command) if spec.options.entrypoint or with_secrets else None


def _environment(options: Options, function: Function, image: Image) -> Mapping[str, str]:
    given = {**_read(options.env_file), **function.environment} if options.env_file else dict(function.environment)
    runtime = "" if function.runtime.startswith("provided") else function.runtime
    known = dict(variables(function.model_copy(update={"environment": given}), runtime))
    for name, value in _IMAGES_OWN.items():
        if name in image.names and not options.base_image:
            known.pop(name, None)
        else:
            known[name] = value
    if not function.handler:
        known.pop("_HANDLER", None)
    return known


def _read(path: Path) -> dict[str, str]:
    """Names and values of an environment file, as `docker run --env-file` reads them."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"env_file = {str(path)!r} cannot be read: {error}.") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = line.lstrip().partition("=")
        if not equals or not name or " " in name:
            raise Rejected(f"{path}, line {number}: write it as NAME=VALUE.")
        if "\0" in line:
            raise Rejected(f"{path}, line {number}: it has a NUL character in it, which no program can be given.")
        if name in RESERVED_ENVIRONMENT:
            raise Rejected(
                f"{path}, line {number}: {name} is reserved by Lambda, which sets it itself; choose another name."
            )
        found[name] = value
    return found


def check_code(function: Function) -> None:
    """Refuse a code folder that the container's user could not read."""
    folder = code_folder.existing(function.code)
    # Not of files that no plane packs: a .env that only its owner may read should stay so.
    for path in (folder, *(file.path for file in collect(folder).files if file.path.parent == folder)):
        needed = stat.S_IROTH | (stat.S_IXOTH if path.is_dir() else 0)
        if path.stat().st_mode & needed != needed:
            message = (
                f"{path} may not be read by other users, and the handler runs as another user in its container, as on AWS "
                f"Lambda. Run `chmod -R o+rX {folder}`."
            )
            raise Rejected(message)


def _gpus(gpus: str) -> list[DeviceRequest]:
    if not gpus:
        return []
    if gpus == "all" or gpus.isdigit():
        return [DeviceRequest(count=-1 if gpus == "all" else int(gpus), capabilities=[["gpu"]])]
    return [DeviceRequest(device_ids=gpus.split(","), capabilities=[["gpu"]])]

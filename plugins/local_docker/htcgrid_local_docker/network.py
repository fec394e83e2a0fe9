"""The network that a plane's containers are in, and this machine's address on it."""

import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any
from uuid import uuid4

from docker.errors import NotFound
from htcgrid.planes import listen
from htcgrid.spi import HtcgridError, Rejected, Unavailable

from htcgrid_local_docker import ownership
from htcgrid_local_docker.engine import Engine
from htcgrid_local_docker.namespace_socket import listen_in

_WITHOUT_BRIDGE = frozenset({"pasta", "slirp4netns"})
"""Names of Podman for ways out that are not networks."""


@dataclass(frozen=True, slots=True)
class Network:
    """`gateway` is the address that containers on it reach the Runtime API at; `own` networks lead nowhere else.

    `is_inside`: that is an address of the container's own, at which this process listens. `is_of_engine`: it is one in the
    network namespace of a rootless engine, where its bridges are.
    """

    name: str
    gateway: str
    own: bool
    is_inside: bool = False
    is_of_engine: bool = False


def join(engine: Engine, name: str, labels: dict[str, str], transport: str) -> Network:
    """The network of that name; without a name, a new one from which containers reach this machine only."""
    if transport == "http" and engine.is_podman and name != "host":
        # Its bridges are there only while a container is on them, and those of a rootless engine never on this machine.
        if name and name not in _WITHOUT_BRIDGE:
            _inspected(engine, name)
        return Network(name or "none", "127.0.0.1", own=False, is_inside=True)
    of_engine = engine.is_rootless and not engine.is_podman
    if name == "host":
        return Network("host", "127.0.0.1", own=False, is_of_engine=of_engine)
    if name:
        return Network(name, _gateway(_inspected(engine, name)), own=False, is_of_engine=of_engine)
    name = f"htcgrid-{uuid4().hex[:12]}"
    with engine.speaking("make a network for the handlers"):
        engine.client.create_network(
            name,
            driver="bridge",
            internal=True,
            options={"com.docker.network.bridge.enable_icc": "false"},
            labels=labels,
            check_duplicate=True,
        )
    try:
        gateway = _gateway(_inspected(engine, name))
    except BaseException:
        with suppress(HtcgridError):
            ownership.remove_network(engine, name)
        raise
    return Network(name, gateway, own=True, is_of_engine=of_engine)


def listener(engine: Engine, network: Network) -> socket.socket:
    """A socket at a free port of the address that containers reach, for one environment's Runtime API."""
    if network.is_of_engine:
        return listen_in(engine.process_id(), network.gateway, 0)
    return listen(network.gateway)


def check_reachable(engine: Engine, network: Network) -> None:
    """Refuse an engine whose containers would not find the Runtime API of this process."""
    if network.is_inside:
        return
    try:
        listener(engine, network).close()
    except OSError as error:
        message = (
            f"The Runtime API cannot be served at {network.gateway}, this machine's address on the Docker network "
            f"{network.name!r} ({error.strerror}): the engine runs in a virtual machine or on another machine. "
            'Write transport = "rie" and network = "bridge", which need a port of the engine only.'
        )
        raise Rejected(message) from None


def check_is_ours(engine: Engine, network: Network, address: str) -> None:
    """Refuse to send an event to a container's address that does not lead into its network.

    The address of a container on a bridge that is not on this machine, as of a rootless engine, is routed to whoever has
    it elsewhere. What is sent onto a bridge of this machine is sent from the bridge's own address.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # sends nothing: it asks for the route
            source = probe.getsockname()[0]
        except OSError:
            source = ""
    if source != network.gateway or not engine.is_local:
        message = (
            f"The container's address {address} on the network {network.name!r} is not on this machine: the engine at "
            f"{engine.address} is rootless, or runs in a virtual machine or on another machine. An event sent there would "
            f'reach a stranger. Write network = "bridge", with which the engine '
            "publishes a port on this machine's 127.0.0.1."
        )
        raise Rejected(message)


def _inspected(engine: Engine, name: str) -> dict[str, Any]:
    with engine.speaking(f"look at the network {name!r}"):
        try:
            found: dict[str, Any] = engine.client.inspect_network(name)
        except NotFound:
            message = (
                f"network = {name!r}: there is no such Docker network. `docker network ls` lists them; or leave it out."
            )
            raise Rejected(message) from None
    return found


def _gateway(network: dict[str, Any]) -> str:
    for pool in network["IPAM"]["Config"] or ():
        address = pool.get("Gateway", "").partition("/")[0]
        if not address and network["Driver"] == "bridge":
            # An engine that has started only once does not name it; it always takes the first address.
            address = next(ip_network(pool["Subnet"], strict=False).hosts())
        if address and ":" not in str(address):
            return str(address)
    message = (
        f"network = {network['Name']!r} ({network['Driver']}) gives this machine no IPv4 address to serve the Runtime API "
        "at. Name a bridge network, or leave it out."
    )
    raise Rejected(message)


def leave(engine: Engine, network: Network) -> None:
    """Remove the network if `join` made it. Where the engine does not answer, the next plane that is opened removes it."""
    if network.own:
        with suppress(Unavailable):
            ownership.remove_network(engine, network.name)

"""Which address of this machine containers reach."""

from typing import Any

import pytest
from htcgrid.spi import Rejected

from htcgrid_local_docker.network import _gateway


def network(driver: str = "bridge", **pool: str) -> dict[str, Any]:
    return {"Name": "n", "Driver": driver, "IPAM": {"Config": [pool]}}


def test_the_address_that_the_engine_names_is_taken() -> None:
    assert _gateway(network(Subnet="192.0.2.0/24", Gateway="192.0.2.9/24")) == "192.0.2.9"


def test_a_bridge_of_an_engine_that_names_none_yet_has_its_first_address() -> None:
    assert _gateway(network(Subnet="192.0.2.0/24")) == "192.0.2.1"


def test_a_network_without_an_address_of_this_machine_is_refused() -> None:
    with pytest.raises(Rejected, match="no IPv4 address"):
        _gateway(network("macvlan", Subnet="192.0.2.0/24"))
    with pytest.raises(Rejected, match="no IPv4 address"):
        _gateway(network(Subnet="2001:db8::/64"))

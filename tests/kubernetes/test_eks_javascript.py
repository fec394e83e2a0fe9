"""A handler with AWS's SDK for JavaScript in a pod: it acts as the role that was assumed for it."""

from collections.abc import Iterator
from pathlib import Path

import kubernetes_layered as layered
import pytest
from javascript_handler import ROLE, assert_it_found_no_credentials, assert_it_was_its_role, invoked, write_code
from orders_aws import OrdersAws, orders_aws


@pytest.fixture
def aws(node_address: str) -> Iterator[OrdersAws]:
    with orders_aws(node_address) as found:
        yield found


@pytest.fixture
def plane(tmp_path: Path, namespace: str, agent_image: str) -> str:
    """Its keys; the handler is in the image."""
    write_code(tmp_path)
    image = layered.javascript_image(tmp_path / "code")
    return (
        f'plugin = "eks"\ncode = "image"\nnamespace = "{namespace}"\nimage = "{image}"\nagent_image = "{agent_image}"\n'
    )


def test_it_reads_writes_and_is_its_role(plane: str, aws: OrdersAws, tmp_path: Path) -> None:
    assert_it_was_its_role(invoked(tmp_path, plane, aws, ROLE), aws)


def test_without_credentials_it_says_what_its_own_sdk_says_of_that(plane: str, aws: OrdersAws, tmp_path: Path) -> None:
    assert_it_found_no_credentials(invoked(tmp_path, plane, aws, "none"), aws)

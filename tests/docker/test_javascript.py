"""A handler with AWS's SDK for JavaScript in a container: it acts as the role that was assumed for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from javascript_handler import ROLE, assert_it_found_no_credentials, assert_it_was_its_role, invoked, write_code
from orders_aws import OrdersAws, orders_aws


@pytest.fixture
def aws() -> Iterator[OrdersAws]:
    with orders_aws("0.0.0.0") as found:
        yield found


@pytest.fixture
def plane(node_image: str, tmp_path: Path) -> str:
    """Its keys; the handler is in the folder."""
    write_code(tmp_path)
    tmp_path.chmod(0o755)
    return f'plugin = "local_docker"\nbase_image = "{node_image}"\nnetwork = "bridge"\nworkers = 1\n'


def test_it_reads_writes_and_is_its_role(plane: str, aws: OrdersAws, tmp_path: Path) -> None:
    assert_it_was_its_role(invoked(tmp_path, plane, aws, ROLE, by_name(aws)), aws)


def test_without_credentials_it_says_what_its_own_sdk_says_of_that(plane: str, aws: OrdersAws, tmp_path: Path) -> None:
    assert_it_found_no_credentials(invoked(tmp_path, plane, aws, "none", by_name(aws)), aws)


def by_name(aws: OrdersAws) -> str:
    """Where a container reaches it, on every engine."""
    return aws.url.replace("0.0.0.0", "host.docker.internal")

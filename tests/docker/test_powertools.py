"""A handler with Powertools for AWS Lambda, unchanged on this machine and in a container, as one role."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from orders_aws import OrdersAws, orders_aws
from powertools import BRIDGE, invoke, layer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def aws() -> Iterator[OrdersAws]:
    with orders_aws(BRIDGE) as found:
        yield found


def test_the_example_runs_on_each_plane_and_an_order_is_charged_once_on_all_of_them(
    aws: OrdersAws, python_image: str
) -> None:
    layers = ("--set", f'function.layers=["{layer()}"]')
    # AWS's images look below /opt by themselves; those of these tests are smaller.
    image = (
        "--set",
        f"planes.docker.base_image={python_image}",
        "--set",
        "function.environment.PYTHONPATH=/opt/python",
    )
    first, second = invoke(aws.url, *layers), invoke(aws.url, *layers, "--plane", "docker", *image)
    for done in (first, second):
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"batchItemFailures": [{"itemIdentifier": "3"}]}
    [stored] = aws.items()
    assert json.loads(stored["data"]["S"]) == {"id": "a", "charged": 3}
    said = [json.loads(line) for line in first.stderr.splitlines() if line.startswith("{")]
    charged = [line for line in said if line.get("message") == "charged"]
    assert [line["order"] for line in charged] == ["a"]
    assert charged[0]["xray_trace_id"].startswith("1-")
    assert [line["Charged"] for line in said if "Charged" in line] == [[1.0]]
    assert "charged" not in second.stderr

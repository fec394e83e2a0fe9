"""An AWS of moto for one test: moto keeps what is made in the process, so a second server would find it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from moto.moto_api._internal import moto_api_backend
from moto.server import ThreadedMotoServer


@contextmanager
def empty_aws(host: str = "127.0.0.1") -> Iterator[str]:
    """The address of a server in threads of this process, in which nothing has been made."""
    moto_api_backend.reset()
    server = ThreadedMotoServer(ip_address=host, port=0, verbose=False)
    server.start()
    try:
        yield "http://{}:{}".format(*server.get_host_and_port())
    finally:
        server.stop()


def make_orders(dynamodb: Any) -> None:
    """The table `orders` of the examples, by a client of DynamoDB."""
    dynamodb.create_table(
        TableName="orders",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )

"""An AWS of moto with what the handlers of these tests use: the object `in` of the bucket `prices`, the table `orders`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from moto_aws import empty_aws

REGION = "eu-west-1"
KEYS = {"AWS_ACCESS_KEY_ID": "example", "AWS_SECRET_ACCESS_KEY": "example", "AWS_DEFAULT_REGION": REGION}
"""The agent's, as environment variables."""
IN_THE_BUCKET = "read from S3"


@dataclass(frozen=True)
class OrdersAws:
    """Where it is, and a client that looks into its table."""

    url: str
    _dynamodb: Any

    def items(self) -> list[dict[str, Any]]:
        """What is in the table, as DynamoDB writes it."""
        items: list[dict[str, Any]] = self._dynamodb.scan(TableName="orders")["Items"]
        return items

    def bodies(self) -> list[str]:
        return [item["body"]["S"] for item in self.items()]


@contextmanager
def orders_aws(host: str) -> Iterator[OrdersAws]:
    session = boto3.Session(KEYS["AWS_ACCESS_KEY_ID"], KEYS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
    with empty_aws(host) as url:
        s3, dynamodb = session.client("s3", endpoint_url=url), session.client("dynamodb", endpoint_url=url)
        s3.create_bucket(Bucket="prices", CreateBucketConfiguration={"LocationConstraint": REGION})
        s3.put_object(Bucket="prices", Key="in", Body=IN_THE_BUCKET.encode())
        dynamodb.create_table(
            TableName="orders",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            BillingMode="PAY_PER_REQUEST",
        )
        yield OrdersAws(url, dynamodb)
        s3.close()
        dynamodb.close()

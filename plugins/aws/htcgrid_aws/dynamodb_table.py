"""A DynamoDB table keyed by `task_id`: for results, cancel marks, rows of tasks, or HTC-Grid's states."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from htcgrid.spi import Rejected, Unavailable
from htcgrid_aws import prices
from htcgrid_aws.aws_errors import client_error, code_of, translated_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from htcgrid_aws.usage import UsageCounter

KEY = "task_id"
LARGEST_ITEM = 400 * 1024
LARGEST_KEY = 2048
WRITE_BATCH = 25
READ_BATCH = 100
LONGEST_RETENTION = 14 * 86_400
"""The longest time in seconds that SQS keeps a message."""

Item = dict[str, dict[str, Any]]
"""An item as DynamoDB writes it: `{"task_id": {"S": "..."}}`."""


class Table:
    """A table by its name. Call `check` first."""

    def __init__(self, client: Any, name: str, usage_counter: UsageCounter) -> None:
        self._client = client
        self.name = name
        self._usage_counter = usage_counter

    @property
    def _what(self) -> str:
        return f"table {self.name}"

    def check(self) -> None:
        """Raises `Rejected` if the table is missing, not permitted, or has another key than `task_id` (text)."""
        with translated_errors("dynamodb:DescribeTable", self._what):
            table = self._client.describe_table(TableName=self.name)["Table"]
        types = {attribute["AttributeName"]: attribute["AttributeType"] for attribute in table["AttributeDefinitions"]}
        key = {part["AttributeName"]: types[part["AttributeName"]] for part in table["KeySchema"]}
        if key != {KEY: "S"}:
            has = " and ".join(f"{name} ({kind})" for name, kind in key.items())
            message = (
                f"table {self.name} has the key {has}; htcgrid needs the partition key {KEY} (S) and no sort key. "
                "Create another table and name it here"
            )
            raise Rejected(message)
        if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
            raise Unavailable(f"table {self.name} is {table['TableStatus']}, not ACTIVE", retry_after=2)

    def count(self) -> int:
        """The number of items; DynamoDB counts them about every six hours."""
        with translated_errors("dynamodb:DescribeTable", self._what):
            return int(self._client.describe_table(TableName=self.name)["Table"]["ItemCount"])

    def write_batch(self, items: Sequence[Item]) -> list[str]:
        """Store these items, and replace those with the same key; returns the keys of items that were not stored."""
        untaken = self._batch([{"PutRequest": {"Item": item}} for item in items])
        left = [request["PutRequest"]["Item"] for request in untaken]
        self._charge_writes(sum(map(write_units, items)) - sum(map(write_units, left)))
        return [item[KEY]["S"] for item in left]

    def remove_batch(self, keys: Sequence[str]) -> int:
        """Remove those of these items that exist, each smaller than a write unit; returns how many requests were not accepted."""
        left = len(self._batch([{"DeleteRequest": {"Key": {KEY: {"S": key}}}} for key in keys]))
        self._charge_writes(len(keys) - left)
        return left

    def _batch(self, requests: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        """Make these requests; returns those that were not accepted. After the first of them, no more are made."""
        for start in range(0, len(requests), WRITE_BATCH):
            end = start + WRITE_BATCH
            with translated_errors("dynamodb:BatchWriteItem", self._what):
                answer = self._client.batch_write_item(RequestItems={self.name: requests[start:end]})
            if untaken := answer.get("UnprocessedItems", {}).get(self.name, []):
                return [*untaken, *requests[end:]]
        return []

    def write_new(self, item: Item) -> bool:
        """Store the item unless there is one with its key; returns whether it was stored."""
        return self.write_where(item, f"attribute_not_exists({KEY})")

    def write_where(self, item: Item, condition: str, values: Mapping[str, dict[str, Any]] | None = None) -> bool:
        """Store the item if `condition` is true for the item that has its key now; returns whether it was stored."""
        self._charge_writes(write_units(item))
        given = {"ExpressionAttributeValues": dict(values)} if values else {}
        with translated_errors("dynamodb:PutItem", self._what):
            try:
                self._client.put_item(TableName=self.name, Item=item, ConditionExpression=condition, **given)
            except ClientError as error:
                if code_of(error) == "ConditionalCheckFailedException":
                    return False
                raise client_error(error, "dynamodb:PutItem", self._what) from error
        return True

    def update(
        self, task_id: str, change: str, condition: str, values: Mapping[str, dict[str, Any]]
    ) -> tuple[bool, Item | None]:
        """Change an item if `condition` is true.

        Returns whether it was true, and the item as it is now; None if there is no item.
        """
        with translated_errors("dynamodb:UpdateItem", self._what):
            try:
                answer = self._client.update_item(
                    TableName=self.name,
                    Key={KEY: {"S": task_id}},
                    UpdateExpression=change,
                    ConditionExpression=condition,
                    ExpressionAttributeValues=dict(values),
                    ReturnValues="ALL_NEW",
                    ReturnValuesOnConditionCheckFailure="ALL_OLD",
                )
            except ClientError as error:
                if code_of(error) == "ConditionalCheckFailedException":
                    there: Item | None = error.response.get("Item") or None
                    self._charge_writes(write_units(there or {}))
                    return False, there
                raise client_error(error, "dynamodb:UpdateItem", self._what) from error
        # DynamoDB charges for the whole item, even if the change is small.
        self._charge_writes(write_units(answer["Attributes"]))
        return True, answer["Attributes"]

    def read(self, keys: Sequence[str], *, only: str = "", consistent: bool = False) -> Iterator[Item]:
        """The items that have these keys, in any order; `only` names the attributes to read."""
        request: dict[str, Any] = {"ConsistentRead": consistent}
        if only:
            request["ProjectionExpression"] = only
        distinct = list(dict.fromkeys(keys))
        for start in range(0, len(distinct), READ_BATCH):
            left: list[Item] = [{KEY: {"S": key}} for key in distinct[start : start + READ_BATCH]]
            while left:
                with translated_errors("dynamodb:BatchGetItem", self._what):
                    answer = self._client.batch_get_item(RequestItems={self.name: {**request, "Keys": left}})
                items: list[Item] = answer["Responses"].get(self.name, [])
                self._charge_reads(items, len(left), consistent=consistent)
                yield from items
                # A large answer comes in parts; an answer without any item means that the table is throttled.
                before, left = len(left), answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
                if len(left) == before:
                    raise Unavailable(f"dynamodb:BatchGetItem on table {self.name}: AWS throttles us (no key was read)")

    def query(
        self, index: str, condition: str, values: Mapping[str, dict[str, Any]], *, limit: int = 0
    ) -> Iterator[Item]:
        """The items of an index for which the key `condition` is true, with the attributes that the index has."""
        request: dict[str, Any] = {
            "TableName": self.name,
            "IndexName": index,
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": dict(values),
            "ReturnConsumedCapacity": "TOTAL",
        }
        if limit:
            request["Limit"] = limit
        where: dict[str, Any] = {}
        while True:
            with translated_errors("dynamodb:Query", f"index {index} of {self._what}"):
                answer = self._client.query(**request, **where)
            self._usage_counter.charge(
                "dynamodb read units", answer.get("ConsumedCapacity", {}).get("CapacityUnits", 0.5)
            )
            yield from answer["Items"]
            if limit or "LastEvaluatedKey" not in answer:
                return
            where = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def scan(self, condition: str, values: Mapping[str, dict[str, Any]]) -> Iterator[Item]:
        """The items for which `condition` is true. It reads, and costs, the whole table, one megabyte in each request."""
        request = {
            "TableName": self.name,
            "FilterExpression": condition,
            **({"ExpressionAttributeValues": dict(values)} if values else {}),
            "ConsistentRead": True,
            "ReturnConsumedCapacity": "TOTAL",
        }
        where: dict[str, Any] = {}
        while True:
            with translated_errors("dynamodb:Scan", self._what):
                answer = self._client.scan(**request, **where)
            self._usage_counter.charge("dynamodb read units", answer["ConsumedCapacity"]["CapacityUnits"])
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            where = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _charge_writes(self, units: int) -> None:
        self._usage_counter.charge("dynamodb write units", units)

    def _charge_reads(self, items: Sequence[Item], asked: int, *, consistent: bool) -> None:
        units = sum(math.ceil(size(item) / prices.READ_UNIT) for item in items) + max(0, asked - len(items))
        self._usage_counter.charge("dynamodb read units", units if consistent else units / 2)


def expires() -> dict[str, str]:
    """The time, in Unix seconds for DynamoDB's time to live, when SQS has dropped all messages of today."""
    return {"N": str(int(time.time()) + LONGEST_RETENTION)}


def size(item: Item) -> int:
    """Bytes of an item as DynamoDB counts them: names and values; a number takes about half a byte for each digit.

    See "DynamoDB item sizes and formats" in DynamoDB's developer guide.
    """
    total = 0
    for name, value in item.items():
        (kind, content), *_ = value.items()
        if kind == "N":
            inside = (len(content) + 1) // 2 + 1
        elif kind == "B":
            inside = len(content)
        else:
            inside = len(str(content).encode())
        total += len(name.encode()) + inside
    return total


def write_units(item: Item) -> int:
    """How many write request units it costs to store the item."""
    return max(1, math.ceil(size(item) / prices.WRITE_UNIT))

"""A result as a DynamoDB item, and back.

`task_id`, then `failure` (only of failures), `facts` (JSON: attempt, times, memory, attributes), `payload` (text, or
binary where it is none) and `log` (binary). Where it saves a write unit, payload and log are deflated into `deflated`.
A payload kept in S3 leaves `s3`, the address of the whole result there.
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING, Any

from htcgrid_aws_grid import documents
from htcgrid_aws_grid.table import KEY, Item, size, write_units

if TYPE_CHECKING:
    from htcgrid.spi import Result

LENGTH = 4
"""Bytes before the deflated payload and log that say how long the payload is."""


def write(result: Result) -> Item:
    """The smallest item of a result."""
    head = _head(result)
    outcome = result.outcome
    plain: Item = {**head, "payload": _content(outcome.payload)}
    if outcome.log_tail:
        plain["log"] = {"B": outcome.log_tail}
    if write_units(plain) == 1:
        return plain
    body = len(outcome.payload).to_bytes(LENGTH, "big") + outcome.payload + outcome.log_tail
    deflated: Item = {**head, "deflated": {"B": zlib.compress(body, level=6, wbits=-15)}}
    return deflated if write_units(deflated) < write_units(plain) else plain


def write_reference(result: Result, address: str) -> Item:
    """The item of a result that lies in S3."""
    return {**_head(result), "s3": {"S": address}}


def read(item: Item) -> Result:
    """The result of an item that holds it whole."""
    payload, log_tail = _bytes(item.get("payload", {})), _bytes(item.get("log", {}))
    if "deflated" in item:
        body = zlib.decompress(_bytes(item["deflated"]), wbits=-15)
        end = LENGTH + int.from_bytes(body[:LENGTH], "big")
        payload, log_tail = body[LENGTH:end], body[end:]
    facts = json.loads(item["facts"]["S"])
    if "failure" in item:
        facts["failure"] = item["failure"]["S"]
    return documents.result(item[KEY]["S"], facts, payload, log_tail)


def too_large(item: Item, limit: int) -> bool:
    """Whether the item is past `limit` bytes."""
    return size(item) > limit


def _head(result: Result) -> Item:
    facts = documents.facts(result)
    item: Item = {KEY: {"S": result.task.id}}
    if failure := facts.pop("failure", ""):
        item["failure"] = {"S": failure}
    item["facts"] = {"S": json.dumps(facts, separators=(",", ":"), ensure_ascii=False)}
    return item


def _content(payload: bytes) -> dict[str, Any]:
    try:
        return {"S": payload.decode()}
    except UnicodeDecodeError:
        return {"B": payload}


def _bytes(value: dict[str, Any]) -> bytes:
    return value["S"].encode() if "S" in value else bytes(value.get("B", b""))

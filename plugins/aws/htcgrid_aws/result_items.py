"""Converts a result to a DynamoDB item, and back.

The attributes are `task_id`, `failure` and `event` (only of failures), `generation` (only of tasks that were run again),
`facts` (metadata as JSON: attempt, times, memory, attributes), `payload` (text, or binary if it is not text) and `log`
(binary). If it saves a write unit, the last three are compressed together into `packed`: raw deflate with the dictionary
`DICTIONARY`, of the lengths of metadata and payload in four bytes each, then metadata, payload and log. If the result is
in S3, `s3` has its address in place of these.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

from htcgrid.spi import generation_of
from htcgrid_aws import result_documents
from htcgrid_aws.dynamodb_table import KEY, Item, size, write_units

if TYPE_CHECKING:
    from htcgrid.spi import Result

DICTIONARY = (
    b'"failure":"errorType":"errorMessage":"stackTrace":"log_tail"'
    b'"0123456789.,abcdef-"{"attempt":1,"started":17,"duration_ms":,"billed_ms":,"max_memory_mb":,'
    b'"init_ms":,"environment":"","attributes":{"priority":"0","session_id":"'
)
"""Text that metadata often contain: beside 1 KB that deflate hardly compresses, they take 60 bytes in place of 200. Items that
were packed with it can be read only with it: for another dictionary, use another name of the attribute."""

LENGTHS = struct.Struct(">II")


def write(result: Result) -> Item:
    """The smallest item of a result."""
    head = _head(result)
    outcome = result.outcome
    if outcome.failure is not None and result.task.payload:
        head["event"] = _content(result.task.payload)
    plain: Item = {**head, "payload": _content(outcome.payload)}
    if outcome.log_tail:
        plain["log"] = {"B": outcome.log_tail}
    if write_units(plain) == 1:
        return plain
    metadata = head.pop("facts")["S"].encode()
    body = LENGTHS.pack(len(metadata), len(outcome.payload)) + metadata + outcome.payload + outcome.log_tail
    packed: Item = {**head, "packed": {"B": _deflated(body)}}
    return packed if write_units(packed) < write_units(plain) else plain


def write_reference(result: Result, address: str) -> Item:
    """The item of a result that is stored in S3."""
    return {**_head(result), "s3": {"S": address}}


def read(item: Item) -> Result:
    """The result of an item that contains all of it."""
    if "packed" in item:
        body = zlib.decompressobj(wbits=-15, zdict=DICTIONARY).decompress(_bytes(item["packed"]))
        length, end = LENGTHS.unpack_from(body)
        text, rest = body[LENGTHS.size : LENGTHS.size + length], body[LENGTHS.size + length :]
        payload, log_tail = rest[:end], rest[end:]
    else:
        text = _bytes(item["facts"])
        payload, log_tail = _bytes(item.get("payload", {})), _bytes(item.get("log", {}))
    metadata = json.loads(text)
    if "failure" in item:
        metadata["failure"] = item["failure"]["S"]
    return result_documents.result(item[KEY]["S"], metadata, payload, log_tail, _bytes(item.get("event", {})))


def too_large(item: Item, limit: int) -> bool:
    """Whether the item is larger than `limit` bytes."""
    return size(item) > limit


def _head(result: Result) -> Item:
    metadata = result_documents.metadata(result)
    item: Item = {KEY: {"S": result.task.id}}
    if failure := metadata.pop("failure", ""):
        item["failure"] = {"S": failure}
    if generation := generation_of(result.task):
        item["generation"] = {"N": str(generation)}
    item["facts"] = {"S": json.dumps(metadata, separators=(",", ":"), ensure_ascii=False)}
    return item


def _deflated(body: bytes) -> bytes:
    stream = zlib.compressobj(level=6, wbits=-15, zdict=DICTIONARY)
    return stream.compress(body) + stream.flush()


def _content(payload: bytes) -> dict[str, Any]:
    try:
        return {"S": payload.decode()}
    except UnicodeDecodeError:
        return {"B": payload}


def _bytes(value: dict[str, Any]) -> bytes:
    return value["S"].encode() if "S" in value else bytes(value.get("B", b""))

"""AWS by moto over HTTP. As a program it prints its address and serves until it is killed.

Two things of moto are put right, for standard queues and for tables. Calls are atomic, as on AWS; moto answers each in a
thread of its own without a lock, so that two receivers may get one message, two conditional writes may both hold, a
look at a table that grows meanwhile fails, and a message whose lease expires in a count is in none of its numbers. And a call
on a queue costs the same at any depth; moto looks through the whole queue for each entry.

Large answers to BatchGetItem come in parts, as on AWS, though the tables of tests are small: a part is 60 keys here.
"""

from __future__ import annotations

import copy
import functools
import heapq
import itertools
import logging
import signal
import time
from collections import OrderedDict
from threading import RLock
from typing import Any

import moto.dynamodb.responses
import moto.sqs.models
from moto.server import ThreadedMotoServer
from moto.sqs.exceptions import InvalidParameterValue, ReceiptHandleIsInvalid

dynamodb: Any = moto.dynamodb.responses  # its types are for callers
sqs: Any = moto.sqs.models

LONGEST_LEASE = 43_200
MOST_KEYS = 60
"""Of an answer to BatchGetItem, the rest of which are UnprocessedKeys; AWS has 16 MB."""


class IndexedQueue(sqs.Queue):  # type: ignore[misc]
    """A message is ready, or hidden until a time; it is found by any receipt handle it ever had."""

    __module__ = sqs.__name__  # moto takes the service's name from it

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._all: dict[str, Any] = {}
        self._of_handle: dict[str, Any] = {}
        self._ready: OrderedDict[str, Any] = OrderedDict()
        self._hidden: dict[str, Any] = {}
        self._due: list[tuple[float, int, Any]] = []
        self._numbers = itertools.count()
        super().__init__(*arguments, **named)

    def add_message(self, message: Any) -> None:
        with self._messages_lock:
            self._all[message.id] = message
            self._place(message)

    def lease(self, count: int, wait: float, seconds: int) -> list[Any]:
        """Up to `count` messages, as soon as there are any."""
        until = time.time() + wait
        leased: list[Any] = []
        with self._messages_lock:
            while not (leased := self._lease(count, seconds)) and (left := until - time.time()) > 0:
                due = self._due[0][0] / 1000 - time.time() if self._due else left
                self._messages_lock.wait(max(0.001, min(left, due)))
        return leased

    def change_visibility(self, handle: str, seconds: int) -> None:
        with self._messages_lock:
            message = self._of_handle.get(handle)
            if message is None or message.id not in self._all:
                raise ReceiptHandleIsInvalid
            if time.time() + seconds - message.sent_timestamp / 1000 > LONGEST_LEASE:
                raise InvalidParameterValue(f"VisibilityTimeout {seconds} is beyond {LONGEST_LEASE} seconds in all")
            message.change_visibility(seconds)
            self._place(message)

    def delete_message(self, receipt_handle: str) -> None:
        with self._messages_lock:
            if receipt_handle not in self._of_handle:
                raise ReceiptHandleIsInvalid
            message = self._of_handle[receipt_handle]
            for place in (self._all, self._ready, self._hidden):
                place.pop(message.id, None)

    def counted(self) -> dict[str, Any]:
        """Its attributes, in one look: no message is between two counts."""
        with self._messages_lock:
            return dict(self.attributes)

    @property
    def approximate_number_of_messages(self) -> int:
        with self._messages_lock:
            self._show()
            return len(self._ready)

    @property
    def approximate_number_of_messages_delayed(self) -> int:
        with self._messages_lock:
            return sum(message.delayed for message in self._hidden.values())

    @property
    def approximate_number_of_messages_not_visible(self) -> int:
        with self._messages_lock:
            # Not shown before: what comes out just now was not among the visible ones, which are counted first.
            return sum(not message.delayed for message in self._hidden.values())

    def _lease(self, count: int, seconds: int) -> list[Any]:
        self._show()
        leased: list[Any] = []
        while len(leased) < count and self._ready:
            _, message = self._ready.popitem(last=False)
            if self.redrive_policy and message.approximate_receive_count >= self.redrive_policy["maxReceiveCount"]:
                del self._all[message.id]
                self.dead_letter_queue.add_message(message)
                continue
            message.mark_received(visibility_timeout=seconds)
            self._of_handle[message.receipt_handle] = message
            leased.append(message)
        for message in leased:
            self._place(message)
        return [copy.copy(message) for message in leased]

    def _place(self, message: Any) -> None:
        self._ready.pop(message.id, None)
        self._hidden.pop(message.id, None)
        at = max(message.visible_at, message.delayed_until)
        if at > time.time() * 1000:
            self._hidden[message.id] = message
            heapq.heappush(self._due, (at, next(self._numbers), message))
        else:
            self._ready[message.id] = message
        self._messages_lock.notify_all()

    def _show(self) -> None:
        """Make ready what was hidden until now. An entry that was hidden anew since has another time."""
        while self._due and self._due[0][0] <= time.time() * 1000:
            at, _, message = heapq.heappop(self._due)
            if message.id in self._hidden and at == max(message.visible_at, message.delayed_until):
                del self._hidden[message.id]
                self._ready[message.id] = message


def _receive(
    backend: Any, name: str, count: int, wait: int, visibility: int, attributes: list[str] | None = None
) -> list[Any]:
    leased: list[Any] = backend.get_queue(name).lease(count, wait, int(visibility))
    for message in leased:
        sqs._filter_message_attributes(message, attributes or [])
    return leased


def _change_visibility(backend: Any, queue_name: str, receipt_handle: str, visibility_timeout: int) -> None:
    backend.get_queue(queue_name).change_visibility(receipt_handle, int(visibility_timeout))


def _attributes(backend: Any, queue_name: str, attribute_names: list[str]) -> dict[str, Any]:
    found = backend.get_queue(queue_name).counted()
    names = found if "All" in attribute_names else attribute_names
    return {name: found[name] for name in names if found.get(name) is not None}


def _atomic(method: Any) -> Any:
    lock = RLock()

    @functools.wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        with lock:
            return method(*arguments, **named)

    return call


def _in_parts(batch_get_item: Any) -> Any:
    @functools.wraps(batch_get_item)
    def call(handler: Any) -> Any:
        left = {}
        for table, request in handler.body["RequestItems"].items():
            if MOST_KEYS < len(keys := request["Keys"]) <= 100:  # more are refused
                request["Keys"], left[table] = keys[:MOST_KEYS], keys[MOST_KEYS:]
        answer = batch_get_item(handler)
        unprocessed = answer.result["UnprocessedKeys"]
        for table, keys in left.items():
            unprocessed[table] = {"Keys": [*unprocessed.get(table, {}).get("Keys", []), *keys]}
        return answer

    return call


@functools.cache
def put_right() -> None:
    """Change moto in this process, before it serves; once."""
    sqs.Queue = IndexedQueue
    sqs.SQSBackend.receive_message = _receive
    sqs.SQSBackend.change_message_visibility = _change_visibility
    sqs.SQSBackend.get_queue_attributes = _attributes
    # Moto asks the time for every message by a way of 10 microseconds.
    sqs.unix_time = time.time
    sqs.unix_time_millis = lambda: time.time() * 1000
    dynamodb.DynamoHandler.batch_get_item = _in_parts(dynamodb.DynamoHandler.batch_get_item)
    dynamodb.DynamoHandler.call_action = _atomic(dynamodb.DynamoHandler.call_action)


def serve() -> tuple[ThreadedMotoServer, str]:
    """A server in threads of this process, and its address."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return server, f"http://{host}:{port}"


def make_state_table(dynamodb_client: Any, name: str) -> None:
    """HTC-Grid's, with its two indexes."""
    indexes = {
        "gsi_session_index": ("session_id", "task_status"),
        "gsi_ttl_index": ("task_status", "heartbeat_expiration_timestamp"),
    }
    types = {"heartbeat_expiration_timestamp": "N"}
    names = {"task_id", *itertools.chain(*indexes.values())}
    dynamodb_client.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "task_id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": each, "AttributeType": types.get(each, "S")} for each in names],
        GlobalSecondaryIndexes=[
            {
                "IndexName": index,
                "KeySchema": [
                    {"AttributeName": key, "KeyType": role} for key, role in zip(keys, ("HASH", "RANGE"), strict=True)
                ],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
            for index, keys in indexes.items()
        ],
        BillingMode="PAY_PER_REQUEST",
    )


if __name__ == "__main__":
    put_right()
    print(serve()[1], flush=True)  # noqa: T201
    signal.pause()

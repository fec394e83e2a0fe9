"""SQS and DynamoDB as far as the source `sqs` with a `task_table` needs them, in one event loop.

moto takes about a millisecond of a processor for each request, so that it, and not an agent, is what tasks of a
millisecond wait for. This one takes a tenth of that. As a program it prints its address and serves until it is killed;
`--latency-ms` holds each answer back for as long as AWS takes for one.
"""

import argparse
import asyncio
import contextlib
import hashlib
import heapq
import itertools
import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

Document = dict[str, Any]
ACCOUNT = "123456789012"
LEASE = 30
"""Seconds."""


class Refused(Exception):
    """An answer with the status 400 and this code."""


class Queue:
    """Messages are visible, or hidden until a time."""

    def __init__(self) -> None:
        self.visible: deque[Document] = deque()
        self.hidden: dict[str, Document] = {}
        """By receipt handle."""
        self._due: list[tuple[float, str]] = []
        self._numbers = itertools.count()

    def receive(self, count: int, seconds: float) -> list[Document]:
        self.show()
        found = [self.visible.popleft() for _ in range(min(count, len(self.visible)))]
        for message in found:
            message["ReceiptHandle"] = f"{message['MessageId']}-{next(self._numbers)}"
            received = int(message["Attributes"]["ApproximateReceiveCount"]) + 1
            message["Attributes"] = {"ApproximateReceiveCount": str(received)}
            self.hidden[message["ReceiptHandle"]] = message
            self.hide(message["ReceiptHandle"], seconds)
        return found

    def hide(self, handle: str, seconds: float) -> None:
        self.hidden[handle]["until"] = time.monotonic() + seconds
        heapq.heappush(self._due, (self.hidden[handle]["until"], handle))

    def show(self) -> None:
        """What was hidden until now. An entry that was hidden anew since has another time."""
        while self._due and self._due[0][0] <= time.monotonic():
            until, handle = heapq.heappop(self._due)
            if handle in self.hidden and self.hidden[handle]["until"] == until:
                self.visible.append(self.hidden.pop(handle))


class Aws:
    """All queues and tables; an operation is a method of its name."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}
        self._tables: dict[str, dict[str, Document]] = {}
        self._ids = itertools.count()

    async def answer(self, target: str, asked: Document) -> Document:
        operation: Callable[[Document], Any] | None = getattr(self, target.rpartition(".")[2], None)
        if operation is None:
            raise Refused(f"{target} is not among what small_aws.py knows")
        answered = operation(asked)
        return await answered if asyncio.iscoroutine(answered) else answered

    def CreateQueue(self, asked: Document) -> Document:  # noqa: N802 - AWS's names
        self._queues[asked["QueueName"]] = Queue()
        return self.GetQueueUrl(asked)

    def GetQueueUrl(self, asked: Document) -> Document:  # noqa: N802
        return {"QueueUrl": f"http://127.0.0.1/{ACCOUNT}/{asked['QueueName']}"}

    def GetQueueAttributes(self, asked: Document) -> Document:  # noqa: N802
        queue = self._queue(asked)
        queue.show()
        counts = {
            "ApproximateNumberOfMessages": len(queue.visible),
            "ApproximateNumberOfMessagesNotVisible": len(queue.hidden),
            "ApproximateNumberOfMessagesDelayed": 0,
            "VisibilityTimeout": LEASE,
        }
        return {"Attributes": {name: str(value) for name, value in counts.items()}}

    def SendMessageBatch(self, asked: Document) -> Document:  # noqa: N802
        sent = []
        for entry in asked["Entries"]:
            body, name = entry["MessageBody"], f"message-{next(self._ids)}"
            digest = hashlib.md5(body.encode(), usedforsecurity=False).hexdigest()
            message = {"MessageId": name, "Body": body, "MD5OfBody": digest}
            message |= {"Attributes": {"ApproximateReceiveCount": "0"}}
            self._queue(asked).visible.append(message | {"MessageAttributes": entry.get("MessageAttributes", {})})
            sent.append({"Id": entry["Id"], "MessageId": name, "MD5OfMessageBody": digest})
        return {"Successful": sent}

    async def ReceiveMessage(self, asked: Document) -> Document:  # noqa: N802
        until = time.monotonic() + asked.get("WaitTimeSeconds", 0)
        found = self._queue(asked).receive(asked["MaxNumberOfMessages"], asked.get("VisibilityTimeout", LEASE))
        while not found and time.monotonic() < until:
            await asyncio.sleep(0.002)
            found = self._queue(asked).receive(asked["MaxNumberOfMessages"], asked.get("VisibilityTimeout", LEASE))
        return {"Messages": [{name: message[name] for name in message if name != "until"} for message in found]}

    def DeleteMessageBatch(self, asked: Document) -> Document:  # noqa: N802
        for entry in asked["Entries"]:
            self._queue(asked).hidden.pop(entry["ReceiptHandle"], None)
        return {"Successful": [{"Id": entry["Id"]} for entry in asked["Entries"]]}

    def ChangeMessageVisibilityBatch(self, asked: Document) -> Document:  # noqa: N802
        queue, done, failed = self._queue(asked), [], []
        for entry in asked["Entries"]:
            if entry["ReceiptHandle"] in queue.hidden:
                queue.hide(entry["ReceiptHandle"], entry["VisibilityTimeout"])
                done.append({"Id": entry["Id"]})
            else:
                failed.append({"Id": entry["Id"], "Code": "ReceiptHandleIsInvalid", "SenderFault": True})
        return {"Successful": done, "Failed": failed}

    def CreateTable(self, asked: Document) -> Document:  # noqa: N802
        self._tables[asked["TableName"]] = {}
        return self.DescribeTable(asked)

    def DescribeTable(self, asked: Document) -> Document:  # noqa: N802
        keys = [{"AttributeName": "task_id", "KeyType": "HASH"}]
        types = [{"AttributeName": "task_id", "AttributeType": "S"}]
        status = {"TableName": asked["TableName"], "TableStatus": "ACTIVE"}
        return {"Table": status | {"KeySchema": keys, "AttributeDefinitions": types}}

    def PutItem(self, asked: Document) -> Document:  # noqa: N802
        table, item = self._tables[asked["TableName"]], asked["Item"]
        if "ConditionExpression" in asked and item["task_id"]["S"] in table:
            raise Refused("ConditionalCheckFailedException")
        table[item["task_id"]["S"]] = item
        return {}

    def BatchGetItem(self, asked: Document) -> Document:  # noqa: N802
        found = {}
        for name, request in asked["RequestItems"].items():
            keys = [key["task_id"]["S"] for key in request["Keys"]]
            found[name] = [self._tables[name][key] for key in keys if key in self._tables[name]]
        return {"Responses": found, "UnprocessedKeys": {}}

    def BatchWriteItem(self, asked: Document) -> Document:  # noqa: N802
        for name, requests in asked["RequestItems"].items():
            for request in requests:
                if "PutRequest" in request:
                    item = request["PutRequest"]["Item"]
                    self._tables[name][item["task_id"]["S"]] = item
                else:
                    self._tables[name].pop(request["DeleteRequest"]["Key"]["task_id"]["S"], None)
        return {"UnprocessedItems": {}}

    def Scan(self, asked: Document) -> Document:  # noqa: N802
        """The tasks of a session: the one filter that the source has."""
        key, session = (asked["ExpressionAttributeValues"][name] for name in (":task", ":session"))
        found = [
            item
            for name, item in self._tables[asked["TableName"]].items()
            if name.startswith(key["S"]) and item.get("session_id") == session
        ]
        return {"Items": found, "ConsumedCapacity": {"CapacityUnits": 1.0}}

    def _queue(self, asked: Document) -> Queue:
        return self._queues[asked["QueueUrl"].rpartition("/")[2]]


async def serve(latency: float) -> None:
    aws = Aws()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = [line.partition(":") for line in head.decode("latin-1").splitlines()[1:]]
                headers = {name.lower(): value.strip() for name, _, value in lines}
                asked = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or "{}")
                began = time.monotonic()
                status = "200 OK"
                try:
                    answered = await aws.answer(headers.get("x-amz-target", ""), asked)
                except Refused as error:
                    status, answered = "400 Bad Request", {"__type": f"com.amazonaws#{error}", "message": str(error)}
                if (left := began + latency - time.monotonic()) > 0:
                    await asyncio.sleep(left)
                body = json.dumps(answered).encode()
                kind = "Content-Type: application/x-amz-json-1.0"
                writer.write(f"HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print("http://{}:{}".format(*server.sockets[0].getsockname()), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=0.0, help="the least time that an answer takes")
    asyncio.run(serve(parser.parse_args().latency_ms / 1000))

"""Answers put in place of a service's, on a plugin's real clients."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.awsrequest import AWSResponse


class Raw:
    """The body of an HTTP answer."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, **_: Any) -> Any:
        yield self.body

    def read(self, *_: Any, **__: Any) -> bytes:
        return self.body


def answer(plugin: Any, operation: str, status: int, code: str, message: str) -> Callable[..., AWSResponse]:
    """From now on the service answers this operation so; returns what gives the answer."""
    service = operation.split(".", maxsplit=1)[0]
    if service == "s3":
        body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
    else:
        body = json.dumps({"__type": f"com.amazonaws#{code}", "message": message}).encode()

    def respond(**_: Any) -> AWSResponse:
        return AWSResponse("https://aws", status, {"content-type": "application/x-amz-json-1.0"}, Raw(body))

    for client in plugin._session.clients:
        client.meta.events.register(f"before-send.{operation}", respond)
    return respond


@contextmanager
def throttled(plugin: Any, *operations: str) -> Iterator[None]:
    """These operations are refused for as long as this lasts."""
    codes = {"s3": (503, "SlowDown"), "sqs": (400, "RequestThrottled"), "dynamodb": (400, "ThrottlingException")}
    given = []
    for operation in operations:
        status, code = codes[operation.split(".", maxsplit=1)[0]]
        given.append((operation, answer(plugin, operation, status, code, "slower")))
    try:
        yield
    finally:
        for client in plugin._session.clients:
            for operation, respond in given:
                client.meta.events.unregister(f"before-send.{operation}", respond)

"""The calls of the Runtime API in Python: in place of the compiled `runtime_client` of AWS's client, which is only for Linux.

The rest of AWS's client is used unchanged. This file is loaded by its path, so it imports nothing of htcgrid.
"""

import http.client
import sys
from typing import Any, cast

_ROOT = "/2018-06-01/runtime/invocation/"
_DEADLINE = "Lambda-Runtime-Deadline-Ms"


class RuntimeClient:
    """Has the functions of that module, and keeps one connection."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._connection = http.client.HTTPConnection(address)
        self._headers: dict[str, str] = {}

    def initialize_client(self, user_agent: str) -> None:
        self._headers = {"User-Agent": user_agent}

    def next(self) -> tuple[bytes, dict[str, Any]]:
        """Wait for the next event; returns it with the headers that it came with, the deadline as a number."""
        event, headers = self._call("GET", "next", 200)
        return event, {**headers, _DEADLINE: int(headers[_DEADLINE])}

    def post_invocation_result(
        self, request_id: str, document: bytes, content_type: str, invocation_id: str | None = None
    ) -> None:
        headers = {"Content-Type": content_type, **_invocation(invocation_id)}
        self._call("POST", f"{request_id}/response", 202, document, headers)

    def post_error(self, request_id: str, document: str, _xray_cause: str, invocation_id: str | None = None) -> None:
        """The cause for X-Ray is left out: nobody here reads it."""
        headers = {"Content-Type": "application/json", **_invocation(invocation_id)}
        self._call("POST", f"{request_id}/error", 202, document.encode("utf-8", "surrogatepass"), headers)

    def _call(
        self, method: str, path: str, expected: int, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[bytes, dict[str, str]]:
        request = (method, _ROOT + path, body, self._headers | (headers or {}))
        try:
            self._connection.request(*request)
        except OSError:  # a handler may close every descriptor; AWS's client connects anew as well
            if self._connection.sock is not None:
                self._connection.sock.detach()  # another file may have its number now
            self._connection = http.client.HTTPConnection(self._address)
            self._connection.request(*request)
        response = self._connection.getresponse()
        document = response.read()
        if response.status != expected:
            raise RuntimeError(f"The Runtime API answered {path} with {response.status}: {document!r}")
        return document, dict(response.getheaders())


def _invocation(invocation_id: str | None) -> dict[str, str]:
    return {"Lambda-Runtime-Invocation-Id": invocation_id} if invocation_id else {}


def install(address: str) -> None:
    """Make `import runtime_client` find this module."""
    cast("dict[str, Any]", sys.modules)["runtime_client"] = RuntimeClient(address)

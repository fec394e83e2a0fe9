"""An AWS whose roles have keys that live for some seconds, and which refuses the ones that have expired."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from urllib.parse import parse_qs

_NAMESPACE = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
_ISSUED = (
    f"<AssumeRoleResponse {_NAMESPACE}><AssumeRoleResult><AssumedRoleUser><AssumedRoleId>AROA:work</AssumedRoleId>"
    "<Arn>arn:aws:sts::123456789012:assumed-role/pricing/work</Arn></AssumedRoleUser><Credentials><AccessKeyId>{key}"
    "</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>token</SessionToken><Expiration>{until}"
    "</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
)
_IDENTITY = (
    f"<GetCallerIdentityResponse {_NAMESPACE}><GetCallerIdentityResult><Arn>arn:aws:sts::123456789012:assumed-role/"
    "pricing/work</Arn><UserId>{key}</UserId><Account>123456789012</Account></GetCallerIdentityResult>"
    "</GetCallerIdentityResponse>"
)
_EXPIRED = (
    f"<ErrorResponse {_NAMESPACE}><Error><Type>Sender</Type><Code>ExpiredTokenException</Code><Message>The security token "
    "included in the request is expired</Message></Error></ErrorResponse>"
)


class ShortLivedAws(ThreadingHTTPServer):
    """AssumeRole and GetCallerIdentity. What it has counted may be read at any time."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, seconds: float) -> None:
        super().__init__((host, 0), _Request)
        self.seconds = seconds
        self.url = f"http://{host}:{self.server_port}"
        self.refused = self.answered = 0
        self.expires: dict[str, float] = {}
        """On the monotonic clock, by access key."""
        self._lock = Lock()

    def answer(self, action: str, key: str) -> tuple[int, str]:
        with self._lock:
            if action == "AssumeRole":
                issued = f"ASIA{len(self.expires):012}"
                self.expires[issued] = time.monotonic() + self.seconds
                until = datetime.now(UTC) + timedelta(seconds=self.seconds)
                return 200, _ISSUED.format(key=issued, until=until.strftime("%Y-%m-%dT%H:%M:%SZ"))
            if time.monotonic() > self.expires.get(key, 0.0):
                self.refused += 1
                return 403, _EXPIRED
            self.answered += 1
            return 200, _IDENTITY.format(key=key)


class _Request(BaseHTTPRequestHandler):
    server: ShortLivedAws

    def do_POST(self) -> None:
        form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        signer = re.search(r"Credential=(\w+)/", self.headers["Authorization"])
        assert signer is not None
        status, body = self.server.answer(form["Action"][0], signer[1])
        self.send_response(status)
        self.send_header("Content-Type", "text/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Not wanted among what pytest prints."""


@contextmanager
def short_lived_aws(host: str, seconds: float) -> Iterator[ShortLivedAws]:
    with ShortLivedAws(host, seconds) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()

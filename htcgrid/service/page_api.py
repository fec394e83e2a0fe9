"""One page for one user: served on this machine's loopback to everyone who has its token."""

import hmac
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus

import h11

from htcgrid.service.connection import BadRequest, Connection
from htcgrid.service.http import InvokeServer

_HOST = "127.0.0.1"
_NAMES = {_HOST, "localhost"}
_TEXT = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
_PAGE = {
    **_TEXT,
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


class PageApi:
    """Answers a GET of `/TOKEN/` with what `make` returns, and refuses every other request."""

    def __init__(self, make: Callable[[], str]) -> None:
        self._make = make
        self.path = f"/{secrets.token_urlsafe(24)}/"

    def serve(
        self,
        connection: Connection,
        under_way: Callable[[], AbstractContextManager[None]],
        may_go_on: Callable[[], bool],
    ) -> bool:
        """Answer the one request of this connection."""
        try:
            request = connection.head()
        except BadRequest as error:
            connection.reply(error.status, _TEXT, f"{error}\n".encode(), keep=False)
            return connection.next()
        if request is None:
            return False
        with under_way():
            status, headers, text = self._answer(request)
            connection.reply(status, headers, text.encode("utf-8", "replace"), keep=False)
        return connection.next()

    def _answer(self, request: h11.Request) -> tuple[int, Mapping[str, str], str]:
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in request.headers}
        if refusal := _refusal(headers):
            return HTTPStatus.FORBIDDEN, _TEXT, refusal
        path = request.target.decode("latin-1").partition("?")[0]
        if not hmac.compare_digest(path.encode(), self.path.encode()):
            return (
                HTTPStatus.FORBIDDEN,
                _TEXT,
                "The address lacks the token. Open the address that htcgrid has printed.\n",
            )
        if request.method not in {b"GET", b"HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, {**_TEXT, "Allow": "GET, HEAD"}, "This page can only be read.\n"
        return HTTPStatus.OK, _PAGE, self._make()


def _refusal(headers: Mapping[str, str]) -> str:
    """Why a request that another web page may have made is refused; empty if it is not refused."""
    host = headers.get("host", "")
    name = host.rpartition(":")[0] or host
    if name.lower() not in _NAMES:
        return "Host: this page can be read only at 127.0.0.1 or localhost.\n"
    if headers.get("origin", f"http://{host}") != f"http://{host}":
        return "Origin: another page may not read this one.\n"
    if headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return "Sec-Fetch-Site: another page may not read this one.\n"
    return ""


@contextmanager
def served_page(make: Callable[[], str], report: Callable[[str], None]) -> Iterator[str]:
    """Serve the page on a free port until the block ends; the value is its address. `OSError` if no port is free."""
    api = PageApi(make)
    with InvokeServer(socket.AF_INET, (_HOST, 0), api, report) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="htcgrid-page", daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_address[1]}{api.path}"
        finally:
            server.end(1.0)
            thread.join()

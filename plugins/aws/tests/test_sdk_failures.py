"""What the SDK raises raw is for the user to correct, and never "a bug in htcgrid"."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid_aws.aws_errors import translated_errors
from htcgrid_aws.function_credentials import FunctionCredentials
from htcgrid_aws.s3 import S3Sink
from htcgrid_aws.sqs import SqsSource

from htcgrid.spi import Function, Outcome, Rejected, Result, Task, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROFILES = {
    "a program that is missing": "credential_process = /no/such/program",
    "a program that prints no JSON": "credential_process = /bin/echo hello",
    "a program that prints a list": "credential_process = /bin/echo '[]'",
    "a token file that is missing": "role_arn = arn:aws:iam::123456789012:role/r\nweb_identity_token_file = /no/file",
}


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "config").write_text(f"[profile mine]\nregion = eu-west-1\n{PROFILES[request.param]}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    return "mine"


def source_of(**keys: Any) -> SqsSource:
    return SqsSource(SqsSource.Config(queue="tasks", **keys), Function())


def test_a_profile_that_cannot_give_credentials_is_refused_with_what_to_check(profile: str) -> None:
    with pytest.raises(Rejected, match="Check where the credentials come from") as caught, source_of(profile=profile):
        pass
    assert "endpoint_url '" not in str(caught.value)
    with pytest.raises(Rejected, match="Check where the credentials come from"):
        FunctionCredentials(Function(handler="a.b", credentials=f"profile:{profile}")).current(30)


def test_a_program_that_fails_is_not_a_service_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text(
        f"[profile mine]\ncredential_process = {sys.executable} -c 'import sys; sys.exit(\"vault is sealed\")'\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(Unavailable, match="vault is sealed") as caught, source_of(profile="mine"):
        pass
    assert "AWS cannot be reached" not in str(caught.value)


def test_exported_credentials_that_have_expired_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    with pytest.raises(Rejected, match="expired"), source_of():
        pass


def test_an_endpoint_with_an_impossible_port_is_refused() -> None:
    address = "http://127.0.0.1:99999999"
    with pytest.raises(Rejected, match="Port out of range"), source_of(endpoint_url=address):
        pass
    function = Function(handler="a.b", credentials="role:arn:aws:iam::123456789012:role/r", endpoint_url=address)
    with pytest.raises(Rejected, match="Port out of range"):
        FunctionCredentials(function).current(30)


def test_an_error_of_our_own_stays_a_bug() -> None:
    with pytest.raises(ValueError, match="ours"), translated_errors("sqs:SendMessage", "queue"):
        raise ValueError("ours")


@pytest.fixture
def web_page() -> Iterator[str]:
    """A proxy or another server, which answers everything with a page and status 200."""

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Length", "13")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"<html></html>")

        def log_message(self, *_: Any) -> None:
            pass

    Page.do_PUT = Page.do_GET = Page.do_HEAD = Page.do_POST  # type: ignore[attr-defined]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_page_in_place_of_an_answer_is_not_taken_for_one(web_page: str) -> None:
    with pytest.raises(Unavailable, match=r"<html></html>.*check endpoint_url"), source_of(endpoint_url=web_page):
        pass


def test_an_object_that_s3_did_not_confirm_is_not_stored_and_a_page_is_no_object(web_page: str) -> None:
    result = Result(Task("t", b"1"), Outcome("t", b"2", started=1.0))
    with S3Sink(S3Sink.Config(bucket="b", endpoint_url=web_page), Function()) as sink:
        with pytest.raises(Unavailable, match=r"PutObject.*check endpoint_url"):
            sink.put([result])
        with pytest.raises(Unavailable, match=r"GetObject.*check endpoint_url"):
            sink.get(["t"])

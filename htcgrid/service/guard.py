"""Decides who may call: no web pages, and only callers with a key if keys are required."""

import configparser
import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from htcgrid.service import api_errors
from htcgrid.service.sigv4 import Signature, is_signed
from htcgrid.spi import Rejected

_TOKEN_LENGTH = 16
_MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Guard:
    """Checks a request's head before its body is read. The signature is verified later, with the body.

    `secrets` are those of SigV4, by access key id. Without a token and secrets anybody may call, but only with a `Host`
    header that is `host`, the name on which the service listens, or a name or address that no web page can have.
    """

    token: str = field(default="", repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    host: str = "localhost"

    @property
    def asks_for_keys(self) -> bool:
        return bool(self.token or self.secrets)

    def check(self, headers: Mapping[str, str]) -> Signature | None:
        """Raises the error of these headers, if any. Returns the signature, which the caller verifies with the body."""
        if "origin" in headers or headers.get("sec-fetch-site", "none") != "none":
            raise api_errors.AccessDenied("Web pages may not call functions, and this request comes from a web page.")
        if not self.asks_for_keys:
            self._check_host(headers.get("host", ""))
            return None
        authorization = headers.get("authorization", "")
        if self.secrets and is_signed(authorization):
            return Signature(headers, self.secrets, datetime.now(UTC))
        scheme, _, given = authorization.partition(" ")
        if self.token and scheme.lower() == "bearer":
            if hmac.compare_digest(given.strip().encode(), self.token.encode()):
                return None
            raise api_errors.UnrecognizedClient("The token in the request is not the one in --token-file.")
        raise api_errors.MissingAuthenticationToken(f"Missing Authentication Token: expected {self._expected()}.")

    def _check_host(self, header: str) -> None:
        """Refuse other names: with DNS rebinding, a web page can make its own name resolve to this service's address."""
        name = _without_port(header).lower().rstrip(".")
        if "." in name and name != self.host.lower() and not name.endswith(".localhost") and not _is_address(name):
            raise api_errors.AccessDenied(f"Host: {name} is not a name of this service. Use its address, or localhost.")

    def _expected(self) -> str:
        kinds = ["a SigV4 signature"] * bool(self.secrets) + ["Authorization: Bearer TOKEN"] * bool(self.token)
        return " or ".join(kinds)


def read_token(path: Path) -> str:
    """The token in `--token-file`: its only line."""
    token = _text(path, "--token-file").strip()
    if len(token) < _TOKEN_LENGTH or not token.isascii() or len(token.split()) != 1:
        raise Rejected(
            f"--token-file {path}: expected one line with a token of {_TOKEN_LENGTH} ASCII characters or more, without "
            "spaces. Make one with: openssl rand -hex 32"
        )
    return token


def read_keys(path: Path) -> Mapping[str, str]:
    """The secrets in `--keys-file` by key id. The file has the form of `~/.aws/credentials`: each of its profiles may call."""
    parser = configparser.RawConfigParser(interpolation=None)
    try:
        parser.read_string(_text(path, "--keys-file"))
        secrets = {
            section["aws_access_key_id"]: section["aws_secret_access_key"]
            for section in (parser[name] for name in parser.sections())
        }
    except (configparser.Error, KeyError):
        secrets = {}
    if not secrets or not all(key and secret for key, secret in secrets.items()):
        raise Rejected(
            f"--keys-file {path}: expected a file like ~/.aws/credentials, in which each profile has a key:\n\n"
            "[default]\naws_access_key_id = NAME\naws_secret_access_key = SECRET"
        )
    return secrets


def _text(path: Path, option: str) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(_MOST_BYTES + 1)
        if len(found) > _MOST_BYTES:
            raise Rejected(f"{option} {path}: the file is longer than {_MOST_BYTES:,} bytes. Give the right file.")
        return found.decode("utf-8-sig").replace("\r\n", "\n")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise Rejected(f"{option} {path}: {reason}. Give a file that can be read.") from None


def _without_port(header: str) -> str:
    address, bracket, port = header.partition("]")
    if address.startswith("[") and bracket and (not port or port.startswith(":")):
        return address[1:]
    return header.rpartition(":")[0] if header.count(":") == 1 else header


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True

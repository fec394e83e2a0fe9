"""The AWS credentials that handlers get, as `[function] credentials` says."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CREDENTIAL_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Where a handler finds them, as on AWS Lambda: every SDK looks here first."""

_MARGIN_SECONDS = 5.0
_USED_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Credentials:
    """Credentials as environment variables; none by default. No `repr` shows them."""

    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    expires: float = math.inf
    """On this machine's monotonic clock (`time.monotonic()`), in seconds."""
    lifetime: float = math.inf
    """How long they were valid when they were issued, in seconds."""

    def lasts(self, timeout: float) -> bool:
        """Whether an invocation that begins now and takes `timeout` seconds ends before they expire.

        Credentials whose whole lifetime is shorter can never do so: they are used for a quarter of it.
        """
        if self.expires == math.inf:
            return True
        needed = min(timeout + _MARGIN_SECONDS, (1 - _USED_SHARE) * self.lifetime)
        return self.expires - time.monotonic() >= needed


class CredentialSource:
    """Gives out credentials; this class has none. Several threads may call it at once."""

    def current(self, timeout: float) -> Credentials:
        """Credentials for an invocation of `timeout` seconds that begins now; renewed if they would expire before its end.

        Raises `Unavailable` where the service that issues them is unavailable, `Rejected` where it never issues any.
        """
        return Credentials()

    def permissions(self) -> Mapping[str, Mapping[str, Any]]:
        """The rights that the agent needs to get them, as `Plugin.permissions` has them."""
        return {}

    def close(self) -> None:
        """Release everything. A second call does nothing."""


def split_credentials(variables: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Split environment variables into those that everyone may see and the credentials."""
    secret = {name: variables[name] for name in CREDENTIAL_VARIABLES if name in variables}
    return {name: value for name, value in variables.items() if name not in secret}, secret

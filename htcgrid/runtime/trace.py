"""The trace that an invocation belongs to: `_X_AMZN_TRACE_ID`, which tracers in the handler read.

The form is that of X-Ray's tracing header: `Root=1-8 hex-24 hex;Parent=16 hex;Sampled=0 or 1`.
"""

import itertools
import os
import re
import time
from collections.abc import Mapping

TRACE_ID = "_X_AMZN_TRACE_ID"
AWS_TRACE = "AWSTraceHeader"
"""The attribute of a task that holds its caller's trace; SQS's own name for it."""
W3C_TRACE = "traceparent"
"""The same in the form of W3C's Trace Context; `htcgrid.spi.tracing` reads both too."""
# Load balancers write their own field, Self, before Root.
_HEADER = re.compile(r"([A-Za-z0-9]+=[!-:<-~]*;)*Root=1-[0-9a-f]{8}-[0-9a-f]{24}(;[A-Za-z0-9]+=[!-:<-~]*)*;?")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{8})([0-9a-f]{24})-([0-9a-f]{16})-[0-9a-f]([0-9a-f])(-.*)?")


def given(attributes: Mapping[str, str]) -> str:
    """The caller's trace, from `AWSTraceHeader` or W3C's `traceparent`; empty where a task has none that is valid."""
    if AWS_TRACE in attributes and _HEADER.fullmatch(attributes[AWS_TRACE]):
        return attributes[AWS_TRACE]
    if W3C_TRACE in attributes and (found := _TRACEPARENT.fullmatch(attributes[W3C_TRACE])):
        return f"Root=1-{found[1]}-{found[2]};Parent={found[3]};Sampled={int(found[4], 16) & 1}"
    return ""


class NewTraces:
    """Traces for invocations whose callers have none; not sampled, as on the service where tracing is off."""

    def __init__(self) -> None:
        self._own = os.urandom(12).hex()
        self._numbers = itertools.count(1)

    def next(self) -> str:
        """A trace that no other invocation has."""
        number = next(self._numbers) & 0xFFFFFFFF
        return (
            f"Root=1-{int(time.time()):08x}-{self._own[:16]}{number:08x};Parent={self._own[16:]}{number:08x};Sampled=0"
        )

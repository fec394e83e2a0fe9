"""The frames between a supervisor and a Python worker on their Unix socket, in host byte order."""

import struct

REQUEST = struct.Struct("=QIIII")
"""Sequence number, timeout in ms, lengths of the trace (0: the caller has none), the client context and the event.
The request id (36 bytes), the trace, the client context and the event follow."""

REQUEST_ID_BYTES = 36

ANSWER = struct.Struct("=IIIBQQQ")
"""Length of the payload, length of the log tail, peak memory in KiB, kind, sequence number,
start (Unix ns), duration (ns). The log tail and the payload follow."""

RESULT = 0
"""The handler's answer."""
ERROR = 1
"""The handler's error document."""
READY = 2
"""Initialised; the duration is that of the initialisation."""
INIT_ERROR = 3
"""Not initialised; the payload is the error document."""
TOO_LARGE = 4
"""The answer was larger than the limit and was not sent."""
DROPPED = 5
"""The task was recalled before it began."""

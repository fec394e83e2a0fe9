"""AWS Lambda's published limits, in bytes and seconds, that our planes apply as well."""

REQUEST_BYTES = 6_291_456
"""The most a synchronous request may hold: 6 MiB."""

RESPONSE_BYTES = 6_291_556
"""The most an answer may hold: 6 MiB and the 100 bytes that the service adds."""

INIT_SECONDS = 10.0
"""How long an environment may initialise before the service starts it once more, on the function's time."""

LOG_TAIL_BYTES = 4096
"""How many bytes of the end of the log are returned with an answer."""

"""Does what its event says; see ../README.md."""

import os
import time
from typing import Any

_count = 0


class UnknownEvent(Exception):
    """The event says nothing that this handler does."""


def handler(event: Any, context: Any) -> Any:
    global _count  # noqa: PLW0603 - it counts what this environment has run
    _count += 1
    match event:
        case {"do": "echo"}:
            return event
        case {"do": "raise", "message": message}:
            raise ValueError(message)
        case {"do": "exit", "status": status}:
            os._exit(status)
        case {"do": "sleep", "seconds": seconds}:
            time.sleep(seconds)
            return "slept"
        case {"do": "print", "text": text}:
            print(text)  # noqa: T201 - this is what it is asked to do
            return None
        case {"do": "count"}:
            return _count
        case {"do": "context"}:
            return {"requestId": context.aws_request_id, "custom": context.client_context.custom}
    raise UnknownEvent(f"nothing is known of {event!r}")

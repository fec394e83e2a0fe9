"""What a handler finds in `context.client_context`, the same on every plane."""

import json
import re
from json.encoder import encode_basestring_ascii as quote

from htcgrid.spi import Lease

_KNOWN = frozenset({"task_id", "session_id", "attempt"})
_NOT_IN_A_HEADER = re.compile(r"[^ -~]")


def _escaped(match: re.Match[str]) -> str:
    """JSON has control characters between its tokens alone, where a space says the same; others are in its texts."""
    if match[0] < " ":
        return " "
    return "\\u007f" if match[0] == "\x7f" else quote(match[0])[1:-1]


def client_context(lease: Lease) -> str:
    """The client context of a lease as one line of ASCII JSON.

    `custom` holds `task_id`, `session_id` ("" where the task has none), `attempt` and the task's other
    attributes. A caller's own context, given as the attribute `client_context`, is passed on, likewise on one line:
    its line breaks would end the header.
    This is what `Lambda-Runtime-Client-Context` carries and, in base64, `X-Amz-Client-Context`.
    """
    attributes = lease.task.attributes
    if given := attributes.get("client_context"):
        return _NOT_IN_A_HEADER.sub(_escaped, given)
    session = attributes.get("session_id", "")
    known = f'"task_id":{quote(lease.task.id)},"session_id":{quote(session)},"attempt":{lease.attempt}'
    if attributes.keys() <= _KNOWN:
        return f'{{"custom":{{{known}}}}}'
    others = {name: text for name, text in attributes.items() if name not in _KNOWN}
    return f'{{"custom":{{{known},{json.dumps(others)[1:-1]}}}}}'

"""What a handler finds in `context.client_context`, the same on every plane."""

import json
import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quote

from htcgrid.spi import Lease

_KNOWN = frozenset({"task_id", "session_id", "attempt"})
_NOT_IN_A_HEADER = re.compile(r"[^ -~]")


def _escaped(match: re.Match[str]) -> str:
    """JSON allows control characters only between its tokens, where a space means the same; all others are in its texts."""
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
    before, after = around_the_id(lease.task.attributes, lease.attempt)
    return f"{before}{quote(lease.task.id)}{after}" if after else before


def around_the_id(attributes: Mapping[str, str], attempt: int) -> tuple[str, str]:
    """The client context before and after the quoted id of the task; a caller's own context is the first part, without an id."""
    if given := attributes.get("client_context"):
        return _NOT_IN_A_HEADER.sub(_escaped, given), ""
    others = {name: text for name, text in attributes.items() if name not in _KNOWN}
    more = f",{json.dumps(others)[1:-1]}" if others else ""
    session = quote(attributes.get("session_id", ""))
    return '{"custom":{"task_id":', f',"session_id":{session},"attempt":{attempt}{more}}}}}'

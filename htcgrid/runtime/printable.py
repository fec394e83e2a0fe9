"""Text that others wrote, made safe to show on a terminal."""

import re

_UNSHOWN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
"""Control characters except tab and the ends of lines, those that change the direction of text, lone surrogates."""


def printable(text: str) -> str:
    r"""The text with every control character as `\u001b`: it cannot control a terminal, and JSON keeps its meaning."""
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

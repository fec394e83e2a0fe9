"""Makes text from callers and handlers safe for a log or a terminal."""

import re

_UNPRINTABLE = re.compile(r"[^ -~]")
_MOST = 4000


def one_line(text: str) -> str:
    """The text on one line, without characters that control a terminal, and cut if it is very long."""
    cut = text if len(text) <= _MOST else f"{text[:_MOST]}... ({len(text)} characters)"
    return _UNPRINTABLE.sub(_escaped, cut)


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    return char if char.isprintable() else char.encode("unicode_escape").decode("ascii")

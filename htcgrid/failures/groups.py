"""Groups of similar failures: even for a million, only counts and one example for each group are kept."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from htcgrid.failures.hints import hint
from htcgrid.runtime.parsing import parsed
from htcgrid.spi import FailureKind, Outcome

MOST_GROUPS = 5000
"""With more groups than this, failures with other messages are counted together: too many messages differ."""

_MESSAGE = 300
_EXAMPLE = 2000
"""Characters of an example's message that are kept: an error document may have megabytes."""
_LOG_LINES = 3
_VARYING = re.compile(
    r"\b[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}\b"  # a request's id
    r"|'[^'\n]*'|\"[^\"\n]*\""
    r"|\b0x[0-9a-fA-F]+\b|\b[0-9a-fA-F]{16,}\b"
    r"|\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?"
)
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>\S+)')
_NODE_FRAME = re.compile(r"at (?:(?P<name>\S+) \()?(?P<file>[^()\s]+?):(?P<line>\d+):\d+\)?$")
_REPORT = re.compile(r"^\[ERROR\] [^\n]*\n(?:Traceback \(most recent|  File |\s*\Z)", re.MULTILINE)
_LIBRARY = ("/site-packages/", "/lib/python", "<frozen ", "node_modules/", "node:internal", "/var/runtime/")


class Key(NamedTuple):
    """What failures of one group have in common."""

    kind: str
    error_type: str
    message: str
    """The message, with the parts replaced that differ from task to task."""
    place: str
    """The place in the handler, as `job.py:7 in handler`; empty if it is not known."""


@dataclass(slots=True)
class Group:
    """Similar failures, and one of them as the example."""

    key: Key
    count: int
    example_id: str
    example_message: str
    log_tail: bytes

    @property
    def hint(self) -> str:
        """What to do about it; empty if the cause is the handler itself."""
        return hint(self.key.error_type, self.example_message)

    def document(self, number: int) -> dict[str, Any]:
        return {
            "group": number,
            **self.key._asdict(),
            "count": self.count,
            "example_id": self.example_id,
            "example_message": self.example_message,
            "log": last_lines(self.log_tail),
            **({"hint": self.hint} if self.hint else {}),
        }


class Groups:
    """Groups of failures, filled one failure after the other."""

    def __init__(self) -> None:
        self._groups: dict[Key, Group] = {}
        self.total = 0

    def add(self, outcome: Outcome) -> Group | None:
        """Count a failure; returns its group if it is the first failure of it."""
        key, message = signature(outcome)
        self.total += 1
        group = self._groups.get(key)
        if group is None and len(self._groups) >= MOST_GROUPS:
            key = key._replace(message="(other messages)")
            group = self._groups.get(key)
        if group is not None:
            group.count += 1
            return None
        self._groups[key] = group = Group(key, 1, outcome.task_id, message[:_EXAMPLE], outcome.log_tail)
        return group

    def ordered(self) -> list[Group]:
        """The most frequent first; those of the same count in the order of their texts."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.key))

    def numbered(self, number: int) -> Group | None:
        """The group that is shown with this number, counted from 1."""
        ordered = self.ordered()
        return ordered[number - 1] if 0 < number <= len(ordered) else None

    def holds(self, group: Group, outcome: Outcome) -> bool:
        """Whether this failure was counted in that group."""
        key, _ = signature(outcome)
        if key not in self._groups:
            key = key._replace(message="(other messages)")
        return key == group.key

    def kinds(self) -> dict[str, int]:
        """How many failures of each kind."""
        counts: dict[str, int] = {}
        for group in self._groups.values():
            counts[group.key.kind] = counts.get(group.key.kind, 0) + group.count
        return dict(sorted(counts.items()))


def signature(outcome: Outcome) -> tuple[Key, str]:
    """What this failure has in common with others, and its own message."""
    document = _document(outcome.payload)
    message = str(document.get("errorMessage") or "")
    kind = str(outcome.failure or FailureKind.HANDLER_ERROR)
    error_type = str(document.get("errorType") or "")
    return Key(kind, error_type[:_MESSAGE], folded(message), _place(document)), message


def folded(message: str) -> str:
    """The message with quoted texts, numbers and ids replaced, which differ from task to task."""
    return _VARYING.sub(_folded, message[: 4 * _MESSAGE])[:_MESSAGE]


def _folded(found: re.Match[str]) -> str:
    text = found[0]
    return f"{text[0]}...{text[0]}" if text[0] in "'\"" else "N" if text[0].isdigit() and len(text) < 16 else "..."


def last_lines(log: bytes, count: int = _LOG_LINES) -> list[str]:
    """The last lines that the handler printed; without the runtime's report of the error, which the group shows."""
    text = log.decode("utf-8", "replace")
    report = _REPORT.search(text)
    lines = [line.rstrip() for line in (text[: report.start()] if report else text).splitlines()]
    return [line for line in lines if line][-count:]


def _document(payload: bytes) -> Mapping[str, Any]:
    try:
        document = parsed(payload)
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"errorMessage": payload[:_MESSAGE].decode(errors="replace")}


def _place(document: Mapping[str, Any]) -> str:
    """The innermost frame in the user's own code, as Python's and Node.js's clients write frames."""
    frames = _frames(document.get("stackTrace"), _FRAME) or _frames(document.get("trace"), _NODE_FRAME)[::-1]
    own = [frame for frame in frames if not any(part in frame["file"] for part in _LIBRARY)] or frames
    if not own:
        return ""
    file = own[-1]["file"].replace("\\", "/").rpartition("/")[2]
    name = own[-1]["name"]
    return f"{file}:{own[-1]['line']}" + (f" in {name}" if name else "")


def _frames(lines: object, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    texts: Iterable[object] = lines if isinstance(lines, list) else ()
    found = (pattern.search(text.strip()) for text in texts if isinstance(text, str))
    return [frame for frame in found if frame is not None]

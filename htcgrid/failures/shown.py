"""Groups of failures as text for people."""

from collections.abc import Sequence

from htcgrid.failures.groups import Group, last_lines
from htcgrid.runtime.printable import printable

MOST_SHOWN = 5
_WIDTH = 160


def groups_text(groups: Sequence[Group], most: int | None = MOST_SHOWN) -> str:
    """The most frequent groups, one below the other, numbered as `htcgrid failures --group` takes them."""
    shown = groups if most is None else groups[:most]
    blocks = [_block(number, group) for number, group in enumerate(shown, 1)]
    if left := groups[len(shown) :]:
        blocks.append(f"  and {sum(group.count for group in left):,} failures in {len(left):,} more groups")
    return "\n".join(blocks)


def first_of_a_group(group: Group) -> str:
    """A line for the first failure of a group, shown during the run."""
    key = group.key
    where = f" at {key.place}" if key.place else ""
    return _line(f"task {group.example_id} failed: {key.kind}: {_named(key.error_type, group.example_message)}{where}")


def _block(number: int, group: Group) -> str:
    key = group.key
    where = f"  at {key.place}" if key.place else ""
    lines = [f"  {number}. {group.count:,} x {key.kind}: {_named(key.error_type, key.message)}{where}"]
    lines.append(f"     such as task {group.example_id}: {group.example_message}")
    if group.hint:
        lines.append(f"     {group.hint}")
    lines += [f"       | {line}" for line in last_lines(group.log_tail)]
    return "\n".join(map(_line, lines))


def _named(error_type: str, message: str) -> str:
    return ": ".join(part for part in (error_type, message) if part)


def _line(text: str) -> str:
    """One line without characters that control a terminal."""
    text = printable(" ".join(text.split("\n")))
    return text if len(text) <= _WIDTH else text[: _WIDTH - 3] + "..."

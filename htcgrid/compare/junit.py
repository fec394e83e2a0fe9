"""The outcome of a comparison as a JUnit file, which CI systems read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 does not allow."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One event: its task's id, what differs, and the times on both planes."""

    task_id: str
    difference: str
    duration_ms: tuple[float, float]
    billed_ms: tuple[int, int]


def write(path: Path, name: str, compared: Sequence[Compared]) -> None:
    """A test case an event, failed where the planes differ."""
    failures = sum(bool(each.difference) for each in compared)
    suite = ET.Element(
        "testsuite", name=name, tests=str(len(compared)), failures=str(failures), errors="0", skipped="0"
    )
    for each in compared:
        seconds = f"{sum(each.duration_ms) / 1000:.6f}"
        case = ET.SubElement(suite, "testcase", classname=name, name=_clean(each.task_id), time=seconds)
        if each.difference:
            ET.SubElement(case, "failure", message=_clean(each.difference)).text = _clean(each.difference)
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)


def _clean(text: str) -> str:
    return _UNWRITABLE.sub("?", text)

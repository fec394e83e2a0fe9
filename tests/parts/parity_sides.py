"""The parity table on two planes: what a container or pod is compared by with the process plane, and the page of it."""

import importlib.util
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import UUID, uuid5

from htcgrid.spi import Invoker, Lease, Outcome, Task

TESTS = Path(__file__).parents[1]
PARITY = TESTS / "parity"
PAGE = TESTS.parent / "docs" / "lambda.md"
TIMEOUTS = [{"do": "exits_with_0"}, {"do": "counts"}, {"do": "sleeps", "seconds": 60, "within": 1}, {"do": "counts"}]
TASK_ROOT = "/var/task"
STACK = {
    # Another release of the same Python lies, and has lines, elsewhere.
    r'File \\"[^"]*importlib[^"]*\\", line \d+': "<importlib>"
}


def _table() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_table", PARITY / "test_parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_TABLE = _table()
_LEFT_OUT = {
    "time_of_the_deadline": "it is asked for within milliseconds, of a clock",
    "signals": "no signal is ignored in a container; the process plane inherits what the shell that runs the tests ignores",
}
BEHAVIOURS: Mapping[str, list[Any]] = {
    name: events for name, events in _TABLE.BEHAVIOURS.items() if name not in _LEFT_OUT
}
INITS: Mapping[str, str] = _TABLE.INITS


def pythons_code(folder: Path) -> Path:
    """The handlers of the table, and those that do not come up."""
    shutil.copytree(PARITY, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(PARITY / "inits", folder, dirs_exist_ok=True)
    (folder / "wrong_syntax.py").write_text("def handler(event, context)\n    return 1\n")
    folder.chmod(0o755)
    return folder


def outcomes(plane: Invoker, behaviour: str, events: list[Any], timeout: float) -> list[Outcome]:
    """What comes of each event; `timeout` is the function's, for those that say no `within`."""
    found = []
    for number, event in enumerate(events):
        within = event.get("within", timeout) if isinstance(event, dict) else timeout
        payload = event if isinstance(event, bytes) else json.dumps(_timed(event, timeout)).encode()
        task = Task(str(uuid5(UUID(int=0), f"{behaviour} {number}")), payload)
        found.append(invoke(plane, Lease(task), within))
    return found


def _timed(event: Any, timeout: float) -> Any:
    return event | {"timeout": timeout} if isinstance(event, dict) and "timeout" in event else event


def invoke(plane: Invoker, lease: Lease, timeout: float) -> Outcome:
    """As an agent does: a task that was returned because its environment had just ended is invoked again."""
    while True:
        (report,) = plane.invoke([lease], timeout)
        if isinstance(report, Outcome):
            return report


def plain(data: bytes, paths: Mapping[str, str], patterns: Mapping[str, str] = STACK) -> str:
    """A document or log with `paths` as they are there, and without what may differ by `patterns`."""
    text = data.decode(errors="surrogateescape")
    for path, there in paths.items():
        text = text.replace(path, there)
    for pattern, word in patterns.items():
        text = re.sub(pattern, word, text)
    return text


def rows(column: str) -> Iterator[str]:
    """The test that each row of the page names, of those that have something in this column."""
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE):
        head, _, *lines = [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()]
        yield from (line[-1].strip("`") for line in lines if column in head and line[head.index(column)])


def is_compared(test: str) -> bool | None:
    """Whether a behaviour or way to begin that the page names is compared; None where it names another test."""
    found = re.fullmatch(r"(parity|init)\[(\w+)\]", test)
    if found is None:
        return None
    return found[2] in (BEHAVIOURS if found[1] == "parity" else INITS)

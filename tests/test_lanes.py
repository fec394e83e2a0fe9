"""A test that says how fast something must be stands in a lane of its own, where nothing else keeps the processors busy."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LANES_OF_THEIR_OWN = {"docker", "kubernetes", "chaos"}
UPPER_BOUND = re.compile(r"assert .*(monotonic\(\) - \w+|\btook|\belapsed) <")


def by_the_clock() -> list[tuple[str, bool]]:
    """Each test that asserts an upper bound of a time, and whether it is marked."""
    found = []
    for file in [*(ROOT / "tests").rglob("test_*.py"), *ROOT.glob("plugins/*/tests/test_*.py")]:
        if LANES_OF_THEIR_OWN & set(file.relative_to(ROOT).parts) or file == Path(__file__):
            continue
        lines = file.read_text().splitlines(keepends=True)
        for node in ast.walk(ast.parse("".join(lines))):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            if UPPER_BOUND.search("".join(lines[node.lineno - 1 : node.end_lineno])):
                marks = [ast.unparse(each) for each in node.decorator_list]
                found.append((f"{file.name}::{node.name}", "pytest.mark.timing" in marks))
    return found


def test_what_asserts_an_upper_bound_of_a_time_is_marked_timing() -> None:
    found = by_the_clock()
    assert found
    assert [name for name, is_marked in found if not is_marked] == []

"""Every row of docs/lambda.md names a test, and it is there."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHORT = {
    "parity": "parity/test_parity.py::test_as_on_the_emulator",
    "init": "parity/test_parity.py::test_initialising_as_on_the_emulator",
}


def test_every_row_of_the_page_names_a_test_that_is_there() -> None:
    rows = [line for line in (ROOT / "docs" / "lambda.md").read_text().splitlines() if line.startswith("| ")]
    named = {row: re.search(r"`([^`]+)` \|$", row) for row in rows if _is_in_a_table_with_tests(row, rows)}
    listing = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/parity/test_parity.py", "tests/runtime"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    there = set(listing.split("\n")) | {line.partition("[")[0] for line in listing.split("\n")}
    assert len(named) > 40
    for row, found in named.items():
        assert found is not None, row
        name, bracket, rest = found[1].partition("[")
        assert f"tests/{SHORT.get(name, name)}{bracket}{rest}" in there, row


def _is_in_a_table_with_tests(row: str, rows: list[str]) -> bool:
    above = [line for line in rows[: rows.index(row)] if line.startswith("| ---")]
    heads = [rows[number - 1] for number, line in enumerate(rows) if line.startswith("| ---")]
    is_body = not row.startswith("| ---") and row not in heads
    return is_body and bool(above) and heads[len(above) - 1].endswith("| test |")

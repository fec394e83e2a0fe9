"""docs/observability.md has every attribute that spans have, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
_NAME = r"(?:htcgrid|messaging|faas|error)\.[a-z_.]+"


def test_the_page_has_the_attributes_of_spans() -> None:
    code = "".join(file.read_text() for file in (ROOT / "plugins/otel/htcgrid_otel").glob("*.py"))
    used = set(re.findall(rf'"({_NAME})"', code)) - {"htcgrid.otel"}  # the logger
    page = (ROOT / "docs/observability.md").read_text()
    assert set(re.findall(rf"^\| `({_NAME})` \|", page, re.MULTILINE)) == used

"""The page in a real browser, where there is one."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from made_results import BEGAN, result

from htcgrid.report.advice import Limits
from htcgrid.report.figures import Figures
from htcgrid.report.page import Report, page_of
from htcgrid.spi import FailureKind

if TYPE_CHECKING:
    from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def console(page: str, folder: Path) -> list[str]:
    """What a browser says of the page: a request that its policy forbids is an error there."""
    assert CHROMIUM is not None
    (folder / "page.html").write_text(page, encoding="utf-8")
    flags = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder / 'user'}",
    )
    command = [CHROMIUM, *flags, "--dump-dom", (folder / "page.html").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
    assert "</main>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_a_browser_has_no_complaint_and_is_stopped_from_any_request(tmp_path: Path) -> None:
    results = [result(n, at=n, failure=FailureKind.EXIT if n % 9 == 0 else None) for n in range(60)]
    page = page_of(Report("results.db", BEGAN, Figures.of(results), Limits(512, 30)))
    assert console(page, tmp_path) == []
    for evil in ('<img src="http://127.0.0.1:9/x.png">', "<script>1</script>", '<p style="color:red">a</p>'):
        assert console(page.replace("</main>", f"{evil}</main>"), tmp_path) != [], evil

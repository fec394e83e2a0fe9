"""What the page says, and what it never does."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest
from made_results import BEGAN, result

from htcgrid.report.advice import Limits
from htcgrid.report.figures import Figures
from htcgrid.report.manifest_lines import Runs
from htcgrid.report.page import Report, page_of
from htcgrid.spi import FailureKind, Result

EVIL = "<script>alert('x')</script><img src=x onerror=\"y\">&amp;\x1b[31m\ud800"
VOID = {"meta", "link", "br", "img", "line", "rect"}


class Page(HTMLParser):
    """The elements of a page, each closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def html(*results: Result, limits: Limits | None = None, runs: Runs | None = None) -> str:
    return page_of(Report("results.db", BEGAN, Figures.of(results), limits or Limits(), runs or Runs()))


def evil_page() -> Page:
    manifest = json.dumps(
        {
            "command": EVIL,
            "function": {"handler": EVIL, "memory": 512, "timeout": 3},
            "plane": {"name": EVIL, "image": EVIL},
            "failed": {EVIL: EVIL},
            "usage": {"dollars": 1.5, "basis": EVIL, "requests": {EVIL: 3}},
        }
    )
    failed = {"failure": FailureKind.HANDLER_ERROR, "message": EVIL, "log": EVIL.encode("utf-8", "surrogatepass")}
    results = [result(n, task_id=f"{EVIL}{n}", environment=EVIL, attempt=2, **failed) for n in range(3)]  # type: ignore[arg-type]
    page = page_of(
        Report(EVIL, BEGAN, Figures.of([*results, result(9, environment=EVIL)]), Limits(), Runs.of([manifest.encode()]))
    )
    page.encode()  # no lone surrogate is left
    return Page(page)


def test_what_users_wrote_stays_text_wherever_it_is_shown() -> None:
    page = evil_page()
    assert page.named("script") == []
    assert page.named("img") == []
    assert [name for _, attributes in page.tags for name in attributes if name.startswith("on")] == []
    words = "".join(page.words)
    assert words.count("<script>alert('x')</script>") > 10
    assert "\x1b" not in words


def test_the_page_has_a_policy_that_allows_its_own_style_alone_and_names_no_address() -> None:
    page = evil_page()
    [policy] = [each["content"] for each in page.named("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    outside = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in {"href", "src", "action", "style", "srcset"} and not (value or "").startswith(("#", "data:,"))
    ]
    assert outside == []


def test_every_chart_has_a_description_and_a_table_behind_it() -> None:
    page = Page(html(*(result(n, at=n) for n in range(20)), limits=Limits(512, 30)))
    charts = page.named("svg")
    assert len(charts) == 4
    ids = {attributes.get("id") for _, attributes in page.tags}
    for chart in charts:
        assert chart["role"] == "img"
        assert set((chart["aria-labelledby"] or "").split()) <= ids
    assert len(page.named("details")) == 4
    assert all(cell.get("scope") in {"col", "row"} for cell in page.named("th"))
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == "h1"
    assert headings.count("h1") == 1


def test_ids_of_a_page_are_unique_and_every_link_leads_to_one() -> None:
    page = Page(html(*(result(n, at=n) for n in range(20))))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {(each["href"] or "")[1:] for each in page.named("a")} <= set(ids)


def test_no_results_are_a_page_that_says_so() -> None:
    text = html()
    Page(text)
    assert "There are no results yet." in text


def test_a_sink_that_lists_failures_alone_has_a_page_that_claims_nothing_of_successes() -> None:
    failed = Figures.of([result(1, failure=FailureKind.EXIT)])
    text = page_of(Report("bucket", BEGAN, failed, Limits(), failures_only=True))
    Page(text)
    assert "This sink lists only its failures" in text
    assert "<dt>Succeeded</dt>" not in text


def test_tasks_that_never_ran_do_not_stretch_the_time() -> None:
    figures = Figures.of([result(1, at=-BEGAN, duration_ms=0, failure=FailureKind.INVALID_EVENT), result(2, at=5)])
    assert figures.count == 2
    assert figures.seconds == pytest.approx(0.01, abs=1e-6)


def test_results_without_environments_have_no_timeline_and_the_page_says_why() -> None:
    failed = result(2, environment="seen", failure=FailureKind.EXIT)
    text = html(result(1, environment=""), failed)
    assert "1 results do not say which environment ran them (the jsonl sink keeps that of failures alone)" in text
    assert "timeline-chart" not in text


def test_a_manifest_of_another_version_or_cut_off_is_read_as_far_as_it_goes() -> None:
    lines = [b'{"function": 3, "plane": [], "failed": "no", "usage": null}', b"[]", b'{"comm']
    text = html(result(1), runs=Runs.of(lines))
    Page(text)
    assert "2 lines of the manifest could not be read." in text

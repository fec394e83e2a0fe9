"""The page of a run: which sections it has, and what each says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from htcgrid.failures.groups import last_lines
from htcgrid.report import drawn
from htcgrid.report.advice import Limits, advice
from htcgrid.report.figures import Figures, Slow
from htcgrid.report.html import Markup, joined, listed, page, paragraph, preformatted, section, table, text, tiles
from htcgrid.report.manifest_lines import Runs
from htcgrid.report.manifest_lines import table as of_table
from htcgrid.report.refresh import SCRIPT
from htcgrid.report.units import duration, megabytes, moment, shortened

_GROUPS = 25
_MESSAGE = 1000
_LINE = 300
_ID = 120


@dataclass(frozen=True, slots=True)
class Report:
    """All that the page is made of."""

    name: str
    """Of the results, as the user knows them."""
    made: float
    figures: Figures
    limits: Limits
    runs: Runs = field(default_factory=Runs)
    failures_only: bool = False
    """Whether the sink could list its failures alone."""
    retried: int | None = None
    """How many attempts were followed by another one; None where it must be computed from the attempts of the results."""


def page_of(report: Report) -> str:
    sections = (
        ("summary", "Summary", _summary(report)),
        ("advice", "Advice", _advice(report.figures, report.limits)),
        ("runs", "What ran", _runs(report.runs)),
        *_of_figures(report),
        ("cost", "Cost", _cost(report)),
    )
    title = f"htcgrid report of {shortened(report.name, 100)}"
    return page(title, [(name, label) for name, label, _ in sections], joined(*(part for _, _, part in sections)))


def live_page_of(report: Report, now: Markup) -> str:
    """The page of what goes on: `now` first, then the figures so far; it fetches itself again."""
    sections = (
        ("now", "Now", now),
        ("summary", "Summary", _summary(report)),
        *_of_figures(report),
    )
    title = f"htcgrid: {shortened(report.name, 100)}"
    contents = [(name, label) for name, label, _ in sections]
    return page(title, contents, joined(*(part for _, _, part in sections)), SCRIPT)


def _of_figures(report: Report) -> Sequence[tuple[str, str, Markup]]:
    """The sections that both pages have: name, label and content."""
    figures, limits = report.figures, report.limits
    return (
        ("failures", "Failures", _failures(figures)),
        ("rate", "Rate", drawn.rate(figures)),
        ("environments", "Environments", drawn.environments(figures)),
        ("durations", "Duration", drawn.durations(figures, limits)),
        ("memory", "Memory", drawn.memory(figures, limits)),
        ("slowest", "Slowest tasks", _slowest(figures)),
        ("retries", "Retries", _retries(figures)),
    )


def _summary(report: Report) -> Markup:
    figures = report.figures
    rate = f"{figures.count / figures.seconds:,.0f} tasks/s" if figures.seconds else "-"
    pairs: list[tuple[str, object]] = [
        ("Succeeded", f"{figures.succeeded:,}"),
        ("Failed", f"{figures.failed:,}"),
        ("Tried again", f"{figures.retried if report.retried is None else report.retried:,}"),
        ("First start to last end", duration(figures.seconds * 1000)),
        ("Rate", rate),
        ("Median duration", duration(figures.durations.percentile(0.5))),
        ("Most memory", megabytes(figures.memory.highest) if figures.memory.highest else "not measured"),
        ("Billed", duration(figures.billed_ms)),
    ]
    parts: list[str] = []
    if report.failures_only:
        parts.append(
            paragraph("This sink lists only its failures: all figures below are of failures, and not of successes.")
        )
        pairs = pairs[1:]
    elif not figures.count:
        parts.append(paragraph("There are no results yet."))
    began = moment(figures.began) if figures.ended else "-"
    times = f"Made {moment(report.made)}. The first task began {began}, the last ended {moment(figures.ended)}."
    return section("summary", "Summary", *parts, tiles(pairs), paragraph(times, "dim"))


def _advice(figures: Figures, limits: Limits) -> Markup:
    given = advice(figures, limits)
    return section("advice", "Advice", listed(given) if given else paragraph("There is nothing to advise."))


def _runs(runs: Runs) -> Markup:
    name, title = "runs", "What ran, and where"
    if not runs.documents:
        return section(name, title, paragraph("There is no manifest beside these results, so it is not known."))
    last = runs.documents[-1]
    function, plane = of_table(last, "function"), of_table(last, "plane")
    labelled = [
        ("Handler", function.get("handler")),
        ("Function", function.get("name")),
        ("Runtime", function.get("runtime") or f"Python {last.get('python')}"),
        ("Memory, timeout", f"{function.get('memory')} MB, {function.get('timeout')} s"),
        ("Plane", f"{plane.get('name')} ({plane.get('plugin')})"),
        ("Image", plane.get("image")),
        ("Machine", last.get("machine")),
        ("htcgrid", last.get("htcgrid")),
        ("Code", last.get("code_sha256")),
        ("Config", last.get("config_sha256")),
        *((f"{each.capitalize()} file", path) for each, path in of_table(last, "files").items() if path),
    ]
    notes = [paragraph(f"{runs.damaged:,} lines of the manifest could not be read.")] if runs.damaged else []
    rows = [_run(document) for document in reversed(runs.documents)]
    shown = "all" if runs.count == len(rows) else f"the last {len(rows)} of {runs.count:,}"
    heads = ("Began", "Ended", "Command", "Exit code", "Plane", "Succeeded", "Failed", "Had a result", "Billed")
    return section(
        name,
        title,
        *notes,
        table(
            "The last run", ("What", "Value"), [(key, shortened(str(value), _LINE)) for key, value in labelled if value]
        ),
        table(f"Runs into these results, {shown}; the last one first", heads, rows),
    )


def _run(document: Mapping[str, Any]) -> tuple[object, ...]:
    failed = of_table(document, "failed")
    kinds = ", ".join(f"{kind} {count}" for kind, count in failed.items()) or "0"
    billed = document.get("billed_ms")
    cells = (
        document.get("began"),
        document.get("ended"),
        document.get("command"),
        document.get("exit_code"),
        of_table(document, "plane").get("name"),
        document.get("succeeded"),
        kinds,
        document.get("already_stored"),
        duration(billed) if isinstance(billed, int | float) else "-",
    )
    return tuple(shortened(str(cell), _LINE) for cell in cells)


def _failures(figures: Figures) -> Markup:
    name, title = "failures", "Failures"
    if not figures.failed:
        return section(name, title, paragraph("No result is a failure."))
    kinds = [(kind, f"{count:,}", f"{count / figures.count:.2%}") for kind, count in figures.kinds.most_common()]
    parts: list[str] = [table("Failures by kind", ("Kind", "Tasks", "Of all results"), kinds)]
    groups = figures.groups.ordered()
    for number, group in enumerate(groups[:_GROUPS], 1):
        key = group.key
        heading = f"{number}. {group.count:,} x {key.kind}" + (f": {key.error_type}" if key.error_type else "")
        place = f", at {key.place}" if key.place else ""
        example = f"Such as task {shortened(group.example_id, _ID)}{place}:"
        parts += [
            f"<h3>{text(shortened(heading, _LINE))}</h3>",
            paragraph(example),
            preformatted([shortened(group.example_message, _MESSAGE)]),
        ]
        if group.hint:
            parts.append(paragraph(group.hint))
        if log := last_lines(group.log_tail):
            parts += [paragraph("It printed:", "dim"), preformatted([shortened(line, _LINE) for line in log])]
    if left := groups[_GROUPS:]:
        parts.append(paragraph(f"And {sum(each.count for each in left):,} failures in {len(left):,} more groups."))
    return section(name, title, *parts)


def _slowest(figures: Figures) -> Markup:
    rows = [_slow(each) for each in figures.slowest.ordered()]
    return section("slowest", "Slowest tasks", _tasks("The slowest tasks", rows))


def _retries(figures: Figures) -> Markup:
    if not figures.retried:
        return section("retries", "Retries", paragraph("Every result came with the first attempt."))
    rows = [(f"{each}" if each < 100 else "100 or more", f"{n:,}") for each, n in sorted(figures.attempts.items())]
    return section(
        "retries",
        "Retries",
        table("Results by the number of attempts", ("Attempts", "Results"), rows),
        _tasks("Most attempts", [_slow(each) for each in figures.most_tried.ordered()]),
    )


def _tasks(caption: str, rows: list[tuple[object, ...]]) -> Markup:
    if not rows:
        return paragraph("There are none.")
    return table(caption, ("Task", "Duration", "Attempt", "Started", "Memory", "Outcome", "Environment"), rows)


def _slow(task: Slow) -> tuple[object, ...]:
    memory = megabytes(task.memory_mb) if task.memory_mb else "-"
    return (
        shortened(task.task_id, _ID),
        duration(task.duration_ms),
        task.attempt,
        moment(task.started),
        memory,
        task.failure or "succeeded",
        shortened(task.environment, _ID) or "-",
    )


def _cost(report: Report) -> Markup:
    figures, runs = report.figures, report.runs
    rows: list[tuple[object, ...]] = [("Billed time of these results", duration(figures.billed_ms))]
    if report.limits.memory_mb:
        gigabyte_seconds = figures.billed_ms / 1000 * report.limits.memory_mb / 1024
        rows.append(("Billed time x memory limit", f"{gigabyte_seconds:,.3f} GB-seconds"))
    rows += [(f"Requests to {service}", f"{count:,}") for service, count in sorted(runs.requests.items())]
    if runs.dollars is not None:
        rows.append(("Metered cost of all runs", f"${runs.dollars:,.6f}"))
        rows.append(("Basis of the cost", "; ".join(runs.basis)))
    note = "" if runs.dollars is not None else paragraph("No plugin of these runs has reported a price.", "dim")
    return section("cost", "Cost", table("Cost in figures", ("What", "Value"), rows), note)

"""The sections of the page that have a chart: rate, environments, durations, memory."""

import math

from htcgrid.report import charts
from htcgrid.report.advice import Limits
from htcgrid.report.charts import Column, Mark, Row
from htcgrid.report.environments import MOST_DRAWN, Life
from htcgrid.report.figures import Figures
from htcgrid.report.html import Markup, figure, paragraph, section, table
from htcgrid.report.scales import Clock
from htcgrid.report.units import clock_time, duration, megabytes, moment, shortened

_ROWS_DRAWN = 60
_LABELS = 6


def rate(figures: Figures) -> Markup:
    clock = figures.clock
    if not clock.bins:
        return section("rate", "Rate over time", paragraph("No task was run, so there is no rate."))
    data, rows = [], []
    for place in clock.bins:
        good, bad = (each.by_bin.get(place, 0) for each in (figures.succeeded_by_time, figures.failed_by_time))
        label = _label(clock, place)
        tooltip = f"{label}: {good:,.0f} succeeded, {bad:,.0f} failed"
        data.append(Column(label, (("ok", good / clock.width), ("bad", bad / clock.width)), tooltip))
        rows.append((label, f"{good:,.0f}", f"{bad:,.0f}", f"{(good + bad) / clock.width:,.1f}"))
    caption = (
        f"Tasks that ended, a second, in steps of {duration(clock.width * 1000)}; failed ones on top, in red (UTC)"
    )
    described = f"The most is {max((row[3] for row in rows), key=_number)} tasks a second."
    return section(
        "rate",
        "Rate over time",
        figure(
            charts.columns("rate-chart", described, data, unit="tasks/s"),
            caption,
            table(caption, ("From", "Succeeded", "Failed", "Tasks/s"), rows),
        ),
    )


def environments(figures: Figures) -> Markup:
    found = figures.environments
    name, title = "environments", "Environments"
    if not found.is_known:
        message = (
            f"{found.unnamed:,} results do not say which environment ran them (the jsonl sink keeps that of failures "
            "alone), so there is no timeline. A sqlite sink keeps it."
            if found.unnamed
            else "No result says which environment ran it."
        )
        return section(name, title, paragraph(message))
    lives = found.ordered()
    drawn = [life for life in lives if life.by_time is not None][:_ROWS_DRAWN]
    clock = figures.clock
    steps = len(clock.bins)
    moments = [clock.bins[place * steps // _LABELS] for place in range(min(_LABELS, steps))]
    svg = charts.timeline(
        "timeline-chart",
        f"{len(lives):,} environments; the table behind the chart has their figures.",
        [_row(life, clock, place) for place, life in enumerate(drawn, 1)],
        steps,
        [_label(clock, place) for place in moments],
    )
    caption = f"Each row is an environment from its first start to its last end, {_shown(len(drawn), len(lives))}"
    heads = ("Number", "Environment", "First start", "Last end", "Tasks", "Failed", "Busy", "Idle", "Last task")
    rows = [_cells(life, place) for place, life in enumerate(lives[:MOST_DRAWN], 1)]
    more = (
        f" {found.uncounted:,} more results are of environments past the first {len(lives):,}."
        if found.uncounted
        else ""
    )
    return section(
        name,
        title,
        paragraph(
            f"{len(lives):,} environments ran tasks; they were idle {found.idle_share:.0%} of the time between first start "
            f"and last end. A strong colour is a busy time, a pale one an idle time; a red end follows a failure.{more}"
        ),
        figure(svg, caption, table(f"Environments, {_shown(len(rows), len(lives))}", heads, rows)),
    )


def _row(life: Life, clock: Clock, place: int) -> Row:
    by_bin = life.by_time.by_bin if life.by_time is not None else {}
    shares = [(at - clock.bins.start, min(1.0, busy / clock.width)) for at, busy in sorted(by_bin.items()) if busy > 0]
    tooltip = f"{place}: {life.name}: {life.tasks:,} tasks, {life.failed:,} failed, idle {life.idle_share:.0%}"
    began, ended = (each / clock.width - clock.bins.start for each in (life.began, life.ended))
    return Row(f"{place}", shares, began, ended, bool(life.last_failure), tooltip)


def _cells(life: Life, place: int) -> tuple[object, ...]:
    return (
        place,
        shortened(life.name, 80),
        moment(life.began),
        moment(life.ended),
        f"{life.tasks:,}",
        f"{life.failed:,}",
        duration(life.busy * 1000),
        f"{life.idle_share:.0%}",
        life.last_failure or "succeeded",
    )


def durations(figures: Figures, limits: Limits) -> Markup:
    found = figures.durations.columns()
    name, title = "durations", "Duration"
    if not found:
        return section(name, title, paragraph("No task was run."))
    data = [
        Column(duration(low), (("ok", count),), f"{duration(low)} to {duration(high)}: {count:,}")
        for low, high, count in found
    ]
    caption = "Tasks by the handler's own time, on a logarithmic scale"
    percentiles = ", ".join(f"p{share} {duration(figures.durations.percentile(share / 100))}" for share in (50, 90, 99))
    longest = duration(figures.durations.highest)
    limit = (
        f"; the timeout is {duration(limits.timeout * 1000)}" if limits.timeout else "; the timeout is not known here"
    )
    marks: list[Mark] = []
    if limits.timeout and limits.timeout * 1000 <= found[-1][1] * 10:
        data, marks = _with_room(data, found, limits.timeout * 1000)
    rows = [(duration(low), duration(high), f"{count:,}") for low, high, count in found]
    return section(
        name,
        title,
        paragraph(f"{percentiles}; the longest {longest}{limit}."),
        figure(
            charts.columns("duration-chart", f"{percentiles}, the longest {longest}.", data, unit="tasks", marks=marks),
            caption,
            table(caption, ("From", "To", "Tasks"), rows),
        ),
        paragraph(
            "Queue wait is not known: results say when a task began, and not when it was put into the queue.", "dim"
        ),
    )


def _with_room(
    data: list[Column], found: list[tuple[float, float, int]], limit: float
) -> tuple[list[Column], list[Mark]]:
    """The columns with empty ones up to the limit, and the mark where it is."""
    first, end = found[0][0], found[-1][1]
    room = list(data)
    while end < limit:
        room.append(Column(duration(end), (), ""))
        end *= 10**0.25
    quarters = max(0.0, _quarters(limit) - _quarters(first))
    return room, [Mark(quarters / len(room), f"timeout {duration(limit)}")]


def _quarters(value: float) -> float:
    return math.log10(value) * 4


def memory(figures: Figures, limits: Limits) -> Markup:
    found = figures.memory.columns(limits.memory_mb)
    name, title = "memory", "Memory"
    if not found:
        return section(name, title, paragraph("The plane did not measure memory."))
    most = megabytes(figures.memory.highest)
    limit = f"; the limit is {megabytes(limits.memory_mb)}" if limits.memory_mb else "; the limit is not known here"
    data = [Column(f"{low:,}", (("ok", count),), f"{low:,} to {high:,} MB: {count:,}") for low, high, count in found]
    marks = []
    span = found[-1][1] + 1 - found[0][0]
    if limits.memory_mb:
        marks = [Mark(limits.memory_mb / span, f"limit {megabytes(limits.memory_mb)}")]
    caption = "Tasks by the most memory that their environment had used (MB)"
    share = f" ({figures.memory.highest / limits.memory_mb:.0%} of it)" if limits.memory_mb else ""
    return section(
        name,
        title,
        paragraph(f"The most used is {most}{limit}{share}."),
        figure(
            charts.columns("memory-chart", f"The most used is {most}{limit}.", data, unit="tasks", marks=marks),
            caption,
            table(caption, ("From MB", "To MB", "Tasks"), [(f"{a:,}", f"{b:,}", f"{c:,}") for a, b, c in found]),
        ),
    )


def _label(clock: Clock, place: int) -> str:
    return clock_time(place * clock.width, len(clock.bins) * clock.width)


def _shown(shown: int, of: int) -> str:
    return f"all {of:,}" if shown == of else f"the first {shown:,} of {of:,}"


def _number(text: str) -> float:
    return float(text.replace(",", ""))

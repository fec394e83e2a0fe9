"""Charts as SVG in the page's own colours. Every text is escaped here; numbers are made here."""

from collections.abc import Sequence
from dataclasses import dataclass

from htcgrid.report.html import text

WIDTH, HEIGHT = 720, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 28, 24
_ROW = 14
_LABELS = 6


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its parts from the bottom up, each with the style class that colours it."""

    label: str
    parts: Sequence[tuple[str, float]]
    tooltip: str
    """What a pointer over it shows."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at a limit, as a share of the width."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """One environment: how busy it was bin by bin, from 0 to 1, and the places where it began and ended."""

    label: str
    shares: Sequence[tuple[int, float]]
    began: float
    ended: float
    failed: bool
    tooltip: str


def columns(name: str, described: str, data: Sequence[Column], *, unit: str, marks: Sequence[Mark] = ()) -> str:
    """Columns side by side with an axis from 0."""
    plot_width, plot_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    highest = max((sum(value for _, value in column.parts) for column in data), default=0) or 1
    step = plot_width / max(1, len(data))
    drawn = [_axis(highest, unit)]
    for place, column in enumerate(data):
        left, bottom = _LEFT + place * step, float(HEIGHT - _BOTTOM)
        bars = []
        for style, value in column.parts:
            height = value / highest * plot_height
            if value:
                height = max(height, 1.0)  # one failure among a million must be visible
                bars.append(_rectangle(style, left, bottom - height, max(step - (step > 4), 0.5), height))
                bottom -= height
        if bars:
            drawn.append(f"<g><title>{text(column.tooltip)}</title>{''.join(bars)}</g>")
    every = max(1, -(-len(data) // _LABELS))
    drawn += [
        f'<text x="{_LEFT + place * step:.1f}" y="{HEIGHT - _BOTTOM + 16}">{text(data[place].label)}</text>'
        for place in range(0, len(data), every)
    ]
    drawn += [_mark(mark, plot_width) for mark in marks]
    return _svg(name, described, HEIGHT, drawn)


def timeline(name: str, described: str, rows: Sequence[Row], bins: int, labels: Sequence[str]) -> str:
    """A row for each environment; the fuller a bin, the more solid its colour."""
    left, step = _LEFT, (WIDTH - _LEFT - _RIGHT) / max(1, bins)
    height = len(rows) * _ROW + _TOP + _BOTTOM
    drawn = []
    for place, row in enumerate(rows):
        top = _TOP + place * _ROW
        begin, end = left + row.began * step, left + row.ended * step
        boxes = [_rectangle("life", begin, top + 2, max(end - begin, 1), _ROW - 4)]
        boxes += [
            _rectangle(f"busy b{min(4, int(share * 4) + 1)}", left + at * step, top + 2, step, _ROW - 4)
            for at, share in row.shares
        ]
        boxes.append(_rectangle("edge", begin, top, 1, _ROW - 1))
        boxes.append(_rectangle("edge lost" if row.failed else "edge", end, top, 2 if row.failed else 1, _ROW - 1))
        label = f'<text x="{left - 6}" y="{top + _ROW - 4}" class="end">{text(row.label)}</text>'
        drawn.append(f"<g><title>{text(row.tooltip)}</title>{label}{''.join(boxes)}</g>")
    for place, moment in enumerate(labels):
        at = left + place * (WIDTH - _LEFT - _RIGHT) / max(1, len(labels))
        drawn.append(f'<text x="{at:.1f}" y="{height - _BOTTOM + 16}">{text(moment)}</text>')
    return _svg(name, described, height, drawn)


def _svg(name: str, described: str, height: float, drawn: Sequence[str]) -> str:
    # The table has the figures of the chart as text; to a screen reader the chart is one image with a description.
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-labelledby="{name}-t {name}-d">'
        f'<title id="{name}-t">{text(name)}</title><desc id="{name}-d">{text(described)}</desc>{"".join(drawn)}</svg>'
    )


def _axis(highest: float, unit: str) -> str:
    lines = []
    for share in (0.0, 0.5, 1.0):
        y = HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)
        value = highest * share
        number = f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
        lines.append(
            f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="end" x="{_LEFT - 6}" y="{y + 4:.1f}">{text(number)}</text>'
        )
    return "".join(lines) + f'<text class="end" x="{_LEFT - 6}" y="14">{text(unit)}</text>'


def _mark(mark: Mark, plot_width: float) -> str:
    x = _LEFT + min(1.0, max(0.0, mark.at)) * plot_width
    return (
        f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}"/>'
        f'<text class="end limit-text" x="{x - 4:.1f}" y="{_TOP + 10}">{text(mark.label)}</text>'
    )


def _rectangle(style: str, x: float, y: float, width: float, height: float) -> str:
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"/>'

"""The elements of a page. All texts are escaped here, in one place; `Markup` is text that is escaped already."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import NewType

from htcgrid.runtime.printable import printable

Markup = NewType("Markup", str)

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#57606a;--line:#d0d7de;--card:#f6f8fa;--ok:#1f6feb;--bad:#c62828;--limit:#8a4b00}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9da7b3;--line:#30363d;--card:#161b22;--ok:#58a6ff;--bad:#ff7b72;--limit:#f0a848}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:60rem;background:var(--bg);color:var(--fg);font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.6rem;margin:.5rem 0}h2{font-size:1.25rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}h3{font-size:1rem;margin:1rem 0 .25rem}
p,ul,dl{margin:.5rem 0}nav ul{display:flex;flex-wrap:wrap;gap:.25rem 1rem;padding:0;list-style:none}a{color:var(--ok)}
:focus-visible{outline:3px solid var(--ok);outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{position:static}
.dim,figcaption{color:var(--dim)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(9rem,1fr));gap:.5rem}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.5rem .75rem}
.tiles dt{color:var(--dim);font-size:.875rem}.tiles dd{margin:0;font-size:1.25rem;font-weight:600}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.875rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--dim)}th,td{text-align:left;padding:.25rem .5rem;border-bottom:1px solid var(--line);vertical-align:top;overflow-wrap:break-word}td{min-width:4rem}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:.5rem;white-space:pre-wrap;font-size:.8125rem}
figure{margin:.5rem 0}svg{width:100%;min-width:34rem;height:auto;display:block}svg text{fill:var(--fg);font:11px system-ui,sans-serif}svg .end{text-anchor:end}
.ok,.busy{fill:var(--ok)}.bad{fill:var(--bad)}.grid{stroke:var(--line)}.limit{stroke:var(--limit);stroke-dasharray:4 3;stroke-width:2}svg .limit-text{fill:var(--limit)}
.life{fill:var(--line)}.edge{fill:var(--fg)}.lost{fill:var(--bad)}.b1{opacity:.3}.b2{opacity:.55}.b3{opacity:.8}
@media (max-width:40rem){td{min-width:7rem}}
summary{cursor:pointer;padding:.25rem 0}
@media print{:root{--bg:#fff;--fg:#000;--dim:#444;--line:#bbb;--card:#fff;--ok:#1f6feb;--bad:#c62828;--limit:#8a4b00}body{max-width:none;padding:0}nav,.skip{display:none}.scroll{overflow:visible}svg{min-width:0}figure,tr,.tiles div{break-inside:avoid}*{print-color-adjust:exact}}
"""


def text(value: object) -> Markup:
    """Text, escaped; control characters are shown as `\\u001b`."""
    return Markup(escape(printable(str(value)).encode("utf-8", "replace").decode()))


def joined(*parts: str) -> Markup:
    return Markup("".join(parts))


def table(caption: str, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    """The first cell of a row is its head."""
    head = "".join(f'<th scope="col">{text(each)}</th>' for each in heads)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in rest)}</tr>'
        for first, *rest in rows
    )
    # It can be scrolled on a phone, so it must be possible by keyboard too.
    return Markup(
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(caption)}"><table><caption>{text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(svg: str, caption: str, behind: Markup) -> Markup:
    """A chart with its table behind it."""
    return Markup(
        f'<figure><div class="scroll" role="region" tabindex="0" aria-label="Chart: {text(caption)}">{svg}</div><figcaption>{text(caption)}</figcaption>'
        f"<details><summary>Table: {text(caption)}</summary>{behind}</details></figure>"
    )


def section(name: str, title: str, *parts: str) -> Markup:
    return Markup(
        f'<section aria-labelledby="{name}"><h2 id="{name}" tabindex="-1">{text(title)}</h2>{"".join(parts)}</section>'
    )


def tiles(pairs: Sequence[tuple[str, object]]) -> Markup:
    rows = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return Markup(f'<dl class="tiles">{rows}</dl>')


def listed(lines: Sequence[object]) -> Markup:
    return Markup("<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>")


def paragraph(line: object, style: str = "") -> Markup:
    return Markup(f'<p class="{style}">{text(line)}</p>' if style else f"<p>{text(line)}</p>")


def preformatted(lines: Sequence[str]) -> Markup:
    return Markup("<pre>" + "\n".join(text(line) for line in lines) + "</pre>") if lines else Markup("")


def page(title: str, contents: Sequence[tuple[str, str]], main: Markup, script: str = "") -> str:
    """The whole page. Its policy allows only this style sheet and, where there is one, this script, and loads nothing."""
    policy = f"default-src 'none'; style-src {_source(STYLE)}; img-src data:; base-uri 'none'; form-action 'none'"
    controls = running = ""
    if script:
        policy += f"; script-src {_source(script)}; connect-src 'self'"
        controls = (
            '<p><span id="state" role="status"></span> <button type="button" id="pause" hidden>Pause</button></p>'
        )
        running = f"<script>{script}</script>"
    links = "".join(f'<li><a href="#{name}">{text(label)}</a></li>' for name, label in contents)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="referrer" content="no-referrer">'
        f'<link rel="icon" href="data:,"><title>{text(title)}</title><style>{STYLE}</style></head>'
        f'<body><a class="skip" href="#main">Skip to the figures</a><header><h1>{text(title)}</h1>'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>{controls}</header><main id="main" tabindex="-1">{main}</main>{running}</body></html>\n'
    )


def _source(of: str) -> str:
    """As a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(of.encode()).digest()).decode()}'"

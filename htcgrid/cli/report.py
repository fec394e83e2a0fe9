"""The summary at the end of a run."""

import json
import resource
import sys
from dataclasses import asdict

from htcgrid.agent.statistics import Summary
from htcgrid.config import GridConfig


def print_summary(summary: Summary, grid: GridConfig) -> None:
    """On standard error: text on a terminal, one JSON line elsewhere. Standard output is the results'."""
    memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sink = grid.settings.sink
    where = f"{sink.plugin} {' '.join(f'{key}={value}' for key, value in sink.options.items())}" if sink else ""
    if sys.stderr.isatty():
        text = _text(summary, memory_mb, where)
    else:
        figures = {
            key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(summary).items()
        }
        text = json.dumps({"summary": {**figures, "agent_memory_mb": round(memory_mb, 1), "results": where}})
    print(text, file=sys.stderr, flush=True)


def _text(summary: Summary, memory_mb: float, where: str) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in summary.failures.items())
    rows = [
        ("succeeded", f"{summary.succeeded:,}"),
        ("failed", f"{summary.failed:,}" + (f"  ({kinds})" if kinds else "")),
        ("had a result already", f"{summary.already_stored:,}"),
        ("tried again", f"{summary.retried:,}"),
        ("given back", f"{summary.given_back:,}"),
        ("rate", f"{summary.tasks_per_second:,.0f} tasks/s over {summary.seconds:.1f} s"),
        ("duration", f"p50 {summary.p50_ms:.2f} ms, p90 {summary.p90_ms:.2f} ms, p99 {summary.p99_ms:.2f} ms"),
        ("workers busy", f"{summary.busy_share:.1%}, at most {summary.max_memory_mb} MB each"),
        ("agent memory", f"{memory_mb:.0f} MB"),
        ("results", where),
    ]
    shown = [row for row in rows if row[1] != "0" or row[0] in {"succeeded", "failed"}]
    return "\n".join(f"{name:>22}  {value}" for name, value in shown)

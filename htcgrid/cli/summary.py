"""The summary at the end of a run."""

import json
import platform
import re
import resource
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from htcgrid.agent.statistics import Summary
from htcgrid.cli.failing import Failing
from htcgrid.config import GridConfig
from htcgrid.config_tables import PluginTable
from htcgrid.secret_values import secrets_of
from htcgrid.spi import Plugin, ResultSink


@dataclass(frozen=True, slots=True)
class Bill:
    """The usage of all plugins of a run together."""

    requests: Mapping[str, int]
    """By service."""
    dollars: float | None
    basis: str
    shown: Mapping[str, str]

    @classmethod
    def of(cls, plugins: Sequence[Plugin]) -> "Bill | None":
        """None if no plugin counts its usage."""
        usages = [usage for plugin in plugins if (usage := plugin.usage()) is not None]
        counted = [usage for usage in usages if usage.requests or not usage.shown]
        services: Counter[str] = Counter()
        for usage in counted:
            for name, count in usage.requests.items():
                services[name.partition(".")[0]] += count
        prices = [usage.dollars for usage in counted]
        dollars = None if None in prices else sum(price for price in prices if price is not None)
        basis = "; ".join(dict.fromkeys(usage.basis for usage in counted))
        shown = {name: value for usage in usages for name, value in usage.shown.items()}
        return cls(dict(sorted(services.items())), dollars, basis, shown) if usages else None

    def row(self, tasks: int) -> str:
        """Requests by service, and the price of a million such tasks."""
        if not self.requests:
            return ""
        parts = ", ".join(f"{service} {count:,}" for service, count in self.requests.items())
        if not tasks:
            return parts
        price = "" if self.dollars is None else f"; ${self.dollars / tasks * 1e6:.2f} per million tasks ({self.basis})"
        return f"{parts}: {sum(self.requests.values()) / tasks:.2f} a task{price}"

    def document(self, tasks: int) -> dict[str, Any]:
        """For the JSON line."""
        per_million = None if self.dollars is None or not tasks else round(self.dollars / tasks * 1e6, 4)
        dollars = None if self.dollars is None else round(self.dollars, 8)
        figures = {"requests": dict(self.requests), "dollars": dollars, "dollars_per_million_tasks": per_million}
        return {**figures, "basis": self.basis, **self.shown}


def print_summary(
    summary: Summary,
    grid: GridConfig,
    plugins: Sequence[Plugin],
    failing: Failing | None = None,
    commands: Mapping[str, str] | None = None,
) -> None:
    """Print on standard error, since results may go to standard output: text on a terminal, one JSON line elsewhere."""
    memory_mb = _peak_memory_mb()
    where = _where(grid.settings.sink, plugins)
    bill = Bill.of(plugins)
    if sys.stderr.isatty():
        failures = failing.text(commands or {}) if failing else ""
        text = _text(summary, memory_mb, where, bill) + (f"\nfailures\n{failures}" if failures else "")
    else:
        figures = {
            key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(summary).items()
        }
        used = {"usage": bill.document(summary.finished)} if bill else {}
        found = failing.document(commands or {}) if failing else {}
        text = json.dumps(
            {"summary": {**figures, "agent_memory_mb": round(memory_mb, 1), "results": where, **used, **found}}
        )
    print(text, file=sys.stderr, flush=True)


def _where(sink: PluginTable | None, plugins: Sequence[Plugin]) -> str:
    """The sink's table of the config on one line, without its secrets."""
    if sink is None:
        return ""
    config = next(plugin.config for plugin in plugins if isinstance(plugin, ResultSink))
    secret = {key.partition(".")[0] for key in secrets_of(config)}
    # By the names of fields: a key with an alias is left out, since it may be that of a secret.
    shown = type(config).model_fields.keys() - secret
    return " ".join([sink.plugin, *(f"{key}={value}" for key, value in sink.options.items() if key in shown)])


def _peak_memory_mb() -> float:
    """The most memory that this program has used, in MiB."""
    # /proc first: on Linux, getrusage begins with the peak of the program that started this one.
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) / 1024
    unit = 1 << 20 if platform.system() == "Darwin" else 1024  # macOS counts bytes, others kilobytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _text(summary: Summary, memory_mb: float, where: str, bill: Bill | None) -> str:
    kinds = ", ".join(f"{kind} {count}" for kind, count in summary.failures.items())
    rows = [
        ("succeeded", f"{summary.succeeded:,}"),
        ("failed", f"{summary.failed:,}" + (f"  ({kinds})" if kinds else "")),
        ("had a result already", f"{summary.already_stored:,}"),
        ("tried again", f"{summary.retried:,}"),
        ("returned", f"{summary.returned:,}"),
        ("rate", f"{summary.tasks_per_second:,.0f} tasks/s over {summary.seconds:.1f} s"),
        ("duration", f"p50 {summary.p50_ms:.2f} ms, p90 {summary.p90_ms:.2f} ms, p99 {summary.p99_ms:.2f} ms"),
        ("workers busy", f"{summary.busy_share:.1%}, at most {summary.max_memory_mb} MB each"),
        ("agent memory", f"{memory_mb:.0f} MB"),
        ("results", where),
        *((("requests", bill.row(summary.finished)), *bill.shown.items()) if bill else ()),
    ]
    shown = [row for row in rows if row[1] not in {"0", ""} or row[0] in {"succeeded", "failed"}]
    return "\n".join(f"{name:>22}  {value}" for name, value in shown)

"""What an agent says of itself at its address for Prometheus."""

import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException

_SECONDS = 2.0
_MOST_BYTES = 4 << 20
_SHOWN = 200
_SAMPLE = re.compile(r"^(htcgrid_[a-z_]+)(?:\{([^}]*)\})? ([0-9.eE+-]+)$", re.MULTILINE)
_LABEL = re.compile(r'\w+="([^"]*)"')


@dataclass(frozen=True, slots=True)
class AgentMetrics:
    """Samples by name and the values of their labels: `htcgrid_environments busy`. `error` where it did not answer."""

    address: str
    samples: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    def cells(self) -> tuple[object, ...]:
        """A row of a table with `HEADS`."""
        if self.error:
            return (self.address, self.error, "", "", "", "", "")
        done = sum(value for name, value in self.samples.items() if name.startswith("htcgrid_tasks_total"))
        good = self.samples.get("htcgrid_tasks_total succeeded", 0)
        return (
            self.address,
            "answers",
            f"{done:,.0f}",
            f"{done - good:,.0f}",
            self._shown("htcgrid_slots"),
            self._shown("htcgrid_environments busy") + " busy, " + self._shown("htcgrid_environments idle") + " idle",
            self._shown("htcgrid_leases_held"),
        )

    def _shown(self, name: str) -> str:
        return f"{self.samples[name]:,.0f}" if name in self.samples else "?"


HEADS = ("Agent", "State", "Results", "Failed", "Slots", "Environments", "Leases held")


def metrics_of(address: str) -> AgentMetrics:
    """Reads the metrics of one agent; the address is `HOST:PORT`, or a URL."""
    url = address if address.startswith(("http://", "https://")) else f"http://{address}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - http and https alone, see above
            text = answer.read(_MOST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        return AgentMetrics(address, error=f"does not answer: {getattr(error, 'reason', error)}")
    except HTTPException as error:
        return AgentMetrics(address, error=f"is not the address of an agent's metrics: {repr(error)[:_SHOWN]}")
    samples = {
        " ".join([found[1], *_LABEL.findall(found[2] or "")]): float(found[3]) for found in _SAMPLE.finditer(text)
    }
    return AgentMetrics(address, samples)

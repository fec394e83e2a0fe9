"""The manifests of runs. Missing or wrong values are accepted: a manifest may be of another version, or cut off."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from htcgrid.runtime.parsing import parsed

MOST_RUNS = 50


@dataclass(slots=True)
class Runs:
    """The runs that wrote into one place; the last `MOST_RUNS` of them one by one."""

    documents: list[Mapping[str, Any]] = field(default_factory=list)
    count: int = 0
    damaged: int = 0
    dollars: float | None = None
    basis: list[str] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, lines: Iterable[bytes]) -> "Runs":
        runs = cls()
        for line in lines:
            try:
                document = parsed(line)
            except ValueError:
                document = None
            if isinstance(document, dict):
                runs._add(document)
            else:
                runs.damaged += 1
        return runs

    def _add(self, document: Mapping[str, Any]) -> None:
        self.count += 1
        self.documents = [*self.documents, document][-MOST_RUNS:]
        usage = table(document, "usage")
        if isinstance(dollars := usage.get("dollars"), int | float):
            self.dollars = (self.dollars or 0.0) + dollars
        if (basis := usage.get("basis")) and str(basis) not in self.basis:
            self.basis.append(str(basis)[:500])
        for name, count in table(usage, "requests").items():
            if isinstance(count, int):
                self.requests[str(name)] = self.requests.get(str(name), 0) + count

    def limit(self, key: str) -> float | None:
        """A number of the last run's function: `memory` in MiB, `timeout` in seconds."""
        value = table(self.documents[-1], "function").get(key) if self.documents else None
        return float(value) if isinstance(value, int | float) else None


def table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}

"""Write the tables of docs/observability.md from the code; `make reference` runs it.

python docs/reference/generate_observability.py            # write the tables
python docs/reference/generate_observability.py --check    # exit code 1 if the page differs from the code
"""

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from htcgrid import spi
from htcgrid.logs.line_format import FIELDS
from htcgrid.spi import Observation

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "observability.md"


def observations() -> str:
    """Every kind of observation with its fields."""
    rows = ["| Observation | Fields, besides `time` | What has happened |", "| --- | --- | --- |"]
    for kind in kinds():
        names = ", ".join(f"`{field.name}`" for field in fields(kind) if field.name != "time")
        rows.append(f"| `{kind.__name__}` | {names} | {' '.join((inspect.getdoc(kind) or '').split())} |")
    return "\n".join(rows)


def kinds() -> list[type[Observation]]:
    """In the order of the file."""
    found = {each for each in vars(spi).values() if isinstance(each, type) and issubclass(each, Observation)}
    order = re.findall(r"^class (\w+)", inspect.getsource(inspect.getmodule(Observation) or spi), re.MULTILINE)
    return sorted(found - {Observation}, key=lambda kind: order.index(kind.__name__))


def metrics() -> str:
    """Every metric of the plugin `prometheus`."""
    catalogue = importlib.import_module("htcgrid_prometheus.catalogue")
    rows = ["| Metric | Type | Unit | Labels | Meaning |", "| --- | --- | --- | --- | --- |"]
    for metric in catalogue.METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.shown}` | {metric.kind} | {metric.unit} | {labels} | {metric.text} |")
    return "\n".join(rows)


def log_fields() -> str:
    """Every key of a line of the handler logs."""
    rows = ["| Field | Meaning |", "| --- | --- |"]
    return "\n".join([*rows, *(f"| `{name}` | {text} |" for name, text in FIELDS.items())])


TABLES: Mapping[str, Callable[[], str]] = {
    "observations": observations,
    "metrics": metrics,
    "log fields": log_fields,
}


def page(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with its tables as the code has them."""
    for name, make in tables.items():
        begin, end = f"<!-- {name}: written by `make reference` -->\n", f"<!-- end of {name} -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            text = before + begin + make() + "\n" + end + rest.partition(end)[2]
    return text


def main() -> None:
    text = PAGE.read_text()
    made = page(text, TABLES)
    if "--check" not in sys.argv:
        PAGE.write_text(made)
    elif made != text:
        raise SystemExit(f"{PAGE.relative_to(ROOT)} is stale. Run `make reference` and commit the page.")


if __name__ == "__main__":
    main()

"""Dashboard and alert rules name metrics that there are, with labels that they have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from htcgrid_prometheus import catalogue

FOLDER = Path(__file__).parents[3] / "dashboards"
PROMETHEUS_OWN = {"up", "process_resident_memory_bytes"}


def queries() -> Iterator[str]:
    for panel in json.loads((FOLDER / "grafana.json").read_text())["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


def series() -> dict[str, set[str]]:
    """Each series that there is, with its labels."""
    found: dict[str, set[str]] = {}
    for metric in catalogue.METRICS:
        if metric.kind == "histogram":
            found |= {f"{metric.name}_bucket": {"le"}, f"{metric.name}_sum": set(), f"{metric.name}_count": set()}
        else:
            found[metric.shown] = set(metric.labels)
    return found


@pytest.mark.parametrize("query", list(queries()))
def test_a_query_names_metrics_and_labels_that_there_are(query: str) -> None:
    known = series()
    names = set(re.findall(r"\b(?:htcgrid|process)_\w+", query)) | set(re.findall(r"\bup\b", query))
    assert names
    assert names - PROMETHEUS_OWN <= set(known)
    labels = set(re.findall(r"(\w+)!?=~?\"", query))
    for group in re.findall(r"by \(([^)]*)\)", query):
        labels |= {label.strip() for label in group.split(",")}
    assert labels <= {"job"}.union(*(known[name] for name in names - PROMETHEUS_OWN))


def test_every_metric_but_those_that_others_explain_is_on_the_dashboard() -> None:
    text = (FOLDER / "grafana.json").read_text()
    missing = [metric.shown for metric in catalogue.METRICS if metric.name not in text]
    assert missing == [
        "htcgrid_tasks_already_stored_total",
        "htcgrid_attempts_total",
        "htcgrid_calls_total",
        "htcgrid_call_seconds",
        "htcgrid_service_requests_total",
    ]


def test_the_panels_of_the_dashboard_do_not_lie_over_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((FOLDER / "grafana.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed: apt-get install prometheus")
def test_promtool_takes_the_alert_rules() -> None:
    done = subprocess.run(
        ["promtool", "check", "rules", str(FOLDER / "alerts.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

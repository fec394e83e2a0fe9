from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from htcgrid.spi import Function

from htcgrid_eks.manifests import Grid
from htcgrid_eks.options import Options

SETTINGS = {"source": {"plugin": "sqs", "queue": "tasks"}, "sink": {"plugin": "dynamodb", "table": "results"}}
Manifests = Callable[..., dict[str, Any]]


@pytest.fixture
def function(tmp_path: Path) -> Function:
    (tmp_path / "pricing.py").write_text("def handler(event, context):\n    return event\n")
    return Function(handler="pricing.handler", code=tmp_path, timeout=40)


@pytest.fixture
def manifests(function: Function) -> Manifests:
    """Call it with options, and `kubernetes` for an old or a new cluster: the manifests by kind."""

    def manifests(
        *,
        kubernetes: str = "new",
        function: Function = function,
        settings: Mapping[str, Any] = SETTINGS,
        scrape_ports: Sequence[int] = (),
        **options: Any,
    ) -> dict[str, Any]:
        given = Options(image="pricing:1", namespace="grid", **options)
        grid = Grid(given, function, settings, "grid", scrape_ports)
        served = {"new": NEW, "old": OLD}[kubernetes]
        return {each["kind"]: each for each in grid.manifests(lambda group, kind: served.get((group, kind), []))}

    return manifests


_POLICIES = {("networking.k8s.io", "NetworkPolicy"): ["networking.k8s.io/v1"]}
NEW = {
    ("policy", "PodDisruptionBudget"): ["policy/v1"],
    ("autoscaling", "HorizontalPodAutoscaler"): ["autoscaling/v2", "autoscaling/v1"],
    ("keda.sh", "ScaledObject"): ["keda.sh/v1alpha1"],
    **_POLICIES,
}
OLD = {
    ("policy", "PodDisruptionBudget"): ["policy/v1beta1"],
    ("autoscaling", "HorizontalPodAutoscaler"): ["autoscaling/v1", "autoscaling/v2beta1", "autoscaling/v2beta2"],
    **_POLICIES,
}

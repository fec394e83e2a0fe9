"""`deploy` and `scale` against an API server that keeps objects and makes the pods that a test tells it to."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from htcgrid.spi import Rejected, Unavailable

from htcgrid_eks import deployment as deployment_module
from htcgrid_eks import pod_diagnosis
from htcgrid_eks.cluster import ApiError, Cluster
from htcgrid_eks.deployment import Deployment
from htcgrid_eks.manifests import TEMPLATE_DIGEST
from htcgrid_eks.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from htcgrid.spi import Function

SETTINGS = {"source": {"plugin": "sqs"}, "sink": {"plugin": "dynamodb"}}
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": []}
NO_NODE = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}
OVER_QUOTA = 'pods "p" is forbidden: exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1'

Status = dict[str, Any]


class FakeCluster(Cluster):
    """Objects by their paths. `react` is called with the Deployment each time it is looked at, as a controller would be."""

    def __init__(self, options: Options, react: Callable[[FakeCluster, Any], None]) -> None:
        super().__init__(options)
        self.objects: dict[str, Any] = {}
        self.pods: list[Any] = []
        self._react = react

    def versions_of(self, group: str, kind: str) -> list[str]:
        return [f"{group}/v1"]

    def request(self, method: str, path: str, body: Any = None, query: Any = None, *_: object, **__: object) -> Any:
        if path.endswith("selfsubjectaccessreviews"):
            return {"status": {"allowed": True}}
        if path.endswith("/pods"):
            return {"items": self.pods}
        if method == "PATCH" and path.endswith("/scale"):
            self.objects[path.removesuffix("/scale")]["spec"]["replicas"] = body["spec"]["replicas"]
            return {}
        if method == "PATCH" and "dryRun" not in query:
            made = copy.deepcopy(body)
            made["metadata"] |= {"resourceVersion": "1", "generation": 1}
            made.setdefault("status", {"observedGeneration": 1})
            self.objects[path] = made
        if method == "DELETE":
            del self.objects[path]
            return {}
        if method == "GET" and path not in self.objects:
            raise ApiError(404, "NotFound", "not found")
        found = self.objects.get(path, body)
        if method == "GET" and found["kind"] == "Deployment":
            self._react(self, found)
        return found

    def add_pod(self, deployment: Any, name: str, status: Status, *, kind: str | None = None) -> None:
        """A pod as admission leaves it: with a limit of a LimitRange and a container of a service mesh."""
        pod = copy.deepcopy(deployment["spec"]["template"])
        pod["metadata"] |= {"name": name, "creationTimestamp": f"2026-01-01T00:00:0{len(self.pods)}Z"}
        if kind is not None:
            pod["metadata"]["annotations"][TEMPLATE_DIGEST] = kind
        pod["spec"]["containers"][0]["resources"]["limits"]["cpu"] = "1"
        pod["spec"]["containers"].append({"name": "mesh", "image": "mesh:1"})
        pod["status"] = status
        self.pods.append(pod)


def count(deployment: Any, replicas: int, ready: int, updated: int | None = None, **more: Any) -> None:
    updated = replicas if updated is None else updated
    deployment["status"] |= {"replicas": replicas, "readyReplicas": ready, "updatedReplicas": updated, **more}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment_module, "_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(pod_diagnosis, "_LOG_SECONDS", 0.0)


def deployed(function: Function, react: Callable[[FakeCluster, Any], None], **options: Any) -> tuple[list[str], str]:
    """What `deploy` says, and why it ended early, if it did."""
    given = Options(image="pricing:1", namespace="grid", **{"start_seconds": 0.3, **options})
    said: list[str] = []
    try:
        said.extend(Deployment(FakeCluster(given, react), given, function, SETTINGS).deploy(dry_run=False))
    except (Rejected, Unavailable) as error:
        return said, str(error)
    return said, ""


def test_deploy_ends_although_admission_has_changed_each_pod(function: Function) -> None:
    def react(cluster: FakeCluster, deployment: Any) -> None:
        if not cluster.pods:
            cluster.add_pod(deployment, "grid-1", READY)
            cluster.add_pod(deployment, "grid-2", READY)
        count(deployment, replicas=2, ready=2)

    said, error = deployed(function, react, pods=2, start_seconds=60)
    assert not error
    assert said[-1] == "2 of 2 workers ready"


def test_the_pod_that_does_not_come_up_is_named_although_a_newer_one_is_ready(function: Function) -> None:
    def react(cluster: FakeCluster, deployment: Any) -> None:
        if not cluster.pods:
            cluster.add_pod(deployment, "grid-1", NO_NODE)
            cluster.add_pod(deployment, "grid-2", READY)
        count(deployment, replicas=2, ready=1)

    _, error = deployed(function, react, pods=2)
    assert (
        "is not ready after 0.3 s: 1 of 2 workers ready. Pod grid-1: no node accepts it: 0/3 nodes are available."
        in error
    )


def test_a_container_that_is_not_ready_is_named_when_the_wait_ends(function: Function) -> None:
    def react(cluster: FakeCluster, deployment: Any) -> None:
        if not cluster.pods:
            cluster.add_pod(deployment, "grid-1", {})
            running = [
                {"name": each["name"], "state": {"running": {}}, "ready": each["name"] != "mesh"}
                for each in cluster.pods[0]["spec"]["containers"]
            ]
            cluster.pods[0]["status"] = {"phase": "Running", "containerStatuses": running}
        count(deployment, replicas=1, ready=0)

    _, error = deployed(function, react)
    assert "Pod grid-1: mesh is not ready yet." in error


@pytest.mark.parametrize(
    ("spec", "counted", "reason"),
    [
        ({}, (0, 0, 0), "the cluster's controller has made none yet"),
        ({"paused": True}, (0, 0, 0), "The Deployment is paused: `kubectl rollout resume`"),
        ({}, (2, 1, 1), "the pods of an older version have not ended yet"),
    ],
)
def test_a_wait_that_ends_always_has_a_reason(
    function: Function, spec: dict[str, Any], counted: tuple[int, int, int], reason: str
) -> None:
    def react(cluster: FakeCluster, deployment: Any) -> None:
        deployment["spec"] |= spec
        count(deployment, *counted)

    _, error = deployed(function, react)
    assert "is not ready after 0.3 s" in error
    assert reason in error


def over_quota(deployment: Any, replicas: int, updated: int) -> None:
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": OVER_QUOTA}
    count(deployment, replicas, ready=replicas, updated=updated, conditions=[failure])


def test_a_new_grid_that_a_quota_does_not_allow_is_removed_at_once(function: Function) -> None:
    _, error = deployed(function, lambda _, found: over_quota(found, replicas=0, updated=0), start_seconds=60)
    assert OVER_QUOTA in error
    assert "All that was made is removed again." in error


def test_a_quota_that_old_pods_use_is_waited_for(function: Function) -> None:
    looks = 0

    def react(cluster: FakeCluster, deployment: Any) -> None:
        nonlocal looks
        looks += 1
        if looks < 4:
            over_quota(deployment, replicas=4, updated=0)
        else:
            count(deployment, replicas=4, ready=4, conditions=[])

    said, error = deployed(function, react, pods=4, start_seconds=60)
    assert not error
    assert "4 of 4 workers ready, 4 of an older version" in said
    assert said[-1] == "4 of 4 workers ready"


def test_a_quota_that_old_pods_use_to_the_end_is_the_reason_that_is_given(function: Function) -> None:
    _, error = deployed(function, lambda _, found: over_quota(found, replicas=4, updated=0), pods=4)
    assert "is not ready after 0.3 s" in error
    assert OVER_QUOTA in error


def test_a_rule_of_the_cluster_that_refuses_every_pod_ends_the_wait(function: Function) -> None:
    rule = 'pods "p" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'
    failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": rule}
    _, error = deployed(function, lambda _, found: count(found, 0, 0, conditions=[failure]), start_seconds=60)
    assert rule in error
    assert "not a missing right" in error


def test_scale_says_why_it_has_waited_in_vain(function: Function) -> None:
    def react(cluster: FakeCluster, deployment: Any) -> None:
        if len(cluster.pods) < deployment["spec"]["replicas"]:
            cluster.add_pod(deployment, f"grid-{len(cluster.pods)}", NO_NODE if cluster.pods else READY)
        count(deployment, replicas=len(cluster.pods), ready=1)

    options = Options(image="pricing:1", namespace="grid", start_seconds=0.3)
    grid = Deployment(FakeCluster(options, react), options, function, SETTINGS)
    list(grid.deploy(dry_run=False))
    with pytest.raises(Unavailable, match=r"1 of 2 workers ready\. Pod grid-1: no node accepts it"):
        list(grid.scale(2))


def test_scale_goes_on_where_an_environment_of_a_pod_has_just_been_killed_for_its_memory(function: Function) -> None:
    killed = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "agent", "restartCount": 0, "state": {"running": {}}},
            {
                "name": "lambda-0",
                "restartCount": 0,
                "image": "pricing:1",
                "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}},
            },
        ],
    }
    looks = 0

    def react(cluster: FakeCluster, deployment: Any) -> None:
        nonlocal looks
        wanted = deployment["spec"]["replicas"]
        while len(cluster.pods) < wanted:
            cluster.add_pod(deployment, f"grid-{len(cluster.pods)}", READY)
        if wanted == 2:
            looks += 1
            cluster.pods[0]["status"] = killed if looks < 4 else READY  # the kubelet has started it again
        count(deployment, replicas=wanted, ready=1 if 0 < looks < 4 else wanted)

    options = Options(image="pricing:1", namespace="grid", start_seconds=60)
    grid = Deployment(FakeCluster(options, react), options, function, SETTINGS)
    list(grid.deploy(dry_run=False))
    assert list(grid.scale(2))[-1] == "2 of 2 workers ready"
    assert looks >= 4


@pytest.mark.parametrize("kind", ["configmaps", "serviceaccounts", "secrets"])
def test_deploy_leaves_an_object_of_its_name_alone_that_others_have_made(function: Function, kind: str) -> None:
    def react(cluster: FakeCluster, deployment: Any) -> None:
        count(deployment, replicas=1, ready=1)

    options = Options(image="pricing:1", namespace="grid", name="pricing", start_seconds=0.3)
    cluster = FakeCluster(options, react)
    cluster.namespace = "grid"
    path = cluster.namespaced(kind, "pricing")
    before = {"kind": "any", "metadata": {"name": "pricing", "resourceVersion": "1"}, "data": {"password": "eA=="}}
    cluster.objects[path] = copy.deepcopy(before)
    with_secret = function.model_copy(update={"environment": {"CITY": "Bern"}})
    grid = Deployment(cluster, options, with_secret, SETTINGS)
    with pytest.raises(Rejected, match=r"'pricing' .*was not made by htcgrid.* `name`"):
        list(grid.deploy(dry_run=False))
    assert cluster.objects == {path: before}
    assert any(line.startswith("left ") for line in grid.undeploy())
    assert cluster.objects == {path: before}

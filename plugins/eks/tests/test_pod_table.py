"""`[planes.NAME.pod]`, merged into the pod's spec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
from eks_fakes import VERSIONS, Asked
from htcgrid.spi import Function
from pydantic import ValidationError

from htcgrid_eks.options import Options
from htcgrid_eks.run_pods import RunPods

if TYPE_CHECKING:
    from conftest import Manifests

EVERYTHING: dict[str, Any] = {
    "priorityClassName": "low",
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]
            }
        }
    },
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "nodeSelector": {"accelerator": "a10g"},
    "runtimeClassName": "nvidia",
    "volumes": [
        {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        {"name": "password", "secret": {"secretName": "database", "defaultMode": 288}},
    ],
    "containers": [
        {
            "name": "lambda",
            "resources": {"limits": {"nvidia.com/gpu": 1}},
            "envFrom": [{"secretRef": {"name": "database"}}],
            "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}}],
            "volumeMounts": [
                {"name": "models", "mountPath": "/mnt/models", "readOnly": True},
                {"name": "password", "mountPath": "/mnt/password", "readOnly": True},
            ],
        },
        {"name": "agent", "resources": {"limits": {"cpu": "500m"}}},
        {"name": "metrics", "image": "metrics:1"},
    ],
    "initContainers": [{"name": "warm", "image": "warm:1"}],
}


def spec_of(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["Deployment"]["spec"]["template"]["spec"]
    return spec


def named(members: list[Any]) -> dict[str, Any]:
    return {each["name"]: each for each in members}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_pod_with_everything_passes_the_published_schemas(manifests: Manifests, version: str) -> None:
    kubernetes_validate.validate(manifests(pod=EVERYTHING, containers=2)["Deployment"], version, strict=True)


def test_every_lambda_container_gets_what_the_table_has_and_keeps_its_own(manifests: Manifests) -> None:
    before, after = (
        named(spec_of(manifests(containers=2, **options))["containers"]) for options in ({}, {"pod": EVERYTHING})
    )
    assert list(after) == ["agent", "lambda-0", "lambda-1", "metrics"]
    for name in ("lambda-0", "lambda-1"):
        limits = after[name]["resources"]["limits"]
        assert limits == {**before[name]["resources"]["limits"], "nvidia.com/gpu": "1"}
        assert after[name]["resources"]["requests"] == before[name]["resources"]["requests"]
        assert after[name]["envFrom"] == [{"secretRef": {"name": "database"}}]
        assert {*named(before[name]["env"]), "TOKEN"} == set(named(after[name]["env"]))
        paths = [mount["mountPath"] for mount in after[name]["volumeMounts"]]
        assert paths[-2:] == ["/mnt/models", "/mnt/password"]
        assert paths[:-2] == [mount["mountPath"] for mount in before[name]["volumeMounts"]]
        assert after[name]["securityContext"] == before[name]["securityContext"]
    assert after["agent"]["resources"]["limits"] == {"memory": "256Mi", "cpu": "500m"}
    assert "envFrom" not in after["agent"], "only the handler may have its Secret"


def test_one_lambda_container_can_be_named(manifests: Manifests) -> None:
    table = {"containers": [{"name": "lambda-1", "resources": {"limits": {"nvidia.com/gpu": 1}}}]}
    limits = [
        named(spec_of(manifests(containers=2, pod=table))["containers"])[name]["resources"]["limits"]
        for name in ("lambda-0", "lambda-1")
    ]
    assert ["nvidia.com/gpu" in each for each in limits] == [False, True]


def test_where_pods_go_is_added_to_what_the_planes_own_keys_say(manifests: Manifests) -> None:
    spot = {"key": "spot", "operator": "Exists"}
    spec = spec_of(manifests(pod=EVERYTHING, tolerations=[spot], node_selector={"pool": "gpu"}))
    assert spec["tolerations"] == [spot, *EVERYTHING["tolerations"]]
    assert spec["nodeSelector"] == {"pool": "gpu", "accelerator": "a10g"}
    assert spec["affinity"] == EVERYTHING["affinity"]
    assert spec["priorityClassName"] == "low"
    assert [each["name"] for each in spec["initContainers"]] == ["code", "warm"]
    assert {"models", "password", "run", "code", "config"} <= set(named(spec["volumes"]))


def test_the_pods_of_a_run_have_it_too(function: Function) -> None:
    options = Options(image="pricing:1", namespace="grid", pod=EVERYTHING)
    cluster = Asked(options)
    run_pods = RunPods(cluster, options, function)
    run_pods.begin()
    run_pods.add()
    spec = cluster.made[-1]["spec"]
    assert named(spec["containers"])["lambda-0"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["runtimeClassName"] == "nvidia"


def test_a_changed_table_replaces_the_pods(manifests: Manifests) -> None:
    one, two = (manifests(pod=pod)["Deployment"]["spec"]["template"] for pod in ({}, {"priorityClassName": "low"}))
    assert (
        one["metadata"]["annotations"]["htcgrid.io/template"] != two["metadata"]["annotations"]["htcgrid.io/template"]
    )


LAMBDA = {"name": "lambda"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prioritiClassName": "low"}, "do you mean 'priorityClassName'?"),
    ({"priorityClassName": 1}, "priorityClassName is a text, not 1"),
    ({"volumes": {"name": "a"}}, "volumes is a list of tables"),
    ({"volumes": [{"emptyDir": {}}]}, "volumes[0].name is missing"),
    ({"topologySpreadConstraints": [{"maxSkew": True}]}, "topologySpreadConstraints[0].maxSkew is a whole number"),
    ({"containers": [{**LAMBDA, "resources": {"limit": {}}}]}, "containers[0].resources.limit: Kubernetes has no such"),
    ({"containers": [{**LAMBDA, "command": ["sh"]}]}, "command cannot be set here"),
    ({"containers": [{**LAMBDA, "env": [{"name": "_HANDLER", "value": "a.b"}]}]}, "_HANDLER is reserved by Lambda"),
    ({"containers": [{**LAMBDA, "volumeMounts": [{"name": "account", "mountPath": "/a"}]}]}, "no volume 'account'"),
    ({"containers": [{"name": "metrics"}]}, "a container of your own needs an `image`"),
    ({"volumes": [{"name": "run-0", "emptyDir": {}}]}, "'run-0' is the name of a volume that htcgrid makes"),
    ({"serviceAccountName": "admin"}, "serviceAccountName cannot be set here"),
    ({"hostNetwork": True}, "hostNetwork cannot be set here"),
    ({"shareProcessNamespace": True}, "shareProcessNamespace cannot be set here"),
    ({"restartPolicy": "Never"}, "restartPolicy cannot be set here"),
    (
        {
            "volumes": [{"name": "a", "emptyDir": {}}],
            "containers": [{**LAMBDA, "volumeMounts": [{"name": "a", "mountPath": "/tmp/"}]}],
        },
        "htcgrid has a volume of its own at /tmp/",
    ),
]


@pytest.mark.parametrize(("table", "said"), WRONG, ids=lambda part: part if isinstance(part, str) else "")
def test_what_is_no_part_of_a_pod_or_would_break_the_plane_is_refused(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Options(image="pricing:1", pod=table)
    assert said in str(caught.value)

import base64
import io
import json
import math
import random
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
from eks_fakes import VERSIONS, Asked
from htcgrid.spi import Function, Rejected

from htcgrid_eks.cluster import Cluster
from htcgrid_eks.deployment import Deployment, _kind_of
from htcgrid_eks.invoker import EksInvoker
from htcgrid_eks.manifests import Grid
from htcgrid_eks.options import Options
from htcgrid_eks.run_pods import RunPods

Manifests = Callable[..., dict[str, Any]]
AUTOSCALE = {"min": 1, "max": 9, "by": "cpu", "target": 70}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("code", ["folder", "image", "s3://bucket/code.zip"])
def test_they_pass_the_published_schemas(manifests: Manifests, version: str, code: str) -> None:
    for manifest in manifests(code=code, containers=2, autoscale=AUTOSCALE, role_arn="arn:aws:iam::1:role/r").values():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_an_old_cluster_gets_the_versions_that_it_serves(manifests: Manifests) -> None:
    old, new = (manifests(kubernetes=kubernetes, autoscale=AUTOSCALE) for kubernetes in ("old", "new"))
    assert old["PodDisruptionBudget"]["apiVersion"] == "policy/v1beta1"
    assert new["PodDisruptionBudget"]["apiVersion"] == "policy/v1"
    assert old["HorizontalPodAutoscaler"]["apiVersion"] == "autoscaling/v2beta2"
    assert new["HorizontalPodAutoscaler"]["apiVersion"] == "autoscaling/v2"


def test_everything_runs_locked_down(manifests: Manifests) -> None:
    spec = manifests(containers=2)["Deployment"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"] + spec["initContainers"]:
        locked = container["securityContext"]
        assert locked["readOnlyRootFilesystem"] is True, container["name"]
        assert locked["allowPrivilegeEscalation"] is False, container["name"]
        assert locked["capabilities"] == {"drop": ["ALL"]}, container["name"]
        assert "ports" not in container, container["name"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_observer_that_is_scraped_opens_its_port_and_no_other(manifests: Manifests, version: str) -> None:
    observers = {"prometheus": {"plugin": "prometheus", "address": "0.0.0.0:9464"}}
    settings = {"source": {"plugin": "sqs"}, "sink": {"plugin": "dynamodb"}, "observers": observers}
    found = manifests(settings=settings, scrape_ports=[9464])
    for manifest in found.values():
        kubernetes_validate.validate(manifest, version, strict=True)
    assert found["NetworkPolicy"]["spec"]["ingress"] == [{"ports": [{"protocol": "TCP", "port": 9464}]}]
    template = found["Deployment"]["spec"]["template"]
    annotations = {name: value for name, value in template["metadata"]["annotations"].items() if "prometheus" in name}
    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "9464",
        "prometheus.io/path": "/metrics",
    }
    by_name = {container["name"]: container.get("ports") for container in template["spec"]["containers"]}
    assert by_name == {"agent": [{"containerPort": 9464, "protocol": "TCP"}], "lambda-0": None}
    assert tomllib.loads(found["ConfigMap"]["data"]["htcgrid.toml"])["observers"] == observers


def test_without_such_an_observer_nothing_comes_in(manifests: Manifests) -> None:
    found = manifests()
    assert "ingress" not in found["NetworkPolicy"]["spec"]
    assert "prometheus" not in json.dumps(found["Deployment"])
    assert "observers" not in tomllib.loads(found["ConfigMap"]["data"]["htcgrid.toml"])


@pytest.mark.parametrize("version", VERSIONS)
def test_a_role_of_the_functions_own_reaches_the_lambda_containers_and_no_other(
    manifests: Manifests, version: str
) -> None:
    role = "arn:aws:iam::1:role/pricing"
    found = manifests(function_role_arn=role, role_arn="arn:aws:iam::1:role/agent", containers=2)["Deployment"]
    kubernetes_validate.validate(found, version, strict=True)
    for container in found["spec"]["template"]["spec"]["containers"]:
        variables = {each["name"]: each.get("value") for each in container.get("env", [])}
        if container["name"].startswith("lambda-"):
            folder, name = variables["AWS_WEB_IDENTITY_TOKEN_FILE"].rsplit("/", 1)
            assert variables["AWS_ROLE_ARN"] == role
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            [volume] = [
                each for each in found["spec"]["template"]["spec"]["volumes"] if each["name"] == mounted[folder]
            ]
            [source] = volume["projected"]["sources"]
            assert source["serviceAccountToken"]["path"] == name
            assert source["serviceAccountToken"]["audience"] == "sts.amazonaws.com"
        else:
            assert "AWS_ROLE_ARN" not in variables


@pytest.mark.parametrize("credentials", ["agent", "role:arn:aws:iam::1:role/other"])
def test_two_answers_to_what_role_a_handler_has_are_refused(
    manifests: Manifests, function: Function, credentials: str
) -> None:
    with pytest.raises(Rejected, match="function_role_arn"):
        manifests(
            function=function.model_copy(update={"credentials": credentials}),
            function_role_arn="arn:aws:iam::1:role/pricing",
        )


def test_a_profile_of_this_machine_is_not_deployed(manifests: Manifests) -> None:
    with pytest.raises(Rejected, match="a profile is of this machine"):
        manifests(function=Function(handler="pricing.handler", credentials="profile:work"))


def test_only_the_agent_has_credentials(manifests: Manifests) -> None:
    found = manifests(role_arn="arn:aws:iam::1:role/r", variables=["queue-password"])["Deployment"]
    template = found["spec"]["template"]
    assert template["metadata"]["annotations"]["eks.amazonaws.com/skip-containers"] == "lambda-0"
    containers = {each["name"]: each for each in template["spec"]["containers"]}
    mounts = {name: {mount["name"] for mount in each["volumeMounts"]} for name, each in containers.items()}
    assert "account" in mounts["agent"]
    assert "account" not in mounts["lambda-0"]
    assert containers["agent"]["envFrom"] == [{"secretRef": {"name": "queue-password"}}]
    assert "envFrom" not in containers["lambda-0"]


def test_the_service_account_takes_the_iam_role(manifests: Manifests) -> None:
    account = manifests(role_arn="arn:aws:iam::1:role/r")["ServiceAccount"]
    assert account["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"}


def test_keda_scales_on_what_waits_in_the_queue(manifests: Manifests) -> None:
    scale = {"min": 0, "max": 7, "by": "sqs", "queue_url": "https://q", "region": "eu-west-1", "target": 9}
    spec = manifests(autoscale=scale)["ScaledObject"]["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 7)
    (trigger,) = spec["triggers"]
    assert trigger["type"] == "aws-sqs-queue"
    assert trigger["metadata"]["queueURL"] == "https://q"
    assert trigger["metadata"]["awsRegion"] == "eu-west-1"
    assert trigger["metadata"]["queueLength"] == "9"


def test_pods_have_the_functions_timeout_to_end_in(manifests: Manifests) -> None:
    found = manifests()
    config = tomllib.loads(found["ConfigMap"]["data"]["htcgrid.toml"])
    grace = found["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert config["agent"]["grace"] == 40
    assert grace >= math.ceil(config["agent"]["grace"]) + 10


def test_the_lambda_container_has_the_functions_memory(manifests: Manifests, function: Function) -> None:
    large = function.model_copy(update={"memory": 1769})
    resources = _container(manifests(function=large), "lambda-0")["resources"]
    assert resources["limits"] == {"memory": "1769Mi"}
    assert resources["requests"] == {"memory": "1769Mi", "cpu": "1000m"}


def test_arm64_is_placed_on_such_nodes(manifests: Manifests, function: Function) -> None:
    arm = function.model_copy(update={"architecture": "arm64"})
    spec = manifests(function=arm, node_selector={"pool": "spot"})["Deployment"]["spec"]["template"]["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/arch": "arm64", "pool": "spot"}


def test_a_changed_config_replaces_the_pods(manifests: Manifests, function: Function) -> None:
    def annotation(found: dict[str, Any]) -> str:
        return str(found["Deployment"]["spec"]["template"]["metadata"]["annotations"]["htcgrid.io/config"])

    assert annotation(manifests()) == annotation(manifests())
    longer = function.model_copy(update={"timeout": 41})
    assert annotation(manifests()) != annotation(manifests(function=longer))


def test_the_emulator_listens_on_loopback_only(manifests: Manifests) -> None:
    command = " ".join(_container(manifests(transport="rie"), "lambda-0")["command"])
    assert "--runtime-interface-emulator-address 127.0.0.1:8080" in command


def test_a_cluster_without_keda_says_so(manifests: Manifests) -> None:
    with pytest.raises(Rejected, match="needs KEDA, which is not on this cluster"):
        manifests(kubernetes="old", autoscale={"max": 3, "by": "sqs", "queue_url": "https://q", "region": "eu-west-1"})


def test_code_that_no_configmap_holds_says_where_to_put_it(manifests: Manifests, function: Function) -> None:
    (function.code / "noise.bin").write_bytes(random.Random(1).randbytes(1_000_000))
    with pytest.raises(Rejected, match=r'write code = "image"'):
        manifests()


def test_a_config_without_a_queue_is_refused(function: Function) -> None:
    grid = Grid(Options(image="pricing:1"), function, {}, "grid")
    with pytest.raises(Rejected, match=r"\[source\] and \[sink\] is missing"):
        grid.manifests(lambda _group, _kind: ["v1"])


def test_manifests_are_plain_json(manifests: Manifests) -> None:
    json.dumps(manifests(node_selector={"a": "b"}, tolerations=[{"key": "spot", "operator": "Exists"}]))


def _container(found: dict[str, Any], name: str) -> Any:
    containers = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    return next(each for each in containers if each["name"] == name)


def test_what_of_the_code_folder_is_left_out_is_said(function: Function) -> None:
    (function.code / ".env").write_text("SECRET")
    (note,) = Grid(Options(image="pricing:1"), function, {}, "grid").notes()
    assert note.startswith("Left out of the code: .env. ")


def test_the_environment_of_the_function_is_in_a_secret_and_nowhere_else(
    manifests: Manifests, function: Function
) -> None:
    secret = "hunter2secret"
    found = manifests(function=function.model_copy(update={"environment": {"DB_PASSWORD": secret}}))
    assert base64.b64decode(found["Secret"]["data"]["DB_PASSWORD"]).decode() == secret
    kubernetes_validate.validate(found["Secret"], "1.31", strict=True)
    reference = {"name": found["Secret"]["metadata"]["name"], "key": "DB_PASSWORD"}
    variables = _container(found, "lambda-0")["env"]
    assert {"name": "DB_PASSWORD", "valueFrom": {"secretKeyRef": reference}} in variables
    del found["Secret"]
    assert secret not in json.dumps(found)


def test_a_changed_environment_replaces_the_pods(manifests: Manifests, function: Function) -> None:
    one, two = (
        manifests(function=function.model_copy(update={"environment": {"A": value}}))["Deployment"]["spec"]["template"]
        for value in ("1", "2")
    )
    assert one["metadata"]["annotations"] != two["metadata"]["annotations"]


def test_a_dry_run_shows_no_value_of_the_environment(function: Function) -> None:
    class Offline(Cluster):
        def versions_of(self, group: str, kind: str) -> list[str]:
            return [f"{group}/v1"]

    options = Options(image="pricing:1", namespace="grid")
    secret = function.model_copy(update={"environment": {"DB_PASSWORD": "hunter2secret"}})
    deployment = Deployment(Offline(options), options, secret, {"source": {"plugin": "sqs"}, "sink": {"plugin": "sqs"}})
    said = "\n".join(deployment.deploy(dry_run=True))
    assert "hunter2secret" not in said
    assert base64.b64encode(b"hunter2secret").decode() not in said
    assert "# Not shown: the Secret htcgrid-pricing" in said
    assert "kind: Deployment" in said


def test_a_run_has_its_environment_in_a_secret_that_goes_with_it(function: Function) -> None:
    options = Options(image="pricing:1", namespace="grid")
    cluster = Asked(options)
    secret = function.model_copy(update={"environment": {"DB_PASSWORD": "hunter2secret"}})
    run_pods = RunPods(cluster, options, secret)
    run_pods.begin()
    run_pods.add()
    owner, kept, pod = cluster.made
    assert kept["kind"] == "Secret"
    assert kept["metadata"]["ownerReferences"][0]["name"] == owner["metadata"]["name"]
    assert "hunter2secret" not in json.dumps([owner, pod])


def test_a_grid_of_one_pod_lets_its_node_be_drained(manifests: Manifests) -> None:
    budget = manifests(pods=1)["PodDisruptionBudget"]["spec"]
    assert "minAvailable" not in budget
    assert budget["maxUnavailable"] == "25%"  # rounded up: one of one


@pytest.mark.parametrize(("given", "written"), [("2", 2), ("50%", "50%")])
def test_a_least_number_of_pods_is_taken_as_given(manifests: Manifests, given: str, written: int | str) -> None:
    assert manifests(pods=4, min_available=given)["PodDisruptionBudget"]["spec"]["minAvailable"] == written


@pytest.mark.parametrize(("pods", "least", "is_told"), [(1, "50%", True), (2, "2", True), (3, "50%", False)])
def test_check_says_that_a_budget_blocks_every_drain(function: Function, pods: int, least: str, is_told: bool) -> None:
    plane = EksInvoker(EksInvoker.Config(image="i", pods=pods, min_available=least), function)
    assert any("can be drained" in note for note in plane.advise(3)) is is_told


@pytest.mark.parametrize(("keys", "standing"), [({"pods": 7}, (7, 4)), ({"autoscale": {"max": 90}}, (90, 4))])
def test_a_standing_grid_has_an_agent_in_each_pod(
    function: Function, keys: dict[str, object], standing: tuple[int, int]
) -> None:
    config = EksInvoker.Config.model_validate({"image": "i", "containers": 4, **keys})
    assert EksInvoker(config, function).standing == standing


def test_what_the_cluster_adds_to_a_pod_does_not_make_it_an_older_one(manifests: Manifests) -> None:
    deployment = manifests()["Deployment"]
    pod = json.loads(json.dumps(deployment["spec"]["template"]))
    pod["spec"]["containers"][0]["resources"] = {"limits": {"cpu": "1"}}  # as of a LimitRange
    pod["spec"]["containers"].append({"name": "mesh", "image": "mesh:1"})
    assert _kind_of(pod) == _kind_of(deployment["spec"]["template"])
    assert _kind_of(manifests(agent_cpu="200m")["Deployment"]["spec"]["template"]) != _kind_of(pod)


@pytest.mark.parametrize("version", VERSIONS)
def test_layers_are_the_opt_of_every_lambda_container(
    manifests: Manifests, function: Function, version: str, tmp_path: Path
) -> None:
    layer = tmp_path / "layer"
    (layer / "python").mkdir(parents=True)
    (layer / "python" / "shared.py").write_text("NAME = 1\n")
    found = manifests(function=function.model_copy(update={"layers": (layer,)}), containers=2)
    kubernetes_validate.validate(found["Deployment"], version, strict=True)
    for container in found["Deployment"]["spec"]["template"]["spec"]["containers"][1:]:
        mounted = {each["mountPath"]: (each["name"], each.get("subPath")) for each in container["volumeMounts"]}
        assert mounted["/opt"] == ("code", "opt")
        assert mounted["/var/task"] == ("code", "task")
    names = zipfile.ZipFile(io.BytesIO(base64.b64decode(found["ConfigMap"]["binaryData"]["code.zip"]))).namelist()
    assert "opt/python/shared.py" in names
    assert "layers" not in tomllib.loads(found["ConfigMap"]["data"]["htcgrid.toml"])["function"]


def test_layers_too_large_for_a_config_map_say_which_ways_there_are(
    manifests: Manifests, function: Function, tmp_path: Path
) -> None:
    layer = tmp_path / "layer"
    (layer / "python").mkdir(parents=True)
    (layer / "python" / "table.bin").write_bytes(random.Random(1).randbytes(1_000_000))
    with pytest.raises(
        Rejected, match=r"with its layers, has [\d,]+ bytes packed; a ConfigMap takes 900,000"
    ) as caught:
        manifests(function=function.model_copy(update={"layers": (layer,)}))
    for way in ("`htcgrid build` copies them", 'code = "image"', 'code = "s3://bucket/key.zip"', "function.layers=[]"):
        assert way in str(caught.value)


@pytest.mark.parametrize("version", VERSIONS)
def test_layers_on_s3_are_the_opt_of_every_lambda_container(manifests: Manifests, version: str) -> None:
    layers = ("s3://bucket/first.zip", "s3://bucket/second.zip")
    found = manifests(code="s3://bucket/code.zip", layers=layers, containers=2)
    kubernetes_validate.validate(found["Deployment"], version, strict=True)
    spec = found["Deployment"]["spec"]["template"]["spec"]
    assert spec["initContainers"][0]["command"][-4:] == ["s3://bucket/code.zip", "/var/task", *layers]
    for container in spec["containers"][1:]:
        mounted = {each["mountPath"]: (each["name"], each.get("subPath")) for each in container["volumeMounts"]}
        assert mounted["/opt"] == ("code", "opt")
        assert mounted["/var/task"] == ("code", "task")


@pytest.mark.parametrize("code", ["image", "s3://bucket/code.zip"])
def test_layers_that_cannot_be_sent_along_say_where_they_belong(
    manifests: Manifests, function: Function, code: str, tmp_path: Path
) -> None:
    with pytest.raises(Rejected, match=r"layers are sent along with code = \"folder\".*`htcgrid build` copies them"):
        manifests(function=function.model_copy(update={"layers": (tmp_path,)}), code=code)

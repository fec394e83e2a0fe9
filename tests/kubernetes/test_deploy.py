"""What deploy makes of a config, and what it says where the cluster will not have it."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
import yaml  # type: ignore[import-untyped]
from htcgrid_eks import code
from kubernetes_commands import Done, Kubectl, account_token, htcgrid, kubeconfig, node_takes_pods, soon, went_well
from kubernetes_grid import result, submit, until, write_grid
from moto_aws import empty_aws

KINDS = "deployments,replicasets,pods,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,pdb,hpa"
Deploy = Callable[..., Done]
Config = Callable[..., Path]


@pytest.fixture
def config(
    tmp_path: Path, redis_url: str, namespace: str, agent_image: str, lambda_image: str, request: pytest.FixtureRequest
) -> Config:
    """Call it with lines of the plane's table."""
    name = f"htcgrid-{abs(hash(request.node.name)) % 10**8}"
    facts = {"url": redis_url, "namespace": namespace, "agent_image": agent_image, "lambda_image": lambda_image}

    def config(more: str = "") -> Path:
        return write_grid(tmp_path, f'name = "{name}"\n{more}', stream=name, **facts)

    return config


def name_of(config: Path) -> str:
    return str(config.read_text().partition('\nname = "')[2].partition('"')[0])


def left(kubectl: Kubectl, name: str) -> list[str]:
    """What nobody has asked to be removed."""
    things = json.loads(kubectl("get", KINDS, "-l", f"htcgrid.io/grid={name}", "-o", "json"))["items"]
    return [thing["metadata"]["name"] for thing in things if "deletionTimestamp" not in thing["metadata"]]


@pytest.fixture
def refused(kubectl: Kubectl) -> Deploy:
    """Deploy a config, which must end with a message and leave nothing behind."""

    def refused(config: Path, *pairs: str, starts: int = 1) -> Done:
        with node_takes_pods():
            began = time.monotonic()
            done = htcgrid("deploy", "-c", str(config), *(word for pair in pairs for word in ("--set", pair)))
            took = time.monotonic() - began
        assert done.status in {2, 3}, f"{done.status}: {done.out}{done.error}"
        assert "Traceback" not in done.error
        assert took < starts * soon(), f"it took {took:.1f} s to say: {done.error}"
        name = name_of(config)
        until(lambda: not left(kubectl, name), 20, "the removal of all that was made")
        return done

    return refused


def test_a_dry_run_prints_what_a_cluster_takes_and_makes_nothing(config: Config, kubectl: Kubectl) -> None:
    file = config()
    printed = went_well("deploy", "--dry-run", "-c", str(file))
    kinds = {document["kind"] for document in yaml.safe_load_all(printed)}
    assert {"ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget", "NetworkPolicy"} <= kinds
    # The server refuses a binding to a role that is not there.
    documents = [document for document in yaml.safe_load_all(printed) if document["kind"] != "RoleBinding"]
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(documents))
    assert left(kubectl, name_of(file)) == []


@pytest.mark.parametrize("key", ["image", "agent_image"])
def test_an_image_that_cannot_be_pulled_is_named(config: Config, refused: Deploy, key: str) -> None:
    done = refused(config(), f"planes.cluster.{key}=localhost:1/no/such:image")
    assert done.status == 2
    assert "cannot have its image 'localhost:1/no/such:image'" in done.error
    assert "All that was made is removed again" in done.error


def test_a_namespace_that_is_not_there_is_named(config: Config, refused: Deploy) -> None:
    done = refused(config(), "planes.cluster.namespace=no-such-namespace")
    assert done.status == 2
    assert "There is no namespace 'no-such-namespace'" in done.error


def test_rights_that_are_missing_are_named_all_at_once(
    config: Config, refused: Deploy, kubectl: Kubectl, tmp_path: Path
) -> None:
    kubectl("create", "serviceaccount", "nobody")
    file = kubeconfig(tmp_path, kubectl, account_token(kubectl, "nobody"))
    done = refused(config(), f"planes.cluster.kubeconfig={file}")
    assert done.status == 2
    assert "create deployments (apps)" in done.error
    assert "create poddisruptionbudgets (policy)" in done.error


def test_a_quota_that_is_used_up_is_said_to_be(config: Config, refused: Deploy, kubectl: Kubectl) -> None:
    kubectl("create", "quota", "none", "--hard=pods=0")
    until(lambda: bool(kubectl("get", "quota", "none", "-o", "jsonpath={.status.hard}")), 20, "the quota in force")
    try:
        done = refused(config())
    finally:
        kubectl("delete", "quota", "none")
    assert done.status == 3
    assert "exceeded quota" in done.error
    assert "limited: pods=0" in done.error


def test_an_agent_that_crashes_is_shown_with_the_last_lines_of_its_log(config: Config, refused: Deploy) -> None:
    done = refused(config(), "source.url=redis://127.0.0.1:9", starts=2)  # a source may be there a moment later
    assert done.status == 2
    assert "The container agent of pod" in done.error
    assert "exit status 3" in done.error
    assert "Its log ends:\n" in done.error
    assert "127.0.0.1:9" in done.error.partition("Its log ends:")[2]


def test_a_grid_that_no_node_takes_stands_and_says_what_it_waits_for(config: Config, kubectl: Kubectl) -> None:
    """A cluster that makes nodes as they are needed may take it yet."""
    # The cluster makes the pod, finds no node and says so; on a busy one that takes seconds.
    file = config('node_selector = { nowhere = "here" }\nstart_seconds = 12\n')
    done = htcgrid("deploy", "-c", str(file))
    assert done.status == 3
    assert "nodes are available" in done.error
    assert "no node accepts it" in went_well("status", "-c", str(file))
    went_well("undeploy", "-c", str(file))
    assert left(kubectl, name_of(file)) == []


def test_a_change_that_never_comes_up_leaves_what_stood_before(config: Config, kubectl: Kubectl) -> None:
    file = config()
    went_well("deploy", "-c", str(file))
    done = htcgrid("deploy", "-c", str(file), "--set", "planes.cluster.image=localhost:1/no/such:image")
    assert done.status == 2
    assert "What stood before goes on" in done.error
    assert "1 ready of 1" in went_well("status", "-c", str(file))
    assert went_well("deploy", "-c", str(file)).endswith("1 of 1 workers ready\n")
    went_well("undeploy", "-c", str(file))


def test_a_grid_scales_by_its_processors_until_the_config_says_otherwise(config: Config, kubectl: Kubectl) -> None:
    file = config('[planes.cluster.autoscale]\nby = "cpu"\nmin = 1\nmax = 4\ntarget = 70\n')
    name = name_of(file)
    assert f"created HorizontalPodAutoscaler {name}" in went_well("deploy", "-c", str(file))
    scaler = json.loads(kubectl("get", "hpa", name, "-o", "json"))["spec"]
    assert (scaler["scaleTargetRef"]["name"], scaler["minReplicas"], scaler["maxReplicas"]) == (name, 1, 4)
    refused = htcgrid("scale", "3", "-c", str(file))
    assert refused.status == 2
    assert "This grid scales itself" in refused.error
    assert f"deleted HorizontalPodAutoscaler {name}" in went_well("deploy", "-c", str(config()))
    went_well("undeploy", "-c", str(file))
    assert left(kubectl, name) == []


@pytest.fixture
def s3(node_address: str) -> Iterator[Any]:
    """A bucket service on the node, where pods reach it, and its client."""
    with empty_aws(node_address) as url:
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        yield client
        client.close()


def test_an_init_container_brings_the_code_from_a_zip_on_s3(
    config: Config, kubectl: Kubectl, redis_url: str, s3: Any
) -> None:
    file = config('code = "s3://code/v1/squares.zip"\nvariables = ["aws"]\n')
    s3.create_bucket(Bucket="code")
    s3.put_object(Bucket="code", Key="v1/squares.zip", Body=code.pack(file.parent))
    (file.parent / "squares.py").unlink()
    variables = {
        "AWS_ENDPOINT_URL": s3.meta.endpoint_url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    kubectl(
        "create", "secret", "generic", "aws", *(f"--from-literal={key}={value}" for key, value in variables.items())
    )
    went_well("deploy", "-c", str(file))
    with redis.Redis.from_url(redis_url) as queue:
        submit(queue, name_of(file), [{"number": 9001, "seconds": 0}])
        until(lambda: result(queue, 9001) is not None, 60, "the result")
        found = result(queue, 9001)
    assert found is not None
    assert found[1] == {"number": 9001, "square": 81018001}
    went_well("undeploy", "-c", str(file))

"""What a user reads when the cluster will not have it; nothing half-made is left behind."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from kubernetes_commands import Done, Kubectl, account_token, htcgrid, kubeconfig, node_takes_pods, soon

CONFIG = """
plane = "cluster"
[function]
handler = "plain.handler"
timeout = 5
memory = 128
[planes.cluster]
plugin = "eks"
namespace = "{namespace}"
image = "{lambda_image}"
agent_image = "{agent_image}"
"""
Try = Callable[..., Done]


@pytest.fixture
def config(tmp_path: Path, namespace: str, agent_image: str, lambda_image: str) -> Path:
    (tmp_path / "plain.py").write_text("def handler(event, context):\n    return event\n")
    facts = {"namespace": namespace, "agent_image": agent_image, "lambda_image": lambda_image}
    (tmp_path / "htcgrid.toml").write_text(CONFIG.format(**facts))
    return tmp_path / "htcgrid.toml"


@pytest.fixture
def refused(config: Path, kubectl: Kubectl) -> Try:
    """Invoke with these settings, which must end soon with a message and leave nothing behind."""

    def refused(*pairs: str) -> Done:
        with node_takes_pods():
            began = time.monotonic()
            done = htcgrid("invoke", "1", "-c", str(config), *(word for pair in pairs for word in ("--set", pair)))
            took = time.monotonic() - began
        assert done.status in {2, 3}, f"{done.status}: {done.out}{done.error}"
        assert "Traceback" not in done.error
        assert took < soon(), f"it took {took:.1f} s to say: {done.error}"
        deadline = time.monotonic() + 20
        while left := _left(kubectl):
            assert time.monotonic() < deadline, f"left behind: {left}"
            time.sleep(0.5)
        return done

    return refused


def _left(kubectl: Kubectl) -> list[str]:
    """What nobody has asked to be removed. How long a node takes to remove a pod that it was just starting is its own."""
    things = json.loads(kubectl("get", "pods,configmaps", "-l", "htcgrid.io/run", "-o", "json"))["items"]
    return [thing["metadata"]["name"] for thing in things if "deletionTimestamp" not in thing["metadata"]]


def test_a_kubeconfig_that_is_not_there_is_named(refused: Try, tmp_path: Path) -> None:
    done = refused(f"planes.cluster.kubeconfig={tmp_path / 'nothing'}")
    assert done.status == 2
    assert "kubeconfig cannot be used" in done.error
    assert "aws eks update-kubeconfig" in done.error


def test_a_kubeconfig_that_is_no_yaml_is_named(refused: Try, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{ this is: [not yaml")
    assert "kubeconfig cannot be used" in refused(f"planes.cluster.kubeconfig={tmp_path / 'bad'}").error


def test_a_context_that_is_not_there_is_named_with_those_that_are(refused: Try) -> None:
    assert "no context 'elsewhere', only " in refused("planes.cluster.context=elsewhere").error


def test_a_server_that_does_not_answer_is_unavailable(refused: Try, tmp_path: Path, kubectl: Kubectl) -> None:
    document = yaml.safe_load(kubectl("config", "view", "--raw", "--minify"))
    document["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:9"
    (tmp_path / "away").write_text(yaml.safe_dump(document))
    done = refused(f"planes.cluster.kubeconfig={tmp_path / 'away'}")
    assert done.status == 3
    assert "https://127.0.0.1:9 cannot be reached" in done.error


def test_a_token_that_has_expired_is_said_to(refused: Try, tmp_path: Path, kubectl: Kubectl) -> None:
    file = kubeconfig(tmp_path, kubectl, "expired")
    done = refused(f"planes.cluster.kubeconfig={file}")
    assert done.status == 2
    assert "does not accept the credentials" in done.error
    assert "log in again" in done.error


def test_rights_that_are_missing_are_named_all_at_once(refused: Try, tmp_path: Path, kubectl: Kubectl) -> None:
    kubectl("create", "serviceaccount", "nobody")
    file = kubeconfig(tmp_path, kubectl, account_token(kubectl, "nobody"))
    done = refused(f"planes.cluster.kubeconfig={file}")
    assert done.status == 2
    assert "create pods, delete pods" in done.error
    assert "create pods/portforward" in done.error
    assert "htcgrid permissions cluster" in done.error


def test_a_namespace_that_is_not_there_is_named(refused: Try) -> None:
    done = refused("planes.cluster.namespace=no-such-namespace")
    assert done.status == 2
    assert "There is no namespace 'no-such-namespace'" in done.error
    assert "kubectl create namespace no-such-namespace" in done.error


@pytest.mark.parametrize("key", ["image", "agent_image"])
def test_an_image_that_cannot_be_pulled_is_named(refused: Try, key: str) -> None:
    done = refused(f"planes.cluster.{key}=localhost:1/no/such:image")
    assert done.status == 2
    assert "cannot have its image 'localhost:1/no/such:image'" in done.error


def test_a_quota_that_is_used_up_is_said_to_be(refused: Try, kubectl: Kubectl) -> None:
    kubectl("create", "quota", "small", "--hard=pods=1")
    deadline = time.monotonic() + 20
    while not kubectl("get", "quota", "small", "-o", "jsonpath={.status.hard}"):
        assert time.monotonic() < deadline, "the quota is not in force"
        time.sleep(0.2)
    try:
        done = refused("planes.cluster.pods=2")
    finally:
        kubectl("delete", "quota", "small")
    assert done.status == 3
    assert "quota" in done.error
    assert "limited: pods=1" in done.error


def test_the_printed_roles_are_enough(
    config: Path, tmp_path: Path, kubectl: Kubectl, namespace: str, redis_url: str
) -> None:
    with config.open("a") as more:
        more.write(f'[source]\nplugin = "redis"\nstream = "none"\ncreate = true\nurl = "{redis_url}"\n')
        more.write(f'[sink]\nplugin = "redis"\nurl = "{redis_url}"\n')
    printed = htcgrid("permissions", "cluster", "-c", str(config))
    assert printed.status == 0, printed.error
    run, deploy, _worker = yaml.safe_load_all(printed.out)
    for role in (run, deploy):
        name = role["metadata"]["name"]
        kubectl("apply", "-f", "-", stdin=role)
        kubectl("create", "serviceaccount", name)
        kubectl("create", "rolebinding", name, f"--role={name}", f"--serviceaccount={namespace}:{name}")
    as_runner = kubeconfig(tmp_path, kubectl, account_token(kubectl, run["metadata"]["name"]))
    done = htcgrid("invoke", '"as runner"', "-c", str(config), "--set", f"planes.cluster.kubeconfig={as_runner}")
    assert (done.status, done.out) == (0, '"as runner"\n'), done.error
    as_deployer = kubeconfig(tmp_path, kubectl, account_token(kubectl, deploy["metadata"]["name"]))
    for command in (("deploy",), ("deploy",), ("scale", "2"), ("status",), ("undeploy",)):
        as_them = ("--set", f"planes.cluster.kubeconfig={as_deployer}")
        done = htcgrid(*command, "-c", str(config), *as_them, "--set", "planes.cluster.start_seconds=60")
        assert done.status == 0, f"{command}: {done.out}{done.error}"

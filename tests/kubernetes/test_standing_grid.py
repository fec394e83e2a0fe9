"""A grid of pods that takes tasks from a real queue, and what may happen to it meanwhile."""

import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from kubernetes_commands import Kubectl, open_ports, went_well

HANDLER = """
import time

def handler(event, context):
    time.sleep(event["seconds"])
    return {"number": event["number"], "square": event["number"] ** 2}
"""
CONFIG = """
plane = "cluster"
[function]
handler = "squares.handler"
timeout = 5
memory = 128
[source]
plugin = "redis"
url = "{url}"
stream = "tasks"
create = true
lease_seconds = 8
[sink]
plugin = "redis"
url = "{url}"
[planes.cluster]
plugin = "eks"
namespace = "{namespace}"
image = "{lambda_image}"
agent_image = "{agent_image}"
pods = 3
containers = 2
cpu = "20m"
agent_cpu = "50m"
"""
PODS = "htcgrid.io/grid=htcgrid-squares"


@pytest.fixture(scope="module")
def queue(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, namespace: str, agent_image: str, lambda_image: str
) -> Path:
    folder = tmp_path_factory.mktemp("grid")
    (folder / "squares.py").write_text(HANDLER)
    facts = {"url": redis_url, "namespace": namespace, "agent_image": agent_image, "lambda_image": lambda_image}
    (folder / "htcgrid.toml").write_text(CONFIG.format(**facts))
    return folder / "htcgrid.toml"


def submit(queue: redis.Redis, numbers: range, seconds: float) -> None:
    with queue.pipeline() as lines:
        for number in numbers:
            lines.xadd("tasks", {"id": f"t-{number}", "payload": json.dumps({"number": number, "seconds": seconds})})
        lines.execute()


def stored(queue: redis.Redis) -> int:
    return sum(1 for _ in queue.scan_iter("htcgrid:result:*", 1000))


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.5)


def answers(queue: redis.Redis, numbers: range) -> dict[int, Any]:
    found = {}
    for number in numbers:
        result: Any = queue.get(f"htcgrid:result:t-{number}")
        head, _, answer = result.partition(b"\n")
        assert not json.loads(head).get("failure"), f"t-{number} failed: {head!r} {answer!r}"
        found[number] = json.loads(answer)
    return found


def test_deploy_makes_the_grid_and_says_how_far_it_is(config: Path, queue: redis.Redis) -> None:
    said = went_well("deploy", "-c", str(config))
    assert "created Deployment htcgrid-squares" in said
    assert "3 of 3 workers ready" in said
    submit(queue, range(20), 0)
    until(lambda: stored(queue) == 20, 60, "20 results")
    assert answers(queue, range(20))[7] == {"number": 7, "square": 49}


def test_deploy_again_changes_nothing(config: Path) -> None:
    assert went_well("deploy", "-c", str(config)) == "3 of 3 workers ready\n"


def test_status_tells_what_stands(config: Path) -> None:
    facts = json.loads(went_well("status", "-c", str(config), "--json"))
    assert facts["workers"] == "3 ready of 3"
    assert facts["environments"] == "6"


def test_tasks_survive_deleted_pods_a_drain_a_rolling_update_and_scaling(
    config: Path, queue: redis.Redis, kubectl: Kubectl
) -> None:
    numbers = range(100, 2100)
    before = stored(queue)
    submit(queue, numbers, 0.2)

    def wait_for(count: int) -> None:
        until(lambda: stored(queue) - before >= count, 300, f"{count} results")

    chance = random.Random(6)
    for force in (False, True, False, True):
        wait_for(stored(queue) - before + 60)
        pods = kubectl("get", "pods", "-l", PODS, "-o", "name").split()
        how = ["--force", "--grace-period=0"] if force else []
        kubectl("delete", chance.choice(pods), "--wait=false", *how)
    wait_for(500)
    node = kubectl("get", "nodes", "-o", "name").split()[0]
    try:
        # On one node the budget stops it half-way, since evicted pods find no other.
        drained = kubectl("drain", node, "--pod-selector", PODS, "--delete-emptydir-data", "--timeout=20s", check=False)
        assert "evict" in drained, drained
    finally:
        kubectl("uncordon", node)
    wait_for(800)
    went_well("deploy", "-c", str(config), "--set", "function.memory=160")
    wait_for(1200)
    went_well("scale", "5", "-c", str(config), "--set", "function.memory=160")
    wait_for(1600)
    went_well("scale", "1", "-c", str(config), "--set", "function.memory=160")
    wait_for(2000)
    found = answers(queue, numbers)
    assert found == {number: {"number": number, "square": number**2} for number in numbers}
    assert stored(queue) - before == len(numbers)


def test_nothing_of_a_worker_is_reachable_from_another_pod(
    config: Path, kubectl: Kubectl, agent_image: str, redis_url: str
) -> None:
    def addresses() -> list[str]:
        return kubectl("get", "pods", "-l", PODS, "-o", "jsonpath={.items[*].status.podIP}").split()

    until(lambda: len(addresses()) == 1, 60, "the one worker that is left")
    server = urlsplit(redis_url)
    assert server.hostname
    assert server.port
    assert open_ports(kubectl, agent_image, addresses()[0], server.port, server.hostname) == []


def test_undeploy_leaves_nothing(config: Path, kubectl: Kubectl) -> None:
    assert "nothing of htcgrid-squares is left" in went_well("undeploy", "-c", str(config))
    kinds = "deployments,replicasets,pods,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,pdb"
    assert "htcgrid-squares" not in kubectl("get", kinds, "-o", "name")

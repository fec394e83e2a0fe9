"""A grid of pods that takes tasks from a real queue, and what may happen to it meanwhile."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kubernetes_commands import Kubectl, ended_from_the_node, node_takes_pods, open_ports, went_well
from kubernetes_grid import result, stored, submit, until, write_grid

PODS = "htcgrid.io/grid=htcgrid-squares"
STREAM = "tasks"


@pytest.fixture(scope="module")
def queue(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()  # results are counted here, and another module may have left some
        yield client


@pytest.fixture(scope="module")
def config(
    tmp_path_factory: pytest.TempPathFactory, redis_url: str, namespace: str, agent_image: str, lambda_image: str
) -> Path:
    facts = {"url": redis_url, "namespace": namespace, "agent_image": agent_image, "lambda_image": lambda_image}
    return write_grid(tmp_path_factory.mktemp("grid"), "pods = 3\ncontainers = 2\n", stream=STREAM, **facts)


def answers(queue: redis.Redis, numbers: range) -> dict[int, Any]:
    found = {}
    for number in numbers:
        about = result(queue, number)
        assert about is not None, f"t-{number} has no result"
        assert about[0]["outcome"]["failure"] is None, f"t-{number} failed: {about}"
        found[number] = about[1]
    return found


def squares(numbers: range) -> dict[int, Any]:
    return {number: {"number": number, "square": number**2} for number in numbers}


def begins(queue: redis.Redis, redis_address: tuple[str, int], event: dict[str, Any]) -> str:
    """Submit it and wait until its handler runs; the pod where it does."""
    submit(queue, STREAM, [event | {"tell": redis_address}])
    until(lambda: queue.exists(f"begun:{event['number']}") == 1, 60, "the start of the task")
    return queue.get(f"begun:{event['number']}").decode()  # type: ignore[union-attr]


def pods(kubectl: Kubectl) -> list[str]:
    """Those that nobody has asked to end."""
    found = json.loads(kubectl("get", "pods", "-l", PODS, "-o", "json"))["items"]
    return sorted(pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"])


def test_deploy_makes_the_grid_and_says_how_far_it_is(config: Path, queue: redis.Redis) -> None:
    said = went_well("deploy", "-c", str(config))
    assert "created Deployment htcgrid-squares" in said
    assert "3 of 3 workers ready" in said
    submit(queue, STREAM, ({"number": number, "seconds": 0} for number in range(20)))
    until(lambda: stored(queue) == 20, 60, "20 results")
    assert answers(queue, range(20)) == squares(range(20))


def test_what_handlers_print_is_in_the_log_of_the_agents_containers(config: Path, kubectl: Kubectl) -> None:
    def lines() -> list[dict[str, Any]]:
        said = kubectl("logs", "-l", PODS, "-c", "agent", "--tail=-1")
        return [json.loads(line) for line in said.splitlines() if '"logger": "handler"' in line]

    until(lambda: len(lines()) >= 20, 30, "a line of each task")
    printed = {(line["task"], line["message"]) for line in lines() if line["task"] is not None}
    assert printed == {(f"t-{number}", f"the square of {number}") for number in range(20)}


def test_deploy_again_changes_nothing(config: Path) -> None:
    said = went_well("deploy", "-c", str(config)).splitlines()
    assert [line for line in said if not line.startswith("# ")] == ["3 of 3 workers ready"]


def test_status_tells_what_stands(config: Path) -> None:
    facts = json.loads(went_well("status", "-c", str(config), "--json"))
    assert facts["workers"] == "3 ready of 3"
    assert facts["environments"] == "6"


def test_a_worker_that_is_asked_to_end_finishes_its_task_with_its_lambda_container(
    config: Path, queue: redis.Redis, kubectl: Kubectl, redis_address: tuple[str, int]
) -> None:
    pod = begins(queue, redis_address, {"number": 30, "seconds": 3})
    kubectl("delete", "pod", pod, "--wait=false")
    until(lambda: result(queue, 30) is not None, 60, "the result")
    assert answers(queue, range(30, 31)) == squares(range(30, 31))
    about = result(queue, 30)
    assert about is not None
    assert about[0]["attempt"] == 1, "it was returned and run again"


def test_a_task_that_outlasts_the_grace_is_returned_and_run_by_another_worker(
    config: Path, queue: redis.Redis, kubectl: Kubectl, redis_address: tuple[str, int]
) -> None:
    pod = begins(queue, redis_address, {"number": 31, "seconds": 12})
    kubectl("delete", "pod", pod, "--wait=false")
    until(lambda: result(queue, 31) is not None, 90, "the result")
    assert answers(queue, range(31, 32)) == squares(range(31, 32))
    about = result(queue, 31)
    assert about is not None
    assert about[0]["attempt"] == 2


def test_scaling_in_from_four_pods_to_two_interrupts_no_task(
    config: Path, queue: redis.Redis, kubectl: Kubectl, redis_address: tuple[str, int]
) -> None:
    went_well("scale", "4", "-c", str(config))
    until(lambda: "4 ready of 4" in went_well("status", "-c", str(config)), 120, "all four workers")
    numbers = range(3000, 3004)
    submit(queue, STREAM, ({"number": n, "seconds": 3, "tell": redis_address} for n in numbers))
    until(lambda: all(queue.exists(f"begun:{number}") for number in numbers), 60, "the start of all tasks")
    busy = {queue.get(f"begun:{number}") for number in numbers}
    assert len(busy) >= 2, "a pod has two containers, and four tasks run"
    went_well("scale", "2", "-c", str(config))
    assert len(pods(kubectl)) == 2
    until(lambda: all(result(queue, number) for number in numbers), 60, "the results")
    assert answers(queue, numbers) == squares(numbers)
    assert [about[0]["attempt"] for number in numbers if (about := result(queue, number))] == [1, 1, 1, 1]
    went_well("scale", "3", "-c", str(config))


def test_a_worker_reads_with_its_own_rights_that_a_container_was_out_of_memory(
    config: Path, queue: redis.Redis, kubectl: Kubectl, redis_address: tuple[str, int]
) -> None:
    until(lambda: "3 ready" in went_well("status", "-c", str(config)), 60, "all three workers")
    pod = begins(queue, redis_address, {"number": 32, "seconds": 15, "eat": True})
    with ended_from_the_node(kubectl, pod, "lambda-0", "lambda-1"):
        until(lambda: result(queue, 32) is not None, 60, "the result")
    about = result(queue, 32)
    assert about is not None
    assert about[0]["outcome"]["failure"] == "out_of_memory"
    assert about[1]["errorType"] == "Runtime.OutOfMemory"
    submit(queue, STREAM, ({"number": number, "seconds": 0} for number in range(40, 60)))
    until(lambda: all(result(queue, number) for number in range(40, 60)), 60, "results of a container that is back")


def test_tasks_survive_deleted_pods_a_drain_a_rolling_update_and_scaling(
    config: Path, queue: redis.Redis, kubectl: Kubectl
) -> None:
    numbers = range(100, 2100)
    before = stored(queue)
    submit(queue, STREAM, ({"number": number, "seconds": 0.2} for number in numbers))

    def wait_for(count: int) -> None:
        until(lambda: stored(queue) - before >= count, 300, f"{count} results")

    chance = random.Random(6)
    for force in (False, True, False, True):
        wait_for(stored(queue) - before + 60)
        how = ["--force", "--grace-period=0"] if force else []
        kubectl("delete", "pod", chance.choice(pods(kubectl)), "--wait=false", *how)
    wait_for(500)
    node = kubectl("get", "nodes", "-o", "name").split()[0]
    with node_takes_pods(ours_alone=True):
        try:
            # On one node the budget stops it half-way, since evicted pods find no other.
            timeout = "--timeout=10s"
            drained = kubectl("drain", node, "--pod-selector", PODS, "--delete-emptydir-data", timeout, check=False)
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
    assert answers(queue, numbers) == squares(numbers)
    assert stored(queue) - before == len(numbers)


def test_nothing_of_a_worker_is_reachable_from_another_pod(
    config: Path, kubectl: Kubectl, agent_image: str, redis_address: tuple[str, int]
) -> None:
    (worker,) = pods(kubectl)
    address = kubectl("get", "pod", worker, "-o", "jsonpath={.status.podIP}")
    assert open_ports(kubectl, agent_image, address, *redis_address) == []


def test_undeploy_leaves_nothing(config: Path, kubectl: Kubectl) -> None:
    assert "nothing of htcgrid-squares is left" in went_well("undeploy", "-c", str(config))
    kinds = "deployments,replicasets,pods,configmaps,serviceaccounts,roles,rolebindings,networkpolicies,pdb"
    assert "htcgrid-squares" not in kubectl("get", kinds, "-o", "name")

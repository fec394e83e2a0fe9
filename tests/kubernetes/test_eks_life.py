"""What becomes of a run from outside when containers, pods, connections or the run itself are ended."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_images as images
import pytest
from htcgrid_eks.invoker import EksInvoker
from kubernetes_commands import Kubectl, ended_from_the_node, open_ports, went_well
from kubernetes_grid import until
from results_lines import outputs

from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task, Unavailable

HANDLER = """
import subprocess
import sys
import time

def handler(event, context):
    if event == "out of memory":
        eat = "len(bytearray(1 << 30).replace(bytes(1), b'1'))"
        subprocess.run([sys.executable, "-c", eat])
        event = 25
    time.sleep(event)
    return "slept"
"""
OPTIONS = Path(images.ROOT, "examples/options")


@pytest.fixture
def config(namespace: str, agent_image: str, lambda_image: str) -> EksInvoker.Config:
    return EksInvoker.Config(
        image=lambda_image, agent_image=agent_image, namespace=namespace, orphan_seconds=3, start_seconds=60
    )


@pytest.fixture
def function(tmp_path: Path) -> Function:
    (tmp_path / "life.py").write_text(HANDLER)
    return Function(handler="life.handler", code=tmp_path, timeout=30, memory=128)


@pytest.fixture
def plane(config: EksInvoker.Config, function: Function) -> Iterator[EksInvoker]:
    with EksInvoker(config, function) as plane:
        yield plane


def call(plane: EksInvoker, event: object) -> Outcome:
    (outcome,) = plane.invoke([Lease(Task("t-1", json.dumps(event).encode()))], plane.function.timeout)
    assert isinstance(outcome, Outcome)
    return outcome


def works_again(plane: EksInvoker) -> None:
    """As the agent does: it tries again where the plane is unavailable."""

    def works() -> bool:
        try:
            return call(plane, 0).payload == b'"slept"'
        except Unavailable:
            return False

    until(works, 60, "an answer")


@pytest.mark.parametrize(
    ("event", "failure", "error"),
    [
        pytest.param("out of memory", FailureKind.OUT_OF_MEMORY, "Runtime.OutOfMemory", id="OOMKilled"),
        pytest.param(25, FailureKind.EXIT, "Runtime.ExitError", id="killed"),
    ],
)
def test_how_a_container_ended_whole_is_read_from_the_pods_status(
    plane: EksInvoker, kubectl: Kubectl, event: object, failure: FailureKind, error: str
) -> None:
    assert call(plane, 0).payload == b'"slept"'  # what takes long is over before the seconds are counted
    with ended_from_the_node(kubectl, plane.relay_of(0), "lambda-0"):
        outcome = call(plane, event)
    document = json.loads(outcome.payload)
    assert (outcome.failure, document["errorType"]) == (failure, error)
    assert document["errorMessage"].endswith("signal: killed")
    works_again(plane)


def test_a_pod_that_is_removed_is_replaced_and_its_task_is_known_to_have_begun(
    plane: EksInvoker, kubectl: Kubectl
) -> None:
    assert call(plane, 0).payload == b'"slept"'
    delete = ["kubectl", "-n", plane.config.namespace, "delete", "--now", "pod", plane.relay_of(0)]
    script = f"import time, subprocess; time.sleep(2); subprocess.run({delete!r})"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL):
        with pytest.raises(Unavailable) as caught:
            call(plane, 25)
        assert caught.value.begun == {"t-1"}
    works_again(plane)


def test_a_connection_that_broke_while_idle_is_opened_anew(plane: EksInvoker) -> None:
    assert call(plane, 0).payload == b'"slept"'
    for place in plane._places:
        assert place.client is not None
        place.client.close()
    assert call(plane, 0).payload == b'"slept"'


@pytest.mark.parametrize("transport", ["http", "rie"])
def test_neither_runtime_api_nor_emulator_nor_relay_is_reachable_from_another_pod(
    config: EksInvoker.Config, function: Function, kubectl: Kubectl, redis_address: tuple[str, int], transport: str
) -> None:
    with EksInvoker(config.model_copy(update={"transport": transport}), function) as plane:
        assert call(plane, 0).payload == b'"slept"'
        pod = plane.relay_of(0)
        address = kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
        assert open_ports(kubectl, config.agent_image, address, *redis_address) == []


def test_what_a_killed_run_leaves_ends_by_itself_and_goes_with_the_next_start(
    config: EksInvoker.Config, function: Function, kubectl: Kubectl
) -> None:
    program = (
        "import sys, time\n"
        "from htcgrid.spi import Function\n"
        "from htcgrid_eks.invoker import EksInvoker\n"
        "config = EksInvoker.Config.model_validate_json(sys.argv[1])\n"
        "with EksInvoker(config, Function.model_validate_json(sys.argv[2])) as plane:\n"
        "    print(plane.relay_of(0), flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, config.model_dump_json(), function.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        left = run.stdout.readline().decode().strip()
        run.send_signal(signal.SIGKILL)
    phase = "jsonpath={.status.phase}"
    until(lambda: kubectl("get", "pod", left, "-o", phase) == "Succeeded", 60, "the end of the pod")
    with EksInvoker(config, function) as plane:
        works_again(plane)
        until(lambda: left not in kubectl("get", "pods", "-o", "name"), 30, "the removal of the pod")


def test_the_options_example_gives_the_same_bytes_as_on_this_machine(
    tmp_path: Path, namespace: str, agent_image: str
) -> None:
    image = images.options_image()
    with_data = os.environ | {"PYTHONPATH": str(images.ROOT / ".make/data")}  # where the Makefile has it
    make = [sys.executable, "make_tasks.py"]
    made = subprocess.run(make, cwd=OPTIONS, env=with_data, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs what `make .make/examples` installs: {made.stderr.strip()}")
    plane = {"plugin": "eks", "namespace": namespace, "image": image, "agent_image": agent_image, "pods": 2}
    settings = [f"--set=planes.cluster.{name}={value}" for name, value in plane.items()]
    found = {}
    for name in ("local", "cluster"):
        results = tmp_path / f"{name}.jsonl"
        config = ["-c", str(OPTIONS / "htcgrid.toml"), "--plane", name, f"--set=sink.path={results}", "--quiet"]
        went_well("run", *config, *(settings if name == "cluster" else []))
        found[name] = outputs(results)
    assert len(found["local"]) > 1000
    assert found["cluster"] == found["local"]

"""Containers from start to removal: killed agents, a stopped engine, and what is nobody's business."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from docker_parts import OwnEngine, Relay, until
from htcgrid_contracts import contract_function
from htcgrid_contracts.output_rules import KeptOutput
from htcgrid_local_docker import ownership
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options
from program_end import output_at_end

from htcgrid.spi import FailureKind, Lease, Outcome, Task, Unavailable, Unstarted

OURS = {"label": ["io.htcgrid.plane=local_docker"]}
HANDLER = """
import time


def handler(event, context):
    print("number", event["number"])
    time.sleep(event["seconds"])
    return event["number"]
"""


def ours(engine: docker.APIClient, owner: int) -> list[str]:
    """Containers and networks that this process has made."""
    found = [*engine.containers(all=True, filters=OURS), *engine.networks(filters=OURS)]
    return [each["Id"] for each in found if f"/{owner}/" in each["Labels"].get("io.htcgrid.owner", "")]


def running(engine: docker.APIClient, owner: int) -> int:
    """How many containers of this process run. Once all do, the engine is not at work on another of them."""
    found = engine.containers(filters=OURS)
    return sum(f"/{owner}/" in each["Labels"].get("io.htcgrid.owner", "") for each in found)


def plane(image: str, **options: Any) -> LocalDockerInvoker:
    return LocalDockerInvoker(Options(base_image=image, **options), contract_function())


def call(opened: LocalDockerInvoker, do: str, timeout: float = 20, **event: Any) -> Outcome:
    (outcome,) = opened.invoke([Lease(Task(f"t-{do}", json.dumps({"do": do, **event}).encode()))], timeout)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.fixture
def made(engine: docker.APIClient) -> Callable[[], set[str]]:
    """What this process has made since the test began; rules about an engine that went away leave things."""
    before = set(ours(engine, os.getpid()))
    return lambda: set(ours(engine, os.getpid())) - before


class Project:
    """A folder with tasks and a config, run as a user does."""

    def __init__(self, folder: Path, image: str, tasks: int, seconds: float, host: str = "") -> None:
        self._folder = folder
        folder.chmod(0o755)
        self.tasks = tasks
        (folder / "slow.py").write_text(HANDLER)
        lines = [json.dumps({"number": number, "seconds": seconds}) + "\n" for number in range(tasks)]
        (folder / "tasks.jsonl").write_text("".join(lines))
        where = f'host = "{host}"\n' if host else ""
        (folder / "htcgrid.toml").write_text(
            'plane = "docker"\n[function]\nhandler = "slow.handler"\nmemory = 128\n'
            '[source]\nplugin = "jsonl"\npath = "tasks.jsonl"\n[sink]\nplugin = "jsonl"\npath = "results.jsonl"\n'
            "[agent]\nunavailable_limit = 2\ngrace = 5\n"
            f'[planes.docker]\nplugin = "local_docker"\nbase_image = "{image}"\nworkers = 2\n{where}'
        )

    def start(self, *flags: str) -> subprocess.Popen[str]:
        script = f"from htcgrid.cli import main; main({['run', *flags]!r})"
        return subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=self._folder,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )

    def run(self, *flags: str) -> str:
        """To the end, which is a good one; returns what it said."""
        process = self.start(*flags)
        said = output_at_end(process, seconds=100)[1]
        assert process.returncode == 0, said
        return said

    def results(self) -> list[int]:
        with contextlib.suppress(FileNotFoundError):
            lines = (self._folder / "results.jsonl").read_text().splitlines(keepends=True)
            return [json.loads(line)["output"] for line in lines if line.endswith("\n")]
        return []


@pytest.fixture
def opened(python_image: str) -> Iterator[LocalDockerInvoker]:
    with plane(python_image, workers=2) as opened:
        yield opened


def test_nothing_is_left_after_a_normal_end(made: Callable[[], set[str]], python_image: str) -> None:
    with plane(python_image, workers=2) as opened:
        call(opened, "echo", value=1)
        assert made(), "a container, and a network where the engine needs one"
    assert not made()


def test_a_timeout_ends_the_container_and_not_the_pool(opened: LocalDockerInvoker) -> None:
    before = json.loads(call(opened, "count").payload)["environment"]
    assert call(opened, "sleep", timeout=0.5, seconds=30).failure is FailureKind.TIMEOUT
    after = json.loads(call(opened, "count").payload)
    assert after["environment"] != before
    assert after["execution"] == 1


@pytest.fixture
def alone(second_engine: OwnEngine) -> Iterator[docker.APIClient]:
    """An engine on which no other test opens a plane, which would remove what a killed agent has left."""
    client = second_engine.client()
    yield client
    client.close()


def test_a_killed_agent_leaves_what_the_next_run_removes(
    alone: docker.APIClient, second_engine: OwnEngine, python_image: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, python_image, tasks=12, seconds=0.4, host=second_engine.host)
    agent = project.start()
    until(lambda: len(project.results()) >= 2, 60, "two results")
    agent.kill()
    output_at_end(agent)
    assert ours(alone, agent.pid), "the killed agent had containers"

    project.run()

    assert sorted(project.results()) == list(range(project.tasks))
    assert not alone.containers(all=True, filters=OURS)


def test_a_run_with_logs_has_what_its_handlers_printed_with_task_and_stream(python_image: str, tmp_path: Path) -> None:
    project = Project(tmp_path, python_image, tasks=4, seconds=0)
    project.run("--logs", str(tmp_path / "logs"))
    [file] = (tmp_path / "logs").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    printed = [line for line in lines if line["message"].startswith("number")]
    assert sorted(line["message"] for line in printed) == [f"number {number}" for number in range(4)]
    assert sorted(line["task"] for line in printed) == sorted(str(number + 1) for number in range(4))
    assert {line["stream"] for line in printed} == {"stdout"}


def test_undeploy_removes_what_a_killed_agent_left_and_nothing_of_the_living(
    alone: docker.APIClient, second_engine: OwnEngine, python_image: str, tmp_path: Path
) -> None:
    with plane(python_image, workers=1, host=second_engine.host) as opened:
        call(opened, "echo", value=1)
        project = Project(tmp_path, python_image, tasks=4, seconds=20, host=second_engine.host)
        agent = project.start()
        until(lambda: running(alone, agent.pid) == 2, 60, "its containers")
        agent.kill()
        output_at_end(agent)

        said = "\n".join(plane(python_image, host=second_engine.host).undeploy())

        assert not ours(alone, agent.pid)
        assert "removed container" in said
        assert f"left alone: 1 container(s) of the agent with process id {os.getpid()}" in said
        assert call(opened, "echo", value=2).payload == b"2"


def test_containers_of_others_are_never_touched(engine: docker.APIClient, python_image: str) -> None:
    """One without our labels, one of an owner on another machine, one of a process id that lives again."""
    here = ownership.labels(contract_function())[ownership.OWNER].split("/")
    elsewhere = "/".join(["another-machine", *here[1:]])
    made = [
        engine.create_container(python_image, ["x"], labels=labels)["Id"]
        for labels in (
            {},
            {ownership.PLANE: "local_docker", ownership.OWNER: elsewhere},
            {ownership.PLANE: "local_docker"},
        )
    ]
    gone = "/".join([*here[:3], here[3], "1"])
    dead = engine.create_container(
        python_image, ["x"], labels={ownership.PLANE: "local_docker", ownership.OWNER: gone}
    )["Id"]
    try:
        with plane(python_image) as opened:
            call(opened, "echo", value=1)
        left = {each["Id"] for each in engine.containers(all=True)}
        assert set(made) <= left
        assert dead not in left
    finally:
        for container in made:
            engine.remove_container(container, force=True)


def test_the_engine_is_stopped_in_mid_run_and_started_again(
    second_engine: OwnEngine, python_image: str, tmp_path: Path
) -> None:
    project = Project(tmp_path, python_image, tasks=16, seconds=0.5, host=second_engine.host)
    agent = project.start()
    until(lambda: len(project.results()) >= 2, 60, "two results")
    second_engine.stop()
    try:
        said = output_at_end(agent)[1]
    finally:
        second_engine.start()

    assert agent.returncode == 3, said
    assert "No Docker Engine answers" in said or "went away" in said
    assert "Start it" in said
    done = project.results()
    assert len(done) == len(set(done))
    assert len(done) < project.tasks

    project.run()

    assert sorted(project.results()) == list(range(project.tasks))
    client = second_engine.client()
    assert not client.containers(all=True, filters=OURS)
    client.close()


def test_containers_start_side_by_side(python_image: str) -> None:
    """Each in the thread that needs it: while one comes up, another does."""
    with plane(python_image, workers=3) as opened:
        threads = [threading.Thread(target=call, args=(opened, "sleep"), kwargs={"seconds": 2.0}) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: None not in opened._places, 30, "three containers at once")
        for thread in threads:
            thread.join()


def test_a_container_that_ended_while_idle_is_replaced(
    engine: docker.APIClient, made: Callable[[], set[str]], python_image: str
) -> None:
    with plane(python_image, workers=1) as opened:
        call(opened, "echo", value=1)
        (container,) = made() & {each["Id"] for each in engine.containers()}
        engine.kill(container, signal.SIGTERM)
        engine.wait(container)
        task = Task("t", b'{"do": "echo", "value": 2}')
        (report,) = opened.invoke([Lease(task)], 20)
        if report == Unstarted("t"):  # the engine told us of the end before it told the plane
            (report,) = opened.invoke([Lease(task)], 20)
        assert isinstance(report, Outcome)
        assert report.payload == b"2"


def test_what_each_container_printed_is_handed_over(python_image: str) -> None:
    invoker = plane(python_image, workers=1)
    invoker.output = kept = KeptOutput()
    with invoker as opened:
        call(opened, "say", text="of the first")
        call(opened, "end", status=3)
        call(opened, "say", text="of the second")
    assert b"".join(kept.texts["t-say"]) == b"of the first\nof the second\n"
    assert b"ending\n" in b"".join(kept.texts["t-end"])
    assert "stdout" in kept.streams


def test_what_is_printed_last_is_in_the_tail_of_its_own_invocation(opened: LocalDockerInvoker) -> None:
    """What a handler prints last is in its own tail, many times in a row."""
    for number in range(200):
        outcome = call(opened, "say", text=f"line {number}")
        assert outcome.log_tail == f"line {number}\n".encode()


def test_an_engine_that_comes_back_is_used_again(
    engine: docker.APIClient, made: Callable[[], set[str]], python_image: str, relay: Relay
) -> None:
    with plane(python_image, workers=1, host=relay.open()) as opened:
        call(opened, "echo", value=1)
        relay.close()
        for _ in range(3):
            with pytest.raises(Unavailable) as caught:
                call(opened, "echo", value=2)
            assert not caught.value.begun, "nothing was begun"
        relay.open()
        assert call(opened, "echo", value=3).payload == b"3"
        containers = {each["Id"] for each in engine.containers(all=True)}
        assert len(made() & containers) == 1, "the one that was there before is gone"


def test_a_task_that_ran_when_the_engine_went_away_is_said_to_have_begun(python_image: str, relay: Relay) -> None:
    with plane(python_image, workers=1, host=relay.open()) as opened:
        call(opened, "echo", value=1)
        (environment,) = filter(None, opened._places)

        def cut_once_it_runs() -> None:
            until(lambda: environment._running() is not None, 20, "the handler runs")
            relay.close()

        cut = threading.Thread(target=cut_once_it_runs)
        cut.start()
        with pytest.raises(Unavailable, match="went away") as caught:
            call(opened, "sleep", seconds=10)
        assert caught.value.begun == {"t-sleep"}
        cut.join()

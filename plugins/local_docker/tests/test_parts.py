"""What needs no engine."""

import io
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError
from htcgrid.planes import RieEnvironment
from htcgrid.spi import FailureKind, Function, Outcome, Rejected, Unavailable

from htcgrid_local_docker import building, container_spec
from htcgrid_local_docker.container_memory import ContainerMemory
from htcgrid_local_docker.diagnosis import _error_type, check_came_up
from htcgrid_local_docker.engine import Engine, explained
from htcgrid_local_docker.images import Image
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.network import Network
from htcgrid_local_docker.options import Options
from htcgrid_local_docker.pulling import Pull
from htcgrid_local_docker.sandbox import ContainerSandbox

IMAGE = Image("base:1", "sha256:0", "amd64", ("/lambda-entrypoint.sh",), ("app.handler",), frozenset({"PATH"}))
NETWORK = Network("n", "192.0.2.1", own=True)


def test_a_process_that_has_ended_is_not_measured() -> None:
    """The kernel counts it as one of the root group."""
    with subprocess.Popen(["true"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert ContainerMemory(ended.pid, "0123456789ab").megabytes() == 0.0


def test_the_images_command_is_kept_where_only_the_entry_point_is_replaced() -> None:
    drawn = container_spec.spec_of(Options(image="base:1", entrypoint=("/bootstrap",)), Function(), IMAGE, NETWORK)
    assert container_spec.command(drawn) == ["app.handler"]


def test_the_handler_takes_the_place_of_the_images_command() -> None:
    drawn = container_spec.spec_of(Options(image="base:1"), Function(handler="mine.handler"), IMAGE, NETWORK)
    assert container_spec.command(drawn) == ["mine.handler"]
    assert drawn.environment["_HANDLER"] == "mine.handler"


@pytest.mark.parametrize("level", ["CRITICAL", "nonsense"])
def test_a_log_level_that_ends_the_emulator_is_refused_there_and_nowhere_else(level: str) -> None:
    function = Function(handler="mine.handler", environment={"LOG_LEVEL": level})
    with pytest.raises(Rejected, match="LOG_LEVEL"):
        container_spec.spec_of(Options(image="base:1", transport="rie"), function, IMAGE, NETWORK)
    assert container_spec.spec_of(Options(image="base:1"), function, IMAGE, NETWORK).environment["LOG_LEVEL"] == level


def test_without_a_handler_the_image_decides() -> None:
    drawn = container_spec.spec_of(Options(image="base:1"), Function(), IMAGE, NETWORK)
    assert container_spec.command(drawn) is None
    assert "_HANDLER" not in drawn.environment


def test_the_first_line_of_dockerignore_counts_behind_a_mark_of_utf_8_too(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("private.txt\n", encoding="utf-8-sig")
    (tmp_path / "private.txt").write_text("not for the image")
    (tmp_path / "app.py").write_text("")
    context = io.BytesIO()
    building._pack(context, Function(code=tmp_path), "FROM base", None)
    context.seek(0)
    with tarfile.open(fileobj=context) as archive:
        names = archive.getnames()
    assert "app.py" in names
    assert "private.txt" not in names


def test_an_environment_file_has_lines_and_a_mark_of_utf_8_as_docker_reads_them(tmp_path: Path) -> None:
    text = "\ufeffFIRST=1\r\nGREETING=good\u2028B=day\x85\x0c!\nLAST=3"
    (tmp_path / "e").write_text(text, encoding="utf-8", newline="")
    found = container_spec._read(tmp_path / "e")
    assert found == {"FIRST": "1", "GREETING": "good\u2028B=day\x85\x0c!", "LAST": "3"}


def test_the_config_outweighs_the_environment_file(tmp_path: Path) -> None:
    (tmp_path / "e").write_text("A=file\nB=with = and space \n\n# C=1\n")
    options = Options(image="base:1", env_file=tmp_path / "e")
    drawn = container_spec.spec_of(options, Function(environment={"A": "config"}), IMAGE, NETWORK)
    assert drawn.environment["A"] == "config"
    assert drawn.environment["B"] == "with = and space "
    assert "C" not in drawn.environment


@pytest.mark.parametrize("line", ["nothing", "=x", "two words=x"])
def test_a_line_that_is_no_variable_is_refused_without_showing_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "e").write_text(f"OK=1\n{line}\n")
    with pytest.raises(Rejected, match="line 2: write it as NAME=VALUE") as caught:
        container_spec.spec_of(Options(image="base:1", env_file=tmp_path / "e"), Function(), IMAGE, NETWORK)
    assert line not in str(caught.value).removeprefix(str(tmp_path))


@pytest.mark.parametrize(
    ("said", "kind", "advice"),
    [
        ("write /x: no space left on device", Unavailable, "docker system prune"),
        ('exec: "app": executable file not found in $PATH', Rejected, "entrypoint"),
        ("could not select device driver", Rejected, "toolkit"),
        ("something new", Rejected, "something new"),
    ],
)
def test_what_the_engine_says_comes_with_what_to_do(said: str, kind: type[Exception], advice: str) -> None:
    error = explained(said, "start")
    assert isinstance(error, kind)
    assert advice in str(error)


def test_a_pull_says_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("htcgrid_local_docker.pulling._SAY_SECONDS", 0.0)
    pull = Pull("base:1", said.append)
    pull.take({"id": "a", "status": "Downloading", "progressDetail": {"current": 3_000_000, "total": 9_000_000}})
    pull.take({"id": "a", "status": "Download complete"})
    assert "3 of 9 MB" in said[1]
    assert "9 of 9 MB" in said[2]


def test_a_pull_goes_on_where_the_engine_leaves_out_that_nothing_of_a_layer_has_come_yet() -> None:
    Pull("base:1", lambda _: None).take({"id": "a", "status": "Downloading", "progressDetail": {"total": 9_000_000}})


def test_a_registry_that_wants_a_login_says_so() -> None:
    error = Pull("base:1", lambda _: None).failed("pull access denied for base, repository does not exist")
    assert isinstance(error, Rejected)
    assert "docker login" in str(error)


def test_an_initialisation_error_of_the_handlers_own_is_the_tasks() -> None:
    drawn = container_spec.spec_of(Options(image="base:1"), Function(), IMAGE, NETWORK)
    check_came_up(Outcome("t", b'{"errorType": "Runtime.ImportModuleError"}', FailureKind.INIT_ERROR), drawn)
    check_came_up(Outcome("t", b'{"errorType": "Runtime.ExitError"}', FailureKind.INIT_ERROR), drawn)


def test_once_a_container_came_up_one_that_does_not_is_the_tasks() -> None:
    late = Outcome("t", b'{"errorType": "Sandbox.Timedout"}', FailureKind.INIT_ERROR)
    plane = LocalDockerInvoker(Options(image="base:1"), Function())
    plane._spec = container_spec.spec_of(plane.config, Function(), IMAGE, NETWORK)
    with pytest.raises(Rejected, match=r"never called the Runtime API(.|\n)*\[function\] timeout"):
        plane.corrected(late, 0)
    plane.corrected(Outcome("t", b"1"), 0)
    assert plane.corrected(late, 0) is late


class Left(ContainerSandbox):
    """Cannot be removed; `meanwhile` runs in another thread while that is found out."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self._meanwhile = meanwhile

    def close(self) -> None: ...

    @property
    def is_left(self) -> bool:
        other = threading.Thread(target=self._meanwhile)
        other.start()
        other.join()
        return True


def test_what_two_threads_leave_at_the_same_time_is_removed_later() -> None:
    """A third takes what was left before, to try again, between the two."""
    plane = LocalDockerInvoker(Options(image="base:1"), Function())
    second = Left()

    def meanwhile() -> None:
        plane._remove_what_is_left()
        leaves(second)

    def leaves(sandbox: ContainerSandbox) -> None:
        plane.removed(RieEnvironment(Function(), sandbox), 0)

    first = Left(meanwhile)
    leaves(first)
    assert set(plane._left) == {first, second}


class Busy(Engine):
    """One that cannot remove containers at first."""

    def __init__(self) -> None:
        super().__init__("unix:///run/engine.sock")
        self.is_busy = True
        self.removed: list[str] = []

    @property
    def client(self) -> Any:
        return self

    def remove_container(self, container: str, **_: object) -> None:
        if self.is_busy:
            raise APIError("500 Server Error", explanation="unable to remove filesystem: device or resource busy")
        self.removed.append(container)


def test_a_container_that_cannot_be_removed_yet_is_removed_later_and_ends_no_run() -> None:
    engine, plane = Busy(), LocalDockerInvoker(Options(image="base:1"), Function())
    sandbox = ContainerSandbox(engine, container_spec.spec_of(plane.config, Function(), IMAGE, NETWORK))
    sandbox._container = "c"
    sandbox.close()
    plane.removed(RieEnvironment(Function(), sandbox), 0)
    plane._remove_what_is_left()
    engine.is_busy = False
    plane._remove_what_is_left()
    assert engine.removed == ["c"]
    assert not plane._left


FOREIGN = replace(IMAGE, architecture="s390x")


@pytest.mark.parametrize(
    "said",
    [
        b"[FATAL tini (7)] exec /bootstrap failed: Exec format error",
        b"[FATAL tini (7)] exec /bootstrap failed: No such file or directory",  # it tries /bin/sh, which is not there
        b"ERROR (catatonit:2): failed to exec pid1: Exec format error",
    ],
)
def test_a_program_that_this_machine_cannot_run_is_the_images_fault(said: bytes) -> None:
    drawn = container_spec.spec_of(Options(image="base:1"), Function(), FOREIGN, NETWORK)
    ended = Outcome("t", b'{"errorType": "Runtime.ExitError"}', FailureKind.INIT_ERROR, log_tail=said)
    with pytest.raises(Rejected, match="is for s390x, which this machine cannot run"):
        check_came_up(ended, drawn)


def test_a_handler_that_ends_an_emulated_runtime_is_the_tasks() -> None:
    drawn = container_spec.spec_of(Options(image="base:1"), Function(), FOREIGN, NETWORK)
    check_came_up(Outcome("t", b'{"errorType": "Runtime.ExitError"}', FailureKind.INIT_ERROR, log_tail=b"bye"), drawn)


@pytest.mark.parametrize(
    ("gpus", "asked"),
    [
        ("all", {"Count": -1, "DeviceIDs": []}),
        ("2", {"Count": 2, "DeviceIDs": []}),
        ("0,2", {"Count": 0, "DeviceIDs": ["0", "2"]}),
    ],
)
def test_gpus_are_asked_of_the_engine(gpus: str, asked: dict[str, Any]) -> None:
    drawn = container_spec.spec_of(Options(image="base:1", gpus=gpus), Function(), IMAGE, NETWORK)
    arguments = container_spec.create_arguments(drawn, docker.APIClient(version="1.41"), {})
    (request,) = arguments["host_config"]["DeviceRequests"]
    assert request["Capabilities"] == [["gpu"]]
    assert {name: request[name] for name in asked} == asked


def test_a_base_without_a_client_gets_one(tmp_path: Path) -> None:
    bare = Image("python:3.13", "sha256:0", "amd64", (), ("python3",), frozenset())
    function = Function(handler="mine.handler", code=tmp_path)
    assert "awslambdaric" not in building.dockerfile(function, IMAGE, None)
    text = building.dockerfile(function, bare, None)
    assert "install --no-cache-dir --target /var/task awslambdaric" in text
    assert 'ENTRYPOINT ["python3", "-m", "awslambdaric"]' in text


def test_no_secret_of_the_code_folder_reaches_the_image(tmp_path: Path) -> None:
    code = tmp_path / "src"
    code.mkdir()
    (tmp_path / "outside.txt").write_text("SECRET")
    (code / "link.txt").symlink_to(tmp_path / "outside.txt")
    for name in ("greet.py", "notes.md", ".env", ".git/config", ".aws/credentials", "server.pem", "Dockerfile"):
        (code / name).parent.mkdir(exist_ok=True)
        (code / name).write_text("SECRET")
    (code / ".dockerignore").write_text("*.md\n")
    context = io.BytesIO()
    building._pack(context, Function(code=code), "FROM scratch\n", None)
    context.seek(0)
    with tarfile.open(fileobj=context) as archive:
        assert archive.getnames() == ["greet.py", "Dockerfile"]


@pytest.mark.parametrize("payload", [b"[" * 200_000 + b"]" * 200_000, b"\xff\xfe", b"NaN", b""])
def test_an_error_that_is_not_a_document_has_no_type(payload: bytes) -> None:
    assert _error_type(Outcome("t", payload, FailureKind.INIT_ERROR)) == ""


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore"])
def test_a_file_of_a_build_that_is_not_utf_8_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"FROM base # caf\xe9\n")
    function = Function(code=tmp_path)
    image = Image("base", "", "amd64", (), (), frozenset())
    with pytest.raises(Rejected, match=f"{name} cannot be read"):  # noqa: PT012 - whichever reads it
        text, _ = building.written(function, lambda: image, None)
        building._pack(io.BytesIO(), function, text, None)

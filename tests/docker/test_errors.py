"""What does not work at once says what is wrong and what to do, within seconds."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest
from docker_parts import OwnEngine, load_image
from htcgrid_contracts import contract_function
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options
from pydantic import ValidationError

from htcgrid.spi import HtcgridError, Lease, Rejected, Task, Unavailable

ECHO = [Lease(Task("t", b'{"do": "echo", "value": 1}'))]


def plane(function: dict[str, Any] | None = None, **options: Any) -> LocalDockerInvoker:
    return LocalDockerInvoker(Options(**options), contract_function().model_copy(update=function or {}))


@contextmanager
def says(kind: type[HtcgridError], *words: str) -> Iterator[None]:
    """The block ends soon with such an error, which has these words."""
    began = time.monotonic()
    with pytest.raises(kind) as caught:
        yield
    text = str(caught.value)
    assert time.monotonic() - began < 5, f"too late: {text}"
    assert not [word for word in words if word not in text], text


def opens(function: dict[str, Any] | None = None, **options: Any) -> None:
    with plane(function, **options):
        pass


def invoke(**options: Any) -> None:
    with plane(**options, workers=1) as opened:
        list(opened.invoke(ECHO, 20))


def test_no_engine(tmp_path: Path) -> None:
    with says(Unavailable, f"No Docker Engine answers at unix://{tmp_path}/no.sock", "systemctl start docker"):
        opens(image="x", host=f"unix://{tmp_path}/no.sock")


def test_an_engine_that_ended_and_left_its_socket(tmp_path: Path) -> None:
    script = f"import socket; socket.socket(socket.AF_UNIX).bind('{tmp_path}/left.sock')"
    subprocess.run([sys.executable, "-c", script], check=True)
    with says(Unavailable, "No Docker Engine answers", "systemctl start docker"):
        opens(image="x", host=f"unix://{tmp_path}/left.sock")


def test_a_socket_that_this_user_may_not_use(engine: docker.APIClient) -> None:
    """In a process of user nobody, where these tests are root."""
    if os.geteuid() != 0:
        pytest.skip("not asked: only root can start another user's process")
    script = (
        "import os; from htcgrid_local_docker.invoker import LocalDockerInvoker as P\n"
        "from htcgrid.spi import Function, Rejected\n"
        "plane = P(P.Config(image='x'), Function())\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: plane.open()\n"
        "except Rejected as error: print(error)\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 5
    assert "may not use the Docker Engine's socket" in done.stdout, done
    assert "usermod -aG docker" in done.stdout


def test_an_image_that_is_not_there_and_not_pulled(engine: docker.APIClient) -> None:
    with says(Rejected, "no image 'local/none:1'", 'pull = "never"'):
        opens(image="local/none:1", pull="never")


def test_an_image_that_is_not_there_and_cannot_be_pulled(engine: docker.APIClient) -> None:
    with says(Rejected, "127.0.0.1:9/none:1", "cannot be reached", "docker load"):
        opens(image="127.0.0.1:9/none:1")


def test_an_image_without_a_runtime_client(engine: docker.APIClient, python_image: str) -> None:
    with says(Rejected, "without calling the Lambda Runtime API", "no runtime client", "awslambdaric", "hello"):
        invoke(base_image=python_image, entrypoint=["python3", "-c", "print('hello')"])


def test_an_image_that_lacks_the_client_that_it_names(engine: docker.APIClient) -> None:
    with says(Rejected, "no runtime client", "No module named awslambdaric"):
        invoke(base_image="local/debian:bookworm", entrypoint=["python3", "-m", "awslambdaric"])


def test_an_entry_point_that_is_not_in_the_image(engine: docker.APIClient, python_image: str) -> None:
    with says(Rejected, "no-such-program", "entrypoint"):
        invoke(base_image=python_image, entrypoint=["no-such-program"])


def test_an_image_that_is_not_of_the_architecture_asked_for(engine: docker.APIClient, python_image: str) -> None:
    with says(Rejected, "is for amd64", "architecture = 'arm64'", "docker build --platform linux/arm64"):
        opens({"architecture": "arm64"}, base_image=python_image, pull="never")


def test_an_architecture_that_this_machine_does_not_emulate(engine: docker.APIClient) -> None:
    if Path("/proc/sys/fs/binfmt_misc/qemu-s390x").exists():
        pytest.skip("this machine emulates s390x")
    program = bytearray(Path("/bin/true").read_bytes())
    program[18:20] = (0x1234).to_bytes(2, "little")  # the field of an ELF file that names the machine
    name = "local/foreign-program:1"
    load_image(engine, name, "s390x", {"bootstrap": bytes(program)}, {"Entrypoint": ["/bootstrap"]})
    try:
        with says(Rejected, "is for s390x, which this machine cannot run", "qemu-user-static"):
            invoke(image=name)
    finally:
        engine.remove_image(name, force=True)


def fill(file: Path) -> None:
    """Write until there is no space left."""
    with file.open("wb", buffering=0) as filler:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while filler.write(b"x" * size):
                    pass


def test_a_full_disk(docker_itself: None, python_image: str, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small file system needs root")
    data = tmp_path / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m", "tmpfs", data], check=True)
    second = OwnEngine(tmp_path, data)
    try:
        second.start()
        second.load(python_image)
        with plane(base_image=python_image, workers=1, host=second.host) as opened:
            fill(data / "filler")
            with says(Unavailable, "no space left on device", "docker system prune"):
                list(opened.invoke(ECHO, 20))
            (data / "filler").unlink()
    finally:
        second.remove()
        subprocess.run(["umount", "--lazy", data], check=True)


def test_a_network_that_is_not_there(engine: docker.APIClient, python_image: str) -> None:
    with says(Rejected, "network = 'no-such-network'", "docker network ls"):
        opens(base_image=python_image, network="no-such-network")


def test_gpus_that_are_not_there(docker_itself: None, python_image: str) -> None:
    with says(Rejected, "gpus", "container toolkit"):
        invoke(base_image=python_image, gpus="all")


def test_code_that_the_containers_user_cannot_read(engine: docker.APIClient, python_image: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch(mode=0o600)
    tmp_path.chmod(0o755)
    with says(Rejected, "mine.py may not be read", "chmod -R o+rX"):
        opens({"code": tmp_path}, base_image=python_image)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name one of `image`"),
        ({"image": "a", "base_image": "b"}, "name one of `image`"),
        ({"image": "a", "user": "0"}, "is root"),
        ({"image": "a", "network": "none"}, "Leave `network` out"),
    ],
)
def test_options_that_contradict(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Options(**options)


def test_the_values_of_an_environment_file_are_not_shown(
    engine: docker.APIClient, python_image: str, tmp_path: Path
) -> None:
    file = tmp_path / "secrets.env"
    file.write_text("TOKEN=s3cret\nAWS_LAMBDA_RUNTIME_API=x\n")
    with says(Rejected, "line 2", "reserved by Lambda"):
        opens(base_image=python_image, env_file=file)
    file.write_text("TOKEN=s3cret\n# a comment\nCONTRACT_VARIABLE=of the file\n")
    with plane({"environment": {}}, base_image=python_image, env_file=file, workers=1) as opened:
        (outcome,) = opened.invoke([Lease(Task("t", b'{"do": "describe", "names": ["CONTRACT_VARIABLE"]}'))], 20)
        assert b"of the file" in outcome.payload  # type: ignore[union-attr]
        assert "s3cret" not in f"{opened!r} {opened.config!r} {opened._spec!r}"

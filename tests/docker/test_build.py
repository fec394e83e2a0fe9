"""`htcgrid build`: from a folder to an image that runs."""

import subprocess
import sys
from pathlib import Path

import docker
import pytest
from htcgrid_local_docker.invoker import LocalDockerInvoker
from htcgrid_local_docker.options import Options

from htcgrid.spi import Function, Lease, Outcome, Rejected, Task

TAG = "local/htcgrid-test-build:1"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "greet.py").write_text(
        "import six\n\ndef handler(event, context):\n    return six.ensure_str(b'hello')\n"
    )
    (folder / "greet.py").chmod(0o600)
    (folder / "requirements.txt").write_text("six\n")
    return folder


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder), "six"]
    if subprocess.run(download, check=False, capture_output=True).returncode:
        pytest.skip("no package index to collect a wheel from")
    return folder


def plane(code: Path, image: str) -> LocalDockerInvoker:
    return LocalDockerInvoker(Options(base_image=image), Function(handler="greet.handler", code=code))


def test_a_folder_becomes_an_image_that_runs(
    engine: docker.APIClient, python_image: str, code: Path, wheels: Path
) -> None:
    try:
        said = "\n".join(plane(code, python_image).build(TAG, wheels=wheels))
        assert f"FROM {python_image}" in said
        assert f'image = "{TAG}"' in said
        function = Function(memory=128)
        with LocalDockerInvoker(Options(image=TAG, workers=1), function) as opened:
            (outcome,) = opened.invoke([Lease(Task("t", b"{}"))], 20)
        assert isinstance(outcome, Outcome)
        assert outcome.payload == b'"hello"', outcome
    finally:
        engine.remove_image(TAG, force=True)


def test_the_dockerfile_is_shown_and_nothing_built(engine: docker.APIClient, python_image: str, code: Path) -> None:
    said = "\n".join(plane(code, python_image).build(TAG, dry_run=True))
    assert 'CMD ["greet.handler"]' in said
    assert "pip install" in said
    assert not (code / "Dockerfile").exists()


def test_layers_go_into_the_image_and_a_later_one_wins(
    engine: docker.APIClient, python_image: str, tmp_path: Path
) -> None:
    for name, modules in {"first": ("shared", "both"), "second": ("both",)}.items():
        for module in modules:
            path = tmp_path / name / "python" / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"NAME = {name!r}\n")
    code = tmp_path / "code"
    code.mkdir()
    (code / "greet.py").write_text(
        "import os, sys\nsys.path.append('/opt/python')\nimport shared, both\n\n"
        "def handler(event, context):\n    return [shared.NAME, both.NAME, sorted(os.listdir())]\n"
    )
    layers = (tmp_path / "first", tmp_path / "second")
    function = Function(handler="greet.handler", code=code, layers=layers)
    try:
        list(LocalDockerInvoker(Options(base_image=python_image), function).build(TAG))
        (code / "greet.py").chmod(0o600)
        again = "\n".join(LocalDockerInvoker(Options(base_image=python_image), function).build(TAG))
        assert "as it is there" in again
        with LocalDockerInvoker(Options(image=TAG, workers=1), Function(memory=128)) as opened:
            (outcome,) = opened.invoke([Lease(Task("t", b"{}"))], 20)
        assert isinstance(outcome, Outcome)
        assert outcome.payload == b'["first", "second", ["greet.py"]]', outcome
    finally:
        engine.remove_image(TAG, force=True)


def test_a_dockerfile_of_the_users_that_leaves_out_the_layers_is_refused(
    engine: docker.APIClient, python_image: str, code: Path, tmp_path: Path
) -> None:
    (code / "Dockerfile").write_text(f"FROM {python_image}\nCOPY greet.py ./\n")
    (tmp_path / "layer").mkdir()
    function = Function(handler="greet.handler", code=code, layers=(tmp_path / "layer",))
    with pytest.raises(Rejected, match=r"Add this line to it: COPY \.htcgrid-layers /opt"):
        list(LocalDockerInvoker(Options(base_image=python_image), function).build(TAG))


def test_the_users_own_dockerfile_is_used(engine: docker.APIClient, python_image: str, code: Path) -> None:
    (code / "Dockerfile").write_text(f"FROM {python_image}\nCOPY greet.py ./\nRUN echo mine\n")
    try:
        assert "mine" in "\n".join(plane(code, python_image).build(TAG))
    finally:
        engine.remove_image(TAG, force=True)


def test_a_requirement_that_cannot_be_had_says_what_to_do(
    engine: docker.APIClient, python_image: str, code: Path, wheels: Path
) -> None:
    (code / "requirements.txt").write_text("six\nno-such-thing-of-ours\n")
    with pytest.raises(Rejected, match=r"was not built[^|]*what is missing in"):
        list(plane(code, python_image).build(TAG, wheels=wheels))
    with pytest.raises(Rejected, match="There are no wheels in"):
        list(plane(code, python_image).build(TAG, wheels=code))


def test_a_plane_that_builds_no_images_says_so(tmp_path: Path) -> None:
    config = tmp_path / "htcgrid.toml"
    config.write_text('[planes.local]\nplugin = "process"\n')
    script = (
        f"from htcgrid.cli.build import command; command.main(['--config', '{config}', '{TAG}'], standalone_mode=False)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "makes no images" in done.stderr

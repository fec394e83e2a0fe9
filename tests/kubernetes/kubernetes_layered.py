"""Images with a layer's modules in them, or a path to where pods have their layers."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import kubernetes_images as images

_NODE = Path("/run/htcgrid-node/containerd.sock")


def image_with_opt_on_its_path() -> str:
    """AWS's image for Python, where modules are looked for in /opt/python, too."""
    with tempfile.TemporaryDirectory() as folder:
        return _built("opt-on-path", Path(folder), ["ENV PYTHONPATH=/opt/python"])


def image_with_code(name: str, code: Path, layer: Path) -> str:
    """The same with a layer, and this code in it."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(layer / "python", f"{folder}/python")
        shutil.copytree(code, f"{folder}/code")
        lines = ["COPY python /opt/python", "ENV PYTHONPATH=/opt/python", "COPY code /var/task"]
        return _built(name, Path(folder), lines)


def javascript_image(code: Path) -> str:
    """An image laid out as AWS's base image for Node, with this code in it."""
    _run(str(images.ROOT / ".ci/images"), "node")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(code, f"{folder}/code")
        return _built("javascript", Path(folder), ["COPY code /var/task"], base="local/lambda-node:20")


def _built(name: str, folder: Path, lines: list[str], base: str = "") -> str:
    tag = f"local/htcgrid-{name}:1"
    (folder / "Dockerfile").write_text("\n".join([f"FROM {base or images.lambda_image()}", *lines]) + "\n")
    _run("docker", "build", "--quiet", "--tag", tag, str(folder))
    if _NODE.exists():  # a node with a containerd of its own, which does not see the images of the engine
        _run(str(images.ROOT / ".ci/cluster"), "image", tag)
    return tag


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"

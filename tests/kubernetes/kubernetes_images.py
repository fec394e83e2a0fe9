"""The images that pods of the tests run: built where they are missing, or are not of these sources."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import kubernetes_node as node

ROOT = node.ROOT
BASE = "local/debian:bookworm"
LAMBDA = "local/lambda-python:3.11"
_PARTS = "local/htcgrid-agent-parts"
_AGENT = "local/htcgrid-agent"
_OPTIONS = "local/htcgrid-options:1"
_PROJECTS = (".", "plugins/eks", "plugins/aws", "contracts", "examples/plugins/redis")
_PACKAGES = (
    "htcgrid",
    "plugins/eks/htcgrid_eks",
    "plugins/aws/htcgrid_aws",
    "contracts/htcgrid_contracts",
    "examples/plugins/redis/htcgrid_redis",
)


def lambda_image() -> str:
    """An image laid out as AWS's base image for Python."""
    _run(str(ROOT / ".ci/images"), "python")
    return node.give(LAMBDA)


def options_image() -> str:
    """The same with what `examples/options` imports."""
    base = lambda_image()
    if _exists(_OPTIONS):
        return node.give(_OPTIONS)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", "--python-version", "3.11"]
        _run(*pip, "--target", f"{folder}/site", "QuantLib")
        lines = [f"FROM {base}", "COPY site /opt/python", "ENV PYTHONPATH=/opt/python"]
        Path(folder, "Dockerfile").write_text("\n".join(lines))
        _run("docker", "build", "--quiet", "--tag", _OPTIONS, folder)
    return node.give(_OPTIONS)


def agent_image() -> str:
    """The agent's image with these very sources, the conformance kit and pytest."""
    lambda_image()
    with _one_at_a_time():
        return node.give(_agent_image())


def _agent_image() -> str:
    projects = [ROOT / name for name in _PROJECTS if (ROOT / name / "pyproject.toml").is_file()]
    recipes = [ROOT / "plugins/eks/agent-image", Path(__file__)]
    parts = f"{_PARTS}:{_digest([*recipes, *(project / 'pyproject.toml' for project in projects)])}"
    if not _exists(parts):
        extras = {"eks": "[s3]", "aws": "[redis]"}
        folders = [f"{project}{extras.get(project.name, '')}" for project in projects]
        builder = str(ROOT / "plugins/eks/agent-image")
        # Debian's Python is older than the one that runs pip, and redis needs the last of these on it.
        _run(builder, "-b", BASE, "-t", parts, *folders, "pytest", "pytest-timeout", "async-timeout")
    sources = [path for name in _PACKAGES for path in sorted((ROOT / name).rglob("*")) if _is_source(path)]
    agent = f"{_AGENT}:{_digest([ROOT / 'plugins/eks/agent-image', *sources])}"
    if not _exists(agent):
        _overlay(parts, agent)
    return agent


def _overlay(parts: str, agent: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = [f"FROM {parts}"]
        for name in _PACKAGES:
            package = Path(name).name
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, Path(folder, package), ignore=ignored)
            lines.append(f"COPY {package} /opt/htcgrid/{package}")
        Path(folder, "Dockerfile").write_text("\n".join(lines))
        _run("docker", "build", "--quiet", "--tag", agent, folder)


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Of the processes that run these tests side by side."""
    with Path(tempfile.gettempdir(), "htcgrid-agent-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(ROOT)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def _exists(image: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode == 0


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"

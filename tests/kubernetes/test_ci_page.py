"""docs/ci.md as it stands: one test file, three planes, none of them skipped."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kubernetes_images as images
import kubernetes_node as node
import pytest

PAGE = images.ROOT / "docs" / "ci.md"
HANDLER = """
from math import erf, sqrt

def handler(event, context):
    spread = event["volatility"] * sqrt(event["days"] / 365) if event["strike"] else 0.0
    return {"price": event["spot"] * erf(spread / 2 / sqrt(2))}
"""


def block(language: str, having: str) -> str:
    """The code block of the page that holds these words."""
    for found in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL):
        if having in found:
            return str(found)
    pytest.fail(f"{PAGE} has no {language} block with {having!r}")


@pytest.fixture
def project(tmp_path: Path, namespace: str, agent_image: str, lambda_image: str) -> Iterator[Path]:
    """What the page tells its reader to write. Only names are others: the images' and the namespace."""
    for folder in ("src", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "src" / "pricing.py").write_text(HANDLER)
    (tmp_path / "tests" / "test_pricing.py").write_text(block("python", "lambda_function"))
    image = f"htcgrid-test-pricing:{namespace[-8:]}"
    config = block("toml", "[planes.cluster]").replace("pricing:ci", image)
    config = config.replace('namespace = "default"', f'namespace = "{namespace}"\nagent_image = "{agent_image}"')
    (tmp_path / "htcgrid.toml").write_text(config)
    base = re.compile(r"^FROM .*", re.MULTILINE)
    (tmp_path / "Dockerfile").write_text(base.sub(f"FROM {lambda_image}", block("dockerfile", "COPY src/")))
    build = ["docker", "build", "--quiet", "--tag", image, str(tmp_path)]
    subprocess.run(build, check=True, capture_output=True, env=os.environ | {"DOCKER_BUILDKIT": "0"})
    node.give(image)
    yield tmp_path
    subprocess.run(["docker", "rmi", "--force", image], check=True, capture_output=True)


def test_the_pages_one_test_file_passes_on_processes_on_docker_and_on_a_cluster(project: Path) -> None:
    (command,) = re.findall(r"pytest (--plane \S+ --strict-planes)", block("yaml", "--strict-planes"))
    pytest_ = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *command.split()]
    done = subprocess.run(pytest_, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for plane in ("local", "docker", "cluster"):
        passed = re.findall(rf"\[{plane}\] PASSED", done.stdout)
        assert len(passed) == 2, done.stdout

"""What is shipped: each distribution as the wheel that a user installs."""

import email
import subprocess
import sys
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, ROOT / "contracts", *sorted((ROOT / "plugins").iterdir()), ROOT / "examples/plugins/redis"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheels")
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, *map(str, PROJECTS)], check=True)
    return [zipfile.ZipFile(path) for path in sorted(folder.glob("*.whl"))]


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def test_every_project_is_a_distribution(wheels: list[zipfile.ZipFile]) -> None:
    assert len(wheels) == len(PROJECTS) == 7


def test_every_distribution_carries_the_licence(wheels: list[zipfile.ZipFile]) -> None:
    licence = (ROOT / "LICENSE").read_bytes()
    for wheel in wheels:
        (name,) = [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]
        assert wheel.read(name) == licence


def test_every_plugin_names_the_versions_of_the_core_that_it_works_with(wheels: list[zipfile.ZipFile]) -> None:
    for wheel in wheels:
        described = metadata(wheel)
        if described["Name"] != "htcgrid":
            needs = described.get_all("Requires-Dist", [])
            assert any(need in {"htcgrid<0.2,>=0.1", "htcgrid>=0.1,<0.2"} for need in needs), described["Name"]


def test_every_extra_of_the_core_names_a_distribution_that_is_there(wheels: list[zipfile.ZipFile]) -> None:
    described = {metadata(wheel)["Name"]: metadata(wheel) for wheel in wheels}
    core = described["htcgrid"]
    assert set(core.get_all("Provides-Extra", [])) >= {"docker", "eks", "lambda", "aws", "all"}
    for need in core.get_all("Requires-Dist", []):
        if "extra ==" in need and need.startswith("htcgrid-"):
            assert need.split("<")[0].split(">")[0] in described, need


def test_the_recipe_of_the_agents_image_is_in_the_wheel_of_eks(wheels: list[zipfile.ZipFile]) -> None:
    (eks,) = [wheel for wheel in wheels if metadata(wheel)["Name"] == "htcgrid-eks"]
    assert any(name.endswith(".data/scripts/htcgrid-agent-image") for name in eks.namelist())

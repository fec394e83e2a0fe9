"""What is shipped: each distribution as the wheel that a user installs, and as the source that others build from."""

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = [ROOT, ROOT / "contracts", *sorted((ROOT / "plugins").iterdir()), ROOT / "examples/plugins/redis"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[zipfile.ZipFile]:
    return built(tmp_path_factory.mktemp("wheels"), PROJECTS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folders of the source distributions, unpacked as pip does: no member may lead out of its folder."""
    folder = tmp_path_factory.mktemp("sources")
    for project in PROJECTS:
        command = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)]
        subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)
    for path in folder.glob("*.tar.gz"):
        with tarfile.open(path) as archive:
            archive.extractall(folder / "unpacked", filter="data")
    return sorted((folder / "unpacked").iterdir())


def built(folder: Path, projects: list[Path]) -> list[zipfile.ZipFile]:
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, *map(str, projects)], check=True)
    return [zipfile.ZipFile(path) for path in sorted(folder.glob("*.whl"))]


def metadata(wheel: zipfile.ZipFile) -> Message:
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def test_every_project_is_a_distribution(wheels: list[zipfile.ZipFile]) -> None:
    assert len(wheels) == len(PROJECTS) == 9


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


def test_a_wheel_that_is_built_from_the_source_distribution_is_the_same(
    wheels: list[zipfile.ZipFile], sources: list[Path], tmp_path: Path
) -> None:
    assert len(sources) == len(PROJECTS)
    for ours, theirs in zip(wheels, built(tmp_path, sources), strict=True):
        assert ours.namelist() == theirs.namelist()
        assert all(ours.read(name) == theirs.read(name) for name in ours.namelist()), ours.filename


def test_every_source_distribution_has_the_licence_as_a_file(sources: list[Path]) -> None:
    for folder in sources:
        assert not (folder / "LICENSE").is_symlink(), folder.name
        assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes(), folder.name


def pythons(wheel: zipfile.ZipFile) -> set[str]:
    named = (each.rpartition(" :: ")[2] for each in metadata(wheel).get_all("Classifier", []) if "Python ::" in each)
    return {version for version in named if version.startswith("3")}


def test_classifiers_name_the_versions_of_python_that_ci_runs(wheels: list[zipfile.ZipFile]) -> None:
    """Debian 12, on which CI runs everything, has 3.11; `.ci/python` says which its other suites have."""
    suites = dict(re.findall(r"(\w+) has (3\.\d+)", (ROOT / ".ci/python").read_text()))
    others = re.findall(r"^  at_once one_python (.+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert others
    on_all = {"3.11", *(suites[suite] for suite in others[0].split())}
    for wheel in wheels:
        name = metadata(wheel)["Name"]
        if name != "htcgrid-redis":  # an example
            assert pythons(wheel) == (on_all if name in {"htcgrid", "htcgrid-contracts"} else {"3.11"}), name

"""One word for each thing: a module's name says which one it is, wherever in the repository it is named."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("htcgrid", "contracts/htcgrid_contracts", "plugins/*/htcgrid_*")

SAME_ROLE = {
    "invoker": "the plane of each distribution of planes, and the rules of the kit for planes",
    "options": "the keys of each plane in the config",
    "sandbox": "the interface, and what each plane makes of it",
    "permissions": "the command, and the rights that it prints for a plane",
    "plugins": "the command that lists plugins, and the module that finds them",
    "agent": "the agent, and the rules of the kit for it",
}
"""Names that are used again for the same thing of another plugin, or for a command and what it shows."""


def modules() -> dict[str, list[str]]:
    found = defaultdict(list)
    for package in PACKAGES:
        for folder in ROOT.glob(package):
            for file in sorted(folder.rglob("*.py")):
                if file.stem not in {"__init__", "__main__"}:
                    found[file.stem].append(str(file.relative_to(ROOT)))
    return found


def test_a_module_has_a_name_of_its_own_or_its_reason_is_given() -> None:
    found = modules()
    assert found["agent"]
    shared = {name: files for name, files in found.items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if name not in SAME_ROLE} == {}


def test_no_reason_is_given_for_a_name_that_only_one_module_has() -> None:
    found = modules()
    assert [name for name in SAME_ROLE if len(found[name]) < 2] == []


def test_helpers_of_tests_are_found_by_name_and_no_test_changes_the_path_of_imports() -> None:
    own = "moto_image"  # a program of a container, not of pytest
    tests = [*(ROOT / "tests").rglob("*.py"), *ROOT.glob("plugins/*/tests/*.py")]
    changing = "sys.path." + "insert"
    assert [file.name for file in tests if changing in file.read_text() and own not in file.parts] == []

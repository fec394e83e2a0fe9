"""The import rules of docs/design.md, kept by reading the imports."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "htcgrid"

CONFIG = (
    "htcgrid.config",
    "htcgrid.config_errors",
    "htcgrid.config_file",
    "htcgrid.config_flags",
    "htcgrid.config_tables",
)
FORBIDDEN = {
    "spi": ["htcgrid.agent", "htcgrid.runtime", "htcgrid.builtin", *CONFIG, "htcgrid.plugins", "htcgrid.cli"],
    "agent": ["htcgrid.runtime", "htcgrid.builtin", *CONFIG, "htcgrid.plugins", "htcgrid.cli"],
    "runtime": ["htcgrid.agent", "htcgrid.builtin", *CONFIG, "htcgrid.plugins", "htcgrid.cli"],
    "builtin": ["htcgrid.agent", *CONFIG, "htcgrid.plugins", "htcgrid.cli"],
    "planes": ["htcgrid.agent", "htcgrid.builtin", *CONFIG, "htcgrid.plugins", "htcgrid.cli"],
    "service": [
        "htcgrid.builtin",
        *CONFIG,
        "htcgrid.planes",
        "htcgrid.client",
        "htcgrid.cli",
    ],
    "report": [
        "htcgrid.agent",
        "htcgrid.builtin",
        *CONFIG,
        "htcgrid.plugins",
        "htcgrid.planes",
        "htcgrid.service",
        "htcgrid.cli",
    ],
    "client.py": ["htcgrid.builtin", "htcgrid.planes", "htcgrid.service", "htcgrid.cli"],
    "cli": ["htcgrid.builtin"],
    "config_errors.py": ["htcgrid.agent", "htcgrid.builtin", "htcgrid.config", "htcgrid.runtime", "htcgrid.cli"],
    "config_file.py": ["htcgrid.agent", "htcgrid.builtin", "htcgrid.config", "htcgrid.runtime", "htcgrid.cli"],
    "config_flags.py": ["htcgrid.agent", "htcgrid.builtin", "htcgrid.config", "htcgrid.runtime", "htcgrid.cli"],
    "config_tables.py": ["htcgrid.builtin", *CONFIG, "htcgrid.runtime", "htcgrid.cli"],
    "config.py": ["htcgrid.builtin", "htcgrid.runtime", "htcgrid.cli"],
    "plugins.py": ["htcgrid.agent", "htcgrid.builtin", "htcgrid.cli", *CONFIG, "htcgrid.runtime"],
}
PLUGINS_MAY = ("htcgrid.spi", "htcgrid.planes")
BUILDS_ON = {"htcgrid_aws_lambda": ("htcgrid_aws",)}
"""A plugin's package, and those of other plugins that it is built on, as its `pyproject.toml` says."""
CONTRACTS_MAY = (*PLUGINS_MAY, "htcgrid.runtime", "htcgrid.agent", "htcgrid.config")
SDKS = {"boto3", "botocore", "docker", "kubernetes", "opentelemetry", "prometheus_client", "redis", "requests"}
FIRST_PARTY = {"htcgrid", "htcgrid_contracts"}


def imports_of(file: Path) -> Iterator[str]:
    """Every module that a file imports, as `a.b` or, of `from a import b`, both `a` and `a.b`."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_in(module: str, packages: tuple[str, ...] | list[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def files_of(room: Path) -> list[Path]:
    return [room] if room.suffix == ".py" else sorted(room.rglob("*.py"))


def breaches(room: Path, forbidden: list[str]) -> list[str]:
    return [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files_of(room)
        for module in imports_of(file)
        if is_in(module, forbidden)
    ]


@pytest.mark.parametrize("room", FORBIDDEN)
def test_a_room_of_the_core_imports_none_that_it_must_not_know(room: str) -> None:
    assert files_of(CORE / room)
    assert breaches(CORE / room, FORBIDDEN[room]) == []


def test_spi_imports_the_standard_library_and_pydantic_alone() -> None:
    modules = {
        module for file in files_of(CORE / "spi") for module in imports_of(file) if not is_in(module, ["htcgrid.spi"])
    }
    assert {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names) == {"pydantic"}


def test_the_core_imports_no_plugin_no_contracts_and_no_cloud_sdk() -> None:
    packages = [folder.name for folder in (ROOT / "plugins").glob("*/htcgrid_*")]
    assert breaches(CORE, [*packages, "htcgrid_contracts", *SDKS]) == []


def test_the_core_names_no_plugin_that_is_not_in_it() -> None:
    outside = r"\b(local_docker|eks|eks_sidecar|aws_lambda|sqs|dynamodb|htc_grid)\b"
    named = [str(file.relative_to(ROOT)) for file in files_of(CORE) if re.search(outside, file.read_text())]
    assert named == []


def plugin_packages() -> list[Path]:
    return sorted(file.parent for file in (ROOT / "plugins").glob("*/htcgrid_*/__init__.py"))


@pytest.mark.parametrize("package", plugin_packages(), ids=lambda package: package.name)
def test_a_plugin_imports_the_interface_the_toolkit_what_it_builds_on_and_itself_of_all_that_is_ours(
    package: Path,
) -> None:
    assert foreign(package, (*PLUGINS_MAY, *BUILDS_ON.get(package.name, ()), package.name)) == []


def test_the_contracts_import_no_plugin() -> None:
    package = ROOT / "contracts" / "htcgrid_contracts"
    if not package.is_dir():
        pytest.skip("the contracts are not here")
    assert foreign(package, (*CONTRACTS_MAY, package.name)) == []


def foreign(package: Path, allowed: tuple[str, ...]) -> list[str]:
    ours = FIRST_PARTY | {other.name for other in plugin_packages()}
    return [
        f"{file.relative_to(ROOT)} imports {module}"
        for file in files_of(package)
        for module in imports_of(file)
        if module.split(".")[0] in ours and module != "htcgrid" and not is_in(module, allowed)
    ]


def test_plugins_py_alone_imports_stevedore() -> None:
    knowing = [file.name for file in files_of(CORE) if any(is_in(m, ["stevedore"]) for m in imports_of(file))]
    assert knowing == ["plugins.py"]


def test_the_environment_is_read_in_config_alone_and_where_that_of_workers_is_made_and_used() -> None:
    reading = {
        str(file.relative_to(CORE))
        for file in files_of(CORE)
        for node in ast.walk(ast.parse(file.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"})
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {a.name for a in node.names} & {"environ", "getenv"}
        )
    }
    assert reading <= {
        "config.py",
        "runtime/fork_server.py",
        "runtime/fork_server_main.py",
        "runtime/plain_parent.py",
        "runtime/worker_environ.py",
    }


def test_a_worker_process_loads_neither_pydantic_nor_stevedore_nor_a_cloud_sdk() -> None:
    script = "import json, sys, htcgrid.runtime.worker, htcgrid.runtime.fork_server_main, awslambdaric.bootstrap; print(json.dumps(list(sys.modules)))"
    modules = json.loads(subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout)
    assert "htcgrid.runtime.worker" in modules
    roots = {module.split(".")[0] for module in modules}
    assert roots & ({"pydantic", "pydantic_core", "stevedore", "click", "httptools"} | SDKS) == set()
    assert [m for m in modules if m.startswith("htcgrid.") and not m.startswith("htcgrid.runtime")] == []


def test_commands_and_the_client_alone_ask_whether_a_plugin_has_a_protocol() -> None:
    protocols = {
        node.name
        for file in files_of(CORE)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases)
    }
    asked = {
        str(file.relative_to(CORE))
        for file in files_of(CORE)
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "isinstance"
        and any(isinstance(name, ast.Name) and name.id in protocols for name in ast.walk(node.args[1]))
    }
    assert {"TaskQueue", "ResultStore", "Deployable", "ImageBuilder"} <= protocols
    assert sorted(file for file in asked if not file.startswith("cli/") and file != "client.py") == []


def test_no_command_but_serve_loads_the_library_that_serves() -> None:
    script = (
        "import importlib, json, sys; from htcgrid.cli.main import COMMANDS\n"
        "for name in COMMANDS.keys() - {'serve'}: importlib.import_module('htcgrid.cli.' + name.replace('-', '_'))\n"
        "print('h11' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=True, capture_output=True).stdout == b"False\n"

"""The pages for authors of plugins, followed to the letter by one who has read nothing else."""

import re
from pathlib import Path

import pytest
from venv_for_plugins import Venv

DOCS = Path(__file__).parents[2] / "docs"


def _blocks(page: str) -> list[tuple[str, str]]:
    """The blocks of code of a page, each with its language."""
    return re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


BLOCKS = _blocks("writing-a-plugin.md")


def _block(first_line: str) -> str:
    (text,) = (text for _, text in BLOCKS if text.startswith(f"# {first_line}\n"))
    return str(text)


def _commands(name: str) -> list[list[str]]:
    """The `htcgrid` commands of the page."""
    lines = [line[2:] for language, text in BLOCKS if language == "console" for line in text.splitlines()]
    return [line.split()[1:] for line in lines if line.startswith(f"$ htcgrid {name}"[2:])]


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("htcgrid-shed")
    for name in ("pyproject.toml", "htcgrid_shed/__init__.py", "tests/test_contract.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(_block(name))
    return folder


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return Venv(tmp_path_factory.mktemp("venv"))


def test_an_invoker_is_written_in_under_35_lines() -> None:
    code = [line for line in _block("htcgrid_shed/__init__.py").splitlines() if line.strip()]
    assert len(code) < 35


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_plane_on_an_engine_is_complete_and_verified(tmp_path: Path, venv: Venv) -> None:
    for _, text in _blocks("planes-on-engines.md"):
        if named := re.match(r"# ([\w/.]+)\n", text):
            (tmp_path / named[1]).parent.mkdir(exist_ok=True)
            (tmp_path / named[1]).write_text(text)
    assert venv.install(tmp_path).returncode == 0
    held = venv.htcgrid("verify", "jobs", "--option", "workers=2", "--marks", "{folder}", cwd=tmp_path)
    assert held.returncode == 0, held.stdout
    for claimed in ("timeout", "exit", "errors", "logs", "context"):
        assert f"{claimed} proven" in held.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_page_leads_to_a_verified_plugin(plugin: Path, venv: Venv) -> None:
    first, second = _commands("verify")

    assert venv.install(plugin).returncode == 0
    found = venv.htcgrid(*first, cwd=plugin)
    assert found.returncode == 1
    broken = [line.removeprefix("BROKEN").strip() for line in found.stdout.splitlines() if line.startswith("BROKEN")]
    assert broken == [
        "the memory limit is neither lower nor higher than given",
        "a handler past its memory is stopped",
    ], found.stdout
    assert "read: spi." in found.stdout

    module = plugin / "htcgrid_shed" / "__init__.py"
    changed = _block("htcgrid_shed/__init__.py, in ShedInvoker").split("\n", 1)[1]
    module.write_text(module.read_text() + "\n" + changed)
    assert venv.install(plugin).returncode == 0
    held = venv.htcgrid(*second, cwd=plugin)
    assert held.returncode == 0, held.stdout
    assert " 0 broken" in held.stdout
    assert "cancel proven" in held.stdout
    assert (plugin / "verdicts.json").is_file()
    assert (plugin / "verdicts.xml").is_file()

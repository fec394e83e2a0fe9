"""`htcgrid new-plugin`: what it writes installs, and keeps the rules from the first day."""

import re
from pathlib import Path

import pytest
from venv_for_plugins import Venv

KINDS = ["invoker", "task-source", "result-sink", "observer"]


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Venv:
    return Venv(tmp_path_factory.mktemp("venv"))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", KINDS)
def test_a_new_plugin_installs_is_verified_and_passes_its_own_test(venv: Venv, kind: str, tmp_path: Path) -> None:
    name = f"new_{kind.replace('-', '_')}"
    folder = tmp_path / f"htcgrid-new-{kind}"
    written = venv.htcgrid("new-plugin", name, "--kind", kind, cwd=tmp_path)
    assert written.returncode == 0
    assert venv.install(folder).returncode == 0
    readme = (folder / "README.md").read_text()
    (verify,) = re.findall(r"`htcgrid (verify .*?)`", readme)
    verified = venv.htcgrid(*verify.split(), "--wait-factor", "0.5", cwd=tmp_path)
    if kind == "result-sink":  # the memory of a process is not durable, and verify says so
        assert verified.returncode == 1
        assert "4 broken" in verified.stdout
    else:
        assert verified.returncode == 0, verified.stdout
        assert " 0 broken" in verified.stdout
    tested = venv.run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "init or close or stored", cwd=folder)
    assert tested.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_several_kinds_make_one_distribution_whose_tests_pass_at_once(venv: Venv, tmp_path: Path) -> None:
    written = venv.htcgrid("new-plugin", "post", "--kind", "task-source", "--kind", "result-sink", cwd=tmp_path)
    assert written.returncode == 0
    folder = tmp_path / "htcgrid-post"
    assert "make test" in written.stdout
    assert "python -m pytest" in (folder / "Makefile").read_text()
    assert "make test" in (folder / ".github" / "workflows" / "test.yml").read_text()
    assert venv.install(folder).returncode == 0
    listed = venv.htcgrid("plugins", cwd=tmp_path)
    assert listed.stdout.count("htcgrid-post 0.1.0") == 2
    tested = venv.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert tested.returncode == 0
    assert " passed" in tested.stdout


def test_the_plane_on_an_engine_is_the_one_of_the_page_which_is_verified_elsewhere(venv: Venv, tmp_path: Path) -> None:
    assert venv.htcgrid("new-plugin", "jobs", "--kind", "engine", cwd=tmp_path).returncode == 0
    page = (Path(__file__).parents[2] / "docs" / "planes-on-engines.md").read_text()
    for of_page, written in (("__init__", "plugin"), ("worker", "worker")):
        text = (tmp_path / "htcgrid-jobs" / "htcgrid_jobs" / f"{written}.py").read_text()
        assert f"```python\n# htcgrid_jobs/{of_page}.py\n{text}```" in page


def test_two_planes_of_one_name_are_refused(venv: Venv, tmp_path: Path) -> None:
    refused = venv.htcgrid("new-plugin", "jobs", "--kind", "engine", "--kind", "invoker", cwd=tmp_path)
    assert refused.returncode == 2
    assert "write two distributions" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_cannot_be_a_module_is_refused(venv: Venv, tmp_path: Path) -> None:
    refused = venv.htcgrid("new-plugin", "My-Queue", "--kind", "task-source", cwd=tmp_path)
    assert refused.returncode == 2
    assert "write lower-case letters" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_empty_is_left_as_it_is(venv: Venv, tmp_path: Path) -> None:
    (tmp_path / "htcgrid-q").mkdir()
    (tmp_path / "htcgrid-q" / "mine").write_text("mine")
    refused = venv.htcgrid("new-plugin", "q", "--kind", "task-source", cwd=tmp_path)
    assert refused.returncode == 2
    assert "left as it is" in refused.stderr
    assert [path.name for path in (tmp_path / "htcgrid-q").iterdir()] == ["mine"]

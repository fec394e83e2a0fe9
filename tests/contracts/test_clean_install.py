"""A plugin of a third party, as wheels, in an environment that has nothing else of ours."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REDIS = ROOT / "examples" / "plugins" / "redis"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_plugin_of_a_third_party_needs_the_core_and_the_contracts_alone(tmp_path: Path) -> None:
    wheels = tmp_path / "wheels"
    for project in (ROOT, ROOT / "contracts", REDIS):
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", wheels, project)
    assert len(list(wheels.glob("*.whl"))) == 3

    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", *wheels.glob("*.whl"))
    shutil.copytree(REDIS / "tests", tmp_path / "tests")
    passed = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)
    assert " passed" in passed
    assert " failed" not in passed

    listed = run(tmp_path / "venv" / "bin" / "htcgrid", "plugins", cwd=tmp_path)
    assert "htcgrid-redis 0.1.0" in listed


def run(*command: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    assert done.returncode == 0
    return done.stdout

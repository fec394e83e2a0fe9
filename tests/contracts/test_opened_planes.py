"""The kit opens a plane once for a class, and again when pytest comes back to the class."""

import subprocess
import sys
from pathlib import Path

_CONTRACT = """
import pytest
from htcgrid.builtin.process import ProcessInvoker
from htcgrid_contracts import InvokerContract, contract_function

class TestPlane(InvokerContract):
    @pytest.fixture
    def invoker(self, function):
        return ProcessInvoker(ProcessInvoker.Config(workers=1), function)

def test_between():
    pass
"""

_ORDER = """
ONCE, AGAIN = "test_an_outcome_is_one_execution", "test_each_task_of_a_batch_is_reported_once"

def pytest_collection_modifyitems(items):
    named = {item.name: item for item in items}
    items[:] = [named[ONCE], named["test_between"], named[AGAIN]]
"""


def test_a_class_that_pytest_comes_back_to_has_an_open_plane(tmp_path: Path) -> None:
    contract = tmp_path / "test_plane.py"
    contract.write_text(_CONTRACT)
    (tmp_path / "conftest.py").write_text(_ORDER)
    command: list[str | Path] = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", contract]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "3 passed" in done.stdout, done.stdout

"""The memory's source as one that never ends: how it waits. Run by mutants.py; not collected by itself."""

import pytest
from htcgrid_contracts import contract_function
from htcgrid_contracts.wait_rules import WaitRules

from htcgrid.builtin.memory import MemorySource


class TestEndlessMemorySource(WaitRules):
    shared = False

    @pytest.fixture
    def source(self) -> MemorySource:
        return MemorySource(MemorySource.Config(lease_seconds=1, endless=True), contract_function())

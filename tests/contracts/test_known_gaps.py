"""A gap that is known is asked all the same, and must fail."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from htcgrid_contracts import ResultSinkContract, contract_function

from htcgrid.builtin.memory import MemorySink
from htcgrid.spi import Result


class TestOneRuleOfAParametrisedTest(ResultSinkContract):
    known_gaps = {"test_an_answer_is_stored_as_it_came[null]": "this sink keeps no null"}  # noqa: RUF012

    @pytest.fixture
    def sink(self) -> MemorySink:
        class NoNull(MemorySink):
            def put(self, results: Sequence[Result]) -> None:
                super().put([result for result in results if result.outcome.payload != b"null"])

        return NoNull(MemorySink.Config(), contract_function())

    test_a_result_outlives_a_process_that_is_killed_right_after_put = None  # type: ignore[assignment]
    test_a_result_is_there_after_close_and_open = None  # type: ignore[assignment]
    test_it_can_be_read_beside_a_run_that_writes = None  # type: ignore[assignment]
    test_a_reader_sees_what_is_stored_after_it_was_opened = None  # type: ignore[assignment]
    test_a_reader_is_told_the_same_as_a_writer = None  # type: ignore[assignment]
    test_no_answer_harms_another = None  # type: ignore[assignment]
    test_stored_sees_what_another_has_put = None  # type: ignore[assignment]
    test_scan_misses_none_of_eight_writers = None  # type: ignore[assignment]


def test_a_gap_that_has_closed_is_an_error(tmp_path: Path) -> None:
    contract = tmp_path / "test_closed.py"
    contract.write_text(
        """
import pytest
from htcgrid.builtin.memory import MemorySink
from htcgrid_contracts import ResultSinkContract, contract_function

class TestClosed(ResultSinkContract):
    known_gaps = {"test_a_result_is_stored": "it was not, once"}

    @pytest.fixture
    def sink(self):
        return MemorySink(MemorySink.Config(), contract_function())
"""
    )
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:hypothesispytest",  # a second to load, for nothing
        "-k",
        "test_a_result_is_stored",
        contract,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "[XPASS(strict)] it was not, once" in done.stdout


def test_a_gap_that_names_no_rule_is_an_error() -> None:
    with pytest.raises(TypeError, match="names no rule of this contract: test_no_such_rule"):
        type("TestMine", (ResultSinkContract,), {"known_gaps": {"test_no_such_rule": "why"}})

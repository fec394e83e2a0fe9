from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from htcgrid.builtin.id_table import Ids, IdTable

ids = st.one_of(
    st.integers(0, 3000).map(str),
    st.integers(0, 1 << 26).map(str),
    st.integers(0, 99).map(lambda number: f"0{number}"),
    st.text(st.characters(codec=None, categories=None), max_size=6),
    st.sampled_from(
        ["", "٣", "3", "³", "\uff11", "1", "-1", "+1", " 1", "1 ", "1_0", "16777215", "16777216", "99999999"]
    ),
)
lines = st.integers(0, 5000).map(str)
numbers = st.integers(1, 2**32 - 1)


class AgainstADict(RuleBasedStateMachine):
    """An IdTable answers as a dict does."""

    def __init__(self) -> None:
        super().__init__()
        self.table = IdTable()
        self.model: dict[str, int] = {}

    @rule(task_id=ids, number=numbers)
    def set_one(self, task_id: str, number: int) -> None:
        self.table[task_id] = number
        self.model[task_id] = number

    @rule(pairs=st.one_of(st.dictionaries(ids, numbers, max_size=20), st.dictionaries(lines, numbers, max_size=20)))
    def set_many(self, pairs: dict[str, int]) -> None:
        self.table.update(Ids(list(pairs)), pairs.values())
        self.model.update(pairs)

    @rule(wanted=st.one_of(st.lists(ids, max_size=20), st.lists(lines, max_size=20)))
    def ask(self, wanted: list[str]) -> None:
        expected = [self.model.get(task_id) for task_id in wanted]
        assert [self.table.get(task_id) for task_id in wanted] == expected
        assert self.table.get_all(Ids(wanted)) == expected

    @invariant()
    def nothing_is_forgotten(self) -> None:
        assert self.table.get_all(Ids(list(self.model))) == list(self.model.values())


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


@given(st.integers(0, 3000))
def test_it_grows_with_what_it_holds(count: int) -> None:
    table = IdTable()
    for number in range(1, count + 1):
        table[f"id-{number}"] = number
    assert table.get_all(Ids([f"id-{number}" for number in range(count + 2)])) == [None, *range(1, count + 1), None]


def test_one_great_number_among_the_ids_costs_no_great_memory() -> None:
    table = IdTable()
    table["99999999999999999999"] = 1
    table["16777216"] = 2
    assert len(table._plain) == 0
    assert table.get_all(Ids(["99999999999999999999", "16777216", "1"])) == [1, 2, None]


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that take turns a thousand times as often as they would."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_threads")
def test_a_table_that_grows_under_whoever_looks_up_never_shows_another_ids_number() -> None:
    numbers = {f"id-{number}": number for number in range(1, 20_001)}
    for _ in range(3):
        table = IdTable()

        def fill(table: IdTable = table) -> None:
            for task_id, number in numbers.items():
                table[task_id] = number

        filler = threading.Thread(target=fill)
        filler.start()
        while filler.is_alive():
            assert table.get("never-set") is None
            for task_id in ("id-1", "id-5000", "id-20000"):
                assert table.get(task_id) in {None, numbers[task_id]}
        filler.join()
        assert table.get_all(Ids(list(numbers))) == list(numbers.values())

"""`make mutants` takes many minutes; that each bug of its catalogue can still be made is known at once."""

from pathlib import Path

import pytest
from mutants_catalogue import CATALOGUE
from mutants_subjects import SUBJECTS, Mutant, mutated

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("plugin", sorted(SUBJECTS))
def test_each_bug_of_the_catalogue_can_be_made(plugin: str) -> None:
    mutants: list[Mutant] = [mutant for mutant in CATALOGUE if mutant.plugin == plugin]
    for mutant in mutants:
        assert mutated(mutant, SUBJECTS[plugin], ROOT), mutant.name

"""The values of the interface, which have a constructor of their own, are the dataclasses they say they are."""

import pickle
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from typing import Any

import pytest

from htcgrid.spi import FailureKind, Lease, Outcome, Result, Task

TASK = Task("a", b"1")
VALUES = [
    TASK,
    Lease(TASK, 2, "r"),
    Outcome("a", b"{}", FailureKind.EXIT, log_tail=b"x"),
    Result(TASK, Outcome("a", b"1")),
]
EACH = pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)


@EACH
def test_a_value_cannot_be_changed(value: Any) -> None:
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


@EACH
def test_a_value_without_its_required_fields_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="missing"):
        type(value)()


@EACH
def test_a_value_has_the_defaults_that_its_fields_say(value: Any) -> None:
    required = {each.name: each.name for each in fields(value) if each.default is each.default_factory is MISSING}
    made = type(value)(**required)
    for each in fields(value):
        if each.default is not MISSING:
            assert getattr(made, each.name) == each.default
        elif each.default_factory is not MISSING:
            assert getattr(made, each.name) == each.default_factory()


@EACH
def test_a_value_survives_pickle_and_replace(value: Any) -> None:
    assert pickle.loads(pickle.dumps(value)) == value
    assert replace(value) == value


def test_a_task_has_attributes_of_its_own() -> None:
    assert Task("a", b"1").attributes is not Task("b", b"1").attributes

"""Failures that are alike are one group."""

from __future__ import annotations

import json

import pytest

from htcgrid.failures.groups import MOST_GROUPS, Groups, folded, last_lines, signature
from htcgrid.spi import FailureKind, Outcome, Task, generation_of


def failure(task_id: str, message: str, trace: list[str] | None = None, log: bytes = b"") -> Outcome:
    document = {"errorType": "E", "errorMessage": message, "stackTrace": trace or []}
    return Outcome(task_id, json.dumps(document).encode(), FailureKind.HANDLER_ERROR, log_tail=log)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no price for 17", "no price for 4.25e-3"),
        ("KeyError: 'a b'", "KeyError: 'c'"),
        (
            "RequestId: 00000000-0000-8000-8000-000000000003 died",
            "RequestId: 0f000000-0000-8000-8000-00000000000a died",
        ),
        ("at 0x7f31aa", "at 0xdeadbeef"),
    ],
)
def test_messages_that_differ_in_numbers_names_and_ids_are_one(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    assert folded("out of stock") != folded("out of money")


def test_groups_are_numbered_by_frequency_and_the_place_is_in_the_users_own_code() -> None:
    groups = Groups()
    own = '  File "/var/task/job.py", line 7, in price\n    return table[key]\n'
    library = '  File "/usr/lib/python3.13/json/decoder.py", line 345, in decode\n'
    assert groups.add(failure("a", "x")) is not None
    assert groups.add(failure("b", "value 1", [own, library])) is not None
    assert groups.add(failure("c", "value 2", [own, library])) is None
    first, second = groups.ordered()
    assert (first.count, first.example_id, first.key.place) == (2, "b", "job.py:7 in price")
    assert (second.count, groups.total, groups.numbered(2), groups.numbered(3)) == (1, 3, second, None)


def test_as_many_messages_as_failures_are_few_groups() -> None:
    groups = Groups()
    words = [f"{chr(97 + a)}{chr(97 + b)}{chr(97 + c)}" for a in range(20) for b in range(20) for c in range(20)]
    for number, word in enumerate(words):
        groups.add(failure(str(number), word))
    assert len(groups.ordered()) == MOST_GROUPS + 1
    assert groups.total == sum(group.count for group in groups.ordered()) == len(words)


def test_a_message_of_megabytes_is_not_kept_whole() -> None:
    groups = Groups()
    groups.add(failure("a", "no price in " + "x" * (5 << 20)))
    (group,) = groups.ordered()
    assert group.example_message.startswith("no price in xxx")
    assert len(json.dumps(group.document(1))) < 10_000


def test_an_answer_that_is_no_document_has_a_group_too() -> None:
    key, message = signature(Outcome("a", b"gone \xff", FailureKind.EXIT))
    assert (key.kind, message) == ("exit", "gone \ufffd")


def test_the_last_lines_are_the_handlers_own() -> None:
    log = b"one\ntwo\n\nthree\nfour\n[ERROR] E: no\nTraceback (most recent call last):\n  File x\n"
    assert last_lines(log) == ["two", "three", "four"]


@pytest.mark.parametrize("text", ["", "abc", "-1", "9" * 5000, "\u00b2"])
def test_a_generation_that_htcgrid_has_not_given_is_none(text: str) -> None:
    assert generation_of(Task("a", b"", {"generation": text})) == 0
    assert generation_of(Task("a", b"", {"generation": "12"})) == 12

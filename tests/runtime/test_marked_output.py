"""Marks in a worker's log say whose each line is, whenever the log is read and whatever the handler writes."""

from __future__ import annotations

import mmap
from typing import Any, cast

import pytest
from htcgrid_contracts.output_rules import KeptOutput

from htcgrid.runtime import shared_memory
from htcgrid.runtime.log_pipe import LOG_BYTES_AT_ONCE
from htcgrid.runtime.marked_output import MarkedOutput
from htcgrid.spi import Lease, Task

MARK = b"\0" + b"0123456789abcdef"
LEASES = {number: Lease(Task(f"t-{number}", b"{}")) for number in range(1, 5)}


class Log:
    """A worker's process of which nothing but its log is asked; `moves` is what the worker does while it is read."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.moves: Any = lambda: None

    def read_piece(self) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        self.moves()
        return piece


class Marked:
    def __init__(self) -> None:
        self.page = mmap.mmap(-1, shared_memory.SIZE)
        self.log, self.kept, self.pending = Log(), KeptOutput(), dict(LEASES)
        self.output = MarkedOutput(cast("Any", self.log), self.page, MARK, self.kept, "e-1", self.pending)

    def runs(self, sequence: int, began: int = 1) -> None:
        shared_memory.NOTE.pack_into(self.page, 0, 0, began, sequence)

    def read(self, *pieces: bytes) -> None:
        self.log.pieces += pieces
        for _ in pieces:
            self.output.read()

    def lines(self, number: int) -> list[str]:
        return self.kept.lines(LEASES[number])


@pytest.fixture
def marked() -> Marked:
    return Marked()


def mark(sequence: int) -> bytes:
    return MARK + shared_memory.MARK_SEQUENCE.pack(sequence)


def test_what_stands_before_a_mark_is_its_task_s_whatever_the_page_says(marked: Marked) -> None:
    marked.runs(3)
    marked.read(b"a\n" + mark(1) + b"b\nc" + mark(2) + b"d\n")
    assert [marked.lines(number) for number in (1, 2, 3)] == [["a"], ["b", "c"], ["d"]]
    assert marked.output.tail_of(1) == b"a\n"
    assert marked.output.tail_of(2) == b"b\nc"


def test_what_is_read_while_one_task_ends_and_the_next_begins_waits_for_its_mark(marked: Marked) -> None:
    marked.runs(1)
    marked.log.moves = lambda: marked.runs(2, 2)
    marked.read(b"of the first\n")
    assert marked.kept.everything() == b""
    marked.log.moves = lambda: None
    marked.read(b"more of it\n" + mark(1) + b"of the second\n")
    assert [marked.lines(1), marked.lines(2)] == [["of the first", "more of it"], ["of the second"]]


def test_a_task_that_begins_and_ends_between_two_looks_at_the_page_is_not_taken_for_none(marked: Marked) -> None:
    marked.runs(0, 1)
    marked.log.moves = lambda: marked.runs(0, 2)
    marked.read(b"of the first\n")
    marked.log.moves = lambda: None
    marked.read(mark(1))
    assert marked.lines(1) == ["of the first"]


@pytest.mark.parametrize("cut", range(1, len(mark(1))))
def test_a_mark_that_is_cut_by_a_full_read_is_put_together(marked: Marked, cut: int) -> None:
    marked.runs(2)
    text = b"x" * (LOG_BYTES_AT_ONCE - cut - 1) + b"\n"
    marked.read(text + mark(1)[:cut], mark(1)[cut:] + b"next\n")
    assert "".join(marked.lines(1)).encode() == text[:-1]
    assert marked.lines(2) == ["next"]


def test_a_handler_that_writes_marks_of_its_own_breaks_nothing(marked: Marked) -> None:
    marked.runs(1)
    marked.read(b"a\n" + MARK, b"b\n" + mark(2**63) + b"c\n" + MARK + b"12", b"d\n" + mark(1))
    assert set(marked.kept.everything().splitlines()) >= {b"c", b"d"}
    assert marked.output.tail_of(2**63) == b""


def test_a_handler_that_changes_the_page_all_the_time_fills_no_memory(marked: Marked) -> None:
    moments = iter(range(10_000))
    marked.log.moves = lambda: marked.runs(1, next(moments))
    for _ in range(20):
        marked.read((b"x" * 1023 + b"\n") * 1024)
    assert len(marked.kept.everything()) > 8 << 20

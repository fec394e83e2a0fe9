"""What a container beside this one prints reaches the agent through a pipe: all of it, however slow the agent is."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from htcgrid.planes.container_pipes import ContainerPipes

LONG = 60.0
LINES = 300_000
"""2 MB: more than the pipe holds."""


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[ContainerPipes]:
    made = ContainerPipes(tmp_path / "0")
    made.open()
    yield made
    made.close()


def printing(pipes: ContainerPipes, program: str) -> subprocess.Popen[bytes]:
    """A program whose output goes where that of a container's does."""
    return subprocess.Popen(["/bin/sh", "-c", f'exec >>"{pipes.folder}/log" 2>&1; {program}'])


def ended(pipes: ContainerPipes, program: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LONG
    while program.poll() is None:
        assert time.monotonic() < end
        pipes.log.read()
    pipes.log.read()


def test_all_that_is_printed_is_handed_on_and_the_tail_is_its_end(pipes: ContainerPipes) -> None:
    printed: list[bytes] = []
    pipes.log.printed = lambda piece, _stream: printed.append(piece)
    ended(pipes, printing(pipes, f"seq {LINES}"))
    expected = "".join(f"{number}\n" for number in range(1, LINES + 1)).encode()
    assert b"".join(printed) == expected
    assert pipes.log.tail() == expected[-4096:]
    assert pipes.log.tail() == b""


def test_a_program_waits_while_nobody_reads_and_loses_nothing(pipes: ContainerPipes) -> None:
    program = printing(pipes, f"seq {LINES}")
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(0.5)
    printed: list[bytes] = []
    pipes.log.printed = lambda piece, _stream: printed.append(piece)
    ended(pipes, program)
    assert b"".join(printed).count(b"\n") == LINES


def test_a_program_may_open_its_standard_error_anew(pipes: ContainerPipes) -> None:
    program = printing(pipes, "echo first; echo second >/dev/stderr; echo third >/dev/stdout")
    assert program.wait(LONG) == 0
    assert pipes.log.tail() == b"first\nsecond\nthird\n"


def test_a_program_that_prints_on_and_on_does_not_keep_the_reader(pipes: ContainerPipes) -> None:
    program = printing(pipes, "yes")
    try:
        end = time.monotonic() + LONG
        while not pipes.log.is_chatty:  # it is to be read more often
            assert time.monotonic() < end
            time.sleep(0.01)
            pipes.log.read()
    finally:
        program.kill()
        program.wait()

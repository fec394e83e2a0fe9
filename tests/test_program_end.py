"""What a test reads of a program: all that it said, with what an earlier step has read ahead."""

import subprocess
import sys

import pytest
from program_end import output_at_end

SPEAKS = "print(*range(5000), sep=chr(10), flush=True)"
STAYS = f"import time; {SPEAKS}; time.sleep(3600)"


def test_no_line_is_missed_that_was_read_ahead() -> None:
    program = subprocess.Popen([sys.executable, "-c", SPEAKS], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    first = program.stdout.readline()
    while program.stdout.readline() != "3999\n":
        pass
    assert (first, output_at_end(program)[0].splitlines()) == ("0\n", [str(n) for n in range(4000, 5000)])


def test_a_program_that_does_not_end_fails_its_test_with_what_it_said() -> None:
    program = subprocess.Popen([sys.executable, "-c", STAYS], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "0\n"  # on a busy machine it takes long to begin
    with pytest.raises(pytest.fail.Exception, match=r"had not ended after 1 s(.|\n)*4999"):
        output_at_end(program, seconds=1)
    assert program.returncode is not None


def test_what_it_is_to_read_is_given_to_it() -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", "print(input())"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert output_at_end(program, "given\n")[0] == "given\n"

"""The end of a program that a test has started: bounded, and with what the program said where it does not come."""

import subprocess
from typing import AnyStr

import pytest


def output_at_end(
    process: subprocess.Popen[AnyStr], stdin: AnyStr | None = None, seconds: float = 60.0
) -> tuple[AnyStr, AnyStr]:
    """Standard output and error, once it has ended. It is killed after so long, and the test fails."""
    try:
        return process.communicate(stdin, seconds)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.wait(seconds)
        said = [text.decode(errors="replace") for text in (error.output, error.stderr) if text]
        pytest.fail(
            f"{process.args} had not ended after {seconds:g} s, or its output stayed open. It said:\n{''.join(said)}"
        )

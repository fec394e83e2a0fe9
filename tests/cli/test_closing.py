"""The end of a command whose plugin waits for a service that does not answer."""

import os
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest

from htcgrid.cli.closing import closed_in_time
from htcgrid.spi import Function, Plugin, Unavailable

WAITS = """
import sys, threading
from concurrent.futures import ThreadPoolExecutor
from htcgrid.cli import main
def status_of(_arguments):
    ThreadPoolExecutor().submit(threading.Event().wait, 60)
    print("printed")
    return int(sys.argv[1])
main.__globals__["status_of"] = status_of
main()
"""


class Waiting(Plugin):
    """Its `close` waits for an answer that does not come."""

    def __init__(self) -> None:
        super().__init__(Plugin.Config(), Function())
        self.answer = threading.Event()

    def close(self) -> None:
        self.answer.wait(60)


@pytest.mark.timing
def test_an_error_does_not_wait_for_a_plugin_to_be_closed() -> None:
    plugin = Waiting()
    began = time.monotonic()
    with pytest.raises(Unavailable, match="away"), closed_in_time(plugin):
        raise Unavailable("away")
    assert time.monotonic() - began < 20
    plugin.answer.set()


def test_a_run_that_ends_well_has_its_plugins_closed() -> None:
    plugin = Waiting()
    plugin.answer.set()
    with closed_in_time(plugin):
        plugin.close = plugin.answer.clear  # type: ignore[method-assign]
    assert not plugin.answer.is_set()


@pytest.mark.parametrize("status", [3, 130])
@pytest.mark.timing
def test_a_command_that_was_cut_off_does_not_wait_for_the_threads_of_a_plugin(status: int) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", WAITS, str(status)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == status
    assert time.monotonic() - began < 30
    assert done.stdout == ("printed\n" if status == 3 else "")


def test_ctrl_c_while_the_program_is_loaded_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, "-m", "htcgrid", "--version"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_installed_program_begins_where_ctrl_c_is_heard() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"htcgrid": "htcgrid.__main__:main"}

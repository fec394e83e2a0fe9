"""The programs that handlers leave behind."""

import os
import signal
import subprocess
import sys

import pytest

LEFT = """
import os, subprocess, sys
from htcgrid.runtime import descendants

quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
mine, other = (subprocess.Popen(["sleep", "60"], process_group=0, **quiet) for _ in range(2))
kill = {"kill": os.kill, "killpg": os.killpg}

def refused(name):
    def call(pid, number):
        if pid == other.pid:
            raise PermissionError(1, "Operation not permitted")
        kill[name](pid, number)
    return call

for name in kill:
    setattr(os, name, refused(name))
descendants.end_all(keep=set())
print(descendants.children() == [other.pid], other.pid)
"""


def test_one_that_may_not_be_killed_is_left_and_the_others_are_ended() -> None:
    done = subprocess.run([sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=30, check=True)
    alone, pid = done.stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    assert alone == "True"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a program as another user")
def test_a_program_of_another_user_does_not_hold_up_the_end() -> None:
    script = """
import os, subprocess
from htcgrid.runtime import descendants
other = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
os.setresuid(65534, 65534, 65534)
descendants.end_all(keep=set())
print(descendants.children() == [other.pid], other.pid)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True)
    alone, pid = done.stdout.split()
    os.kill(int(pid), signal.SIGKILL)
    assert alone == "True"

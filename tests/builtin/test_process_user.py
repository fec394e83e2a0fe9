"""`user` of the process plane: handlers with the rights of another user than the agent's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import htcgrid
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime import account
from htcgrid.spi import Function, Rejected

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of another user")
CODE = """
import os, pathlib
def handler(event, context):
    parent = os.getppid()
    agent = int(open(f"/proc/{os.readlink('agent')}/stat").read().split()[0])
    reached = []
    for what in ("environ", "mem", "fd"):
        try:
            os.listdir(f"/proc/{agent}/fd") if what == "fd" else open(f"/proc/{agent}/{what}", "rb").read(1)
            reached.append(what)
        except OSError:
            pass
    try:
        os.kill(agent, 0)
        reached.append("signal")
    except PermissionError:
        pass
    home = pathlib.Path.home()
    (home / "mine").write_text("x")
    return [os.getuid(), os.getgid(), os.getgroups(), os.environ["USER"], (home / "mine").owner(), reached]
"""
AGENT = """
import json, os, sys
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Task
folder, transport = sys.argv[1:]
function = Function(handler="job.handler", code=folder, environment={"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
config = ProcessInvoker.Config(workers=1, user="65534", transport=transport)
os.symlink(str(os.getpid()), folder + "/agent")
with ProcessInvoker(config, function) as plane:
    [outcome] = plane.invoke([Lease(Task("t", b"1"))], 20)
    print(json.dumps([outcome.failure, json.loads(outcome.payload)]))
"""


FORKS = """
import json, os, signal, subprocess, sys, time
from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import Function, Lease, Task, Unavailable
folder, = sys.argv[1:]
open(folder + "/job.py", "w").write("import os\\ndef handler(event, context): return os.getppid(), os.getpid()")
function = Function(handler="job.handler", code=folder, environment={"PYTHONPATH": os.environ.get("PYTHONPATH", "")})
def limit(server, most):
    code = "import resource, sys; pid, most = int(sys.argv[1]), sys.argv[2]; what = resource.RLIMIT_NPROC\\n"
    code += "hard = resource.prlimit(pid, what)[1]; resource.prlimit(pid, what, (hard if most == 'hard' else int(most), hard))"
    command = [sys.executable, "-c", code, str(server), most]
    subprocess.run(command, user=65534, group=65534, extra_groups=[], check=True)
def run():
    try:
        [outcome] = plane.invoke([Lease(Task("t", b"1"))], 20)
    except Unavailable as error:
        return str(error)
    return json.loads(outcome.payload)
with ProcessInvoker(ProcessInvoker.Config(workers=1, user="65534"), function) as plane:
    server, worker = run()
    limit(server, '0')
    os.kill(worker, signal.SIGKILL)
    while open(f"/proc/{worker}/stat").read().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    said = [run(), run()]
    limit(server, 'hard')
    print(json.dumps([said, run()[0] == server]))
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that others may read, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        (path / "job.py").write_text(CODE)
        yield path


def python() -> tuple[str, dict[str, str]]:
    """An interpreter that every user may run, with variables that lead it to what is installed here."""
    other = f"/usr/bin/python3.{sys.version_info.minor}"
    places = [str(Path(htcgrid.__file__).parents[1]), *(place for place in sys.path if "site-packages" in place)]
    for program, variables in ((sys.executable, {}), (other, {"PYTHONPATH": os.pathsep.join(places)})):
        try:
            code = [program, "-c", "import htcgrid.spi, awslambdaric"]
            if (
                subprocess.run(code, env=variables, user=NOBODY, group=NOBODY, extra_groups=[], check=False).returncode
                == 0
            ):
                return program, variables
        except OSError:
            continue
    pytest.skip("no Python here that another user may run")


@as_root
@pytest.mark.parametrize("transport", ["socket", "http"])
def test_handlers_have_the_rights_of_that_user_and_do_not_reach_the_agent(folder: Path, transport: str) -> None:
    program, variables = python()
    run = subprocess.run(
        [program, "-c", AGENT, str(folder), transport],
        env=variables | {"PATH": os.environ["PATH"], "USER": "root"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == [None, [NOBODY, NOBODY, [NOBODY], "nobody", "nobody", []]]


@as_root
def test_where_no_process_can_be_forked_the_sentence_says_what_to_raise_and_all_goes_on_later(folder: Path) -> None:
    program, variables = python()
    run = subprocess.run(
        [program, "-c", FORKS, str(folder)],
        env=variables | {"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    said, is_the_same_server = json.loads(run.stdout)
    assert all("No worker process can be started" in text and "ulimit -u" in text for text in said)
    assert is_the_same_server


def opened(**options: Any) -> None:
    function = Function(handler="job.handler", code=options.pop("code"))
    with ProcessInvoker(ProcessInvoker.Config(workers=1, **options), function):
        pass


@as_root
@pytest.mark.parametrize("user", ["nobody-of-that-name", "-1", str(2**32 - 1), str(2**32), str(2**64)])
def test_a_user_that_is_not_there_is_refused(folder: Path, user: str) -> None:
    with pytest.raises(Rejected, match="no such user"):
        opened(code=folder, user=user)


@as_root
def test_a_user_that_may_not_read_the_code_is_refused(folder: Path) -> None:
    folder.chmod(0o700)
    with pytest.raises(Rejected, match="may not"):
        opened(code=folder, user=str(NOBODY))


def test_another_user_than_ones_own_takes_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Rejected, match="only root"):
        account.named(str(NOBODY))

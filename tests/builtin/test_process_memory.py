"""Memory of the process plane, counted as a control group counts it: what is over the limit, and what is not."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from program_end import output_at_end

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.runtime import process_memory
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

CODE = """
import mmap, os, time
from multiprocessing import shared_memory

MB = 1 << 20

def fill(view):
    for at in range(0, len(view), 4096):
        view[at] = 1

UNTIL_STOPPED = 15

def forks(number, work, seconds=1.5):
    for _ in range(number):
        if os.fork() == 0:
            work()
            time.sleep(seconds)
            os._exit(0)
    for _ in range(number):
        os.wait()

def shared_by_forks():
    block = bytearray(60 * MB)
    fill(block)
    forks(3, lambda: sum(block[at] for at in range(0, len(block), 4096)))

def forks_with_their_own():
    def own():
        global kept
        kept = bytearray(60 * MB)
        fill(kept)
    forks(3, own, UNTIL_STOPPED)

def file_mapped():
    with open("big", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        sum(view[at] for at in range(0, len(view), 4096))
        time.sleep(1)

def memfd():
    fd = os.memfd_create("mine")
    for _ in range(180):
        os.write(fd, b"x" * MB)
    time.sleep(UNTIL_STOPPED)
    os.close(fd)

def shm_file_mapped_and_closed():
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(fd, 180 * MB)
    view = mmap.mmap(fd, 180 * MB)
    os.close(fd)
    fill(view)
    time.sleep(UNTIL_STOPPED)

def shared_mapping_without_a_file():
    view = mmap.mmap(-1, 180 * MB)
    fill(view)
    time.sleep(UNTIL_STOPPED)

def open_and_mapped():
    fd = os.memfd_create("mine")
    os.ftruncate(fd, 80 * MB)
    view = mmap.mmap(fd, 80 * MB)
    fill(view)
    time.sleep(1)

def handler(event, context):
    globals()[event]()
    return event
"""
LIMIT = 128


@pytest.fixture(scope="module")
def code() -> Iterator[Path]:
    # /tmp may be in memory, where a file's pages are shared memory. /var/tmp is on a disk.
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        (folder / "job.py").write_text(CODE)
        with (folder / "big").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 180 << 20)
        yield folder


def run(code: Path, what: str, transport: Literal["socket", "http"]) -> Outcome:
    function = Function(handler="job.handler", code=code, memory=LIMIT)
    with ProcessInvoker(ProcessInvoker.Config(workers=1, transport=transport), function) as plane:
        [outcome] = plane.invoke([Lease(Task("t", json.dumps(what).encode()))], 20.0)
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize("transport", ["socket", "http"])
@pytest.mark.parametrize(
    "what", ["forks_with_their_own", "memfd", "shm_file_mapped_and_closed", "shared_mapping_without_a_file"]
)
def test_what_a_control_group_charges_is_over_the_limit(
    code: Path, what: str, transport: Literal["socket", "http"]
) -> None:
    outcome = run(code, what, transport)
    assert outcome.failure is FailureKind.OUT_OF_MEMORY
    assert outcome.max_memory_mb > LIMIT


@pytest.mark.parametrize("transport", ["socket", "http"])
@pytest.mark.parametrize(("what", "least"), [("shared_by_forks", 60), ("open_and_mapped", 80), ("file_mapped", 5)])
def test_what_a_control_group_does_not_charge_twice_or_at_all_is_within_the_limit(
    code: Path, what: str, least: int, transport: Literal["socket", "http"]
) -> None:
    outcome = run(code, what, transport)
    assert outcome.failure is None, outcome
    assert outcome.max_memory_mb >= least
    assert outcome.max_memory_mb <= LIMIT


def test_a_file_that_is_unmapped_while_memory_is_counted_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 80 << 20
    fd = os.memfd_create("mine")
    os.posix_fallocate(fd, 0, size)
    before = process_memory.charged_mb(os.getpid())  # the file is open, and not mapped
    view = mmap.mmap(fd, size)
    for at in range(0, size, 4096):
        view[at] = 1
    share = process_memory._share_kb

    def unmapped_behind_it(pid: int) -> int:
        found = share(pid)
        view.close()
        return found

    monkeypatch.setattr(process_memory, "_share_kb", unmapped_behind_it)
    assert process_memory.charged_mb(os.getpid()) < before + 40
    os.close(fd)


@pytest.mark.slow
def test_a_chain_of_processes_is_followed_however_long_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pids = list(range(1, 2 * sys.getrecursionlimit()))
    for pid, child in zip(pids, [*map(str, pids[1:]), ""], strict=True):
        thread = tmp_path / f"proc/{pid}/task/{pid}"
        thread.mkdir(parents=True)
        (thread / "children").write_text(child)
    (tmp_path / "proc/1/task/0").mkdir()  # a thread that has ended since it was listed
    monkeypatch.setattr(process_memory, "Path", lambda text: Path(f"{tmp_path}{text}"))
    assert list(process_memory.family(1)) == pids


LEAVING = """
import mmap, os, subprocess, sys, time
def handler(event, context):
    path = event["path"]
    if event["how"] == "a file that is open":
        kept = open(path, "wb")
        kept.write(b"x" * 10000)
        kept.flush()
    if event["how"] == "a file that is mapped":
        with open(path, "w+b") as file:
            file.truncate(10000)
            kept = mmap.mmap(file.fileno(), 10000)
    if event["how"] == "a file of a child's":
        code = f"import time; kept = open({path!r}, 'wb'); time.sleep(60)"
        kept = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        while not os.path.exists(path): time.sleep(0.01)
    if event["how"] == "a file that is read":
        kept = open(path, "rb")
    if event["how"] == "a file that was there":
        kept = open(path, "ab")
    globals()["kept"] = kept
    open(event["mark"], "w").close()
    time.sleep(60 if event["hang"] else 0)
    return 1
"""


@pytest.mark.parametrize("hang", [False, True], ids=["at the plane's end", "at the timeout"])
@pytest.mark.parametrize("how", ["a file that is open", "a file that is mapped", "a file of a child's"])
def test_what_a_killed_worker_had_made_in_shared_memory_is_removed(tmp_path: Path, how: str, hang: bool) -> None:
    path = Path(f"/dev/shm/htcgrid-test-{os.getpid()}")
    leave(tmp_path, path, how, hang=hang)
    assert not path.exists()


@pytest.mark.parametrize("how", ["a file that is read", "a file that was there", "a file that is open"])
def test_what_others_have_in_shared_memory_stays(tmp_path: Path, how: str) -> None:
    path = Path(f"/dev/shm/htcgrid-test-{os.getpid()}")
    holder = None
    try:
        if how == "a file that was there":
            path.write_text("of somebody else")
        if how == "a file that is open":
            code = f"import os, time\nwhile not os.path.exists({str(tmp_path / 'mark')!r}): time.sleep(0.001)\n"
            code += f"kept = open({str(path)!r}, 'rb'); print(flush=True); time.sleep(60)"
            holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        leave(tmp_path, path, how, hang=True, holder=holder)
        assert path.exists()
    finally:
        if holder is not None:
            holder.kill()
            output_at_end(holder)
        path.unlink(missing_ok=True)


def leave(folder: Path, path: Path, how: str, *, hang: bool, holder: subprocess.Popen[str] | None = None) -> None:
    (folder / "job.py").write_text(LEAVING)
    function = Function(handler="job.handler", code=folder)
    event = {"path": str(path), "how": how, "hang": hang, "mark": str(folder / "mark")}
    with ProcessInvoker(ProcessInvoker.Config(workers=1), function) as plane:
        task = Task("t", json.dumps(event).encode())
        if how == "a file that is read":
            path.write_text("of somebody else")
        if holder is None:
            [outcome] = plane.invoke([Lease(task)], 0.5 if hang else 20.0)
        else:
            found: list[object] = []
            thread = threading.Thread(target=lambda: found.extend(plane.invoke([Lease(task)], 30.0)))
            thread.start()
            assert holder.stdout is not None
            holder.stdout.readline()  # it has it open
            plane.cancel(["t"])
            thread.join()
            [outcome] = found  # type: ignore[assignment]
    assert isinstance(outcome, Outcome)
    assert (outcome.failure is not None) == hang
    assert (folder / "mark").exists()

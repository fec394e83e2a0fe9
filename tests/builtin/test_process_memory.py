"""Memory of the process plane, counted as a control group counts it: what is over the limit, and what is not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from htcgrid.builtin.process import ProcessInvoker
from htcgrid.spi import FailureKind, Function, Lease, Outcome, Task

CODE = """
import mmap, os, time
from multiprocessing import shared_memory

MB = 1 << 20

def fill(view):
    for at in range(0, len(view), 4096):
        view[at] = 1

def forks(number, work):
    for _ in range(number):
        if os.fork() == 0:
            work()
            time.sleep(0.25)
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
    forks(3, own)

def file_mapped():
    with open("big", "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        sum(view[at] for at in range(0, len(view), 4096))
        time.sleep(0.25)

def memfd():
    fd = os.memfd_create("mine")
    for _ in range(180):
        os.write(fd, b"x" * MB)
    time.sleep(0.25)
    os.close(fd)

def shm_file_mapped_and_closed():
    fd = os.open("/dev/shm", os.O_TMPFILE | os.O_RDWR)
    os.ftruncate(fd, 180 * MB)
    view = mmap.mmap(fd, 180 * MB)
    os.close(fd)
    fill(view)
    time.sleep(0.25)

def shared_mapping_without_a_file():
    view = mmap.mmap(-1, 180 * MB)
    fill(view)
    time.sleep(0.25)

def open_and_mapped():
    fd = os.memfd_create("mine")
    os.ftruncate(fd, 80 * MB)
    view = mmap.mmap(fd, 80 * MB)
    fill(view)
    time.sleep(0.25)

def handler(event, context):
    globals()[event]()
    return event
"""
LIMIT = 128


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("code")
    (folder / "job.py").write_text(CODE)
    with (folder / "big").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 180 << 20)
    yield folder
    (folder / "big").unlink()


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

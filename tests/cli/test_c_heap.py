"""Large payloads that many threads handle stay in few heaps."""

from __future__ import annotations

import subprocess
import sys

import pytest

THREADS = """
import ctypes, threading
from htcgrid.cli import c_heap
if {shares}:
    c_heap.share()
all_here = threading.Barrier(12)
def work():
    all_here.wait()
    kept = [bytearray(50_000) for _ in range(20)]
    all_here.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
library = ctypes.CDLL(None)
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
"""


def heaps(*, shares: bool) -> int:
    done = subprocess.run(
        [sys.executable, "-c", THREADS.format(shares=shares)], capture_output=True, text=True, check=True
    )
    return done.stdout.count("<heap nr=")


def test_the_threads_of_an_agent_share_two_heaps() -> None:
    if heaps(shares=False) <= 2:
        pytest.skip("this C library has one heap for all threads anyway")
    assert heaps(shares=True) <= 2

"""On another system than Linux. None was at hand: what only Linux has is taken out of Python here."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conftest import Project

ELSEWHERE = """
import asyncio, concurrent.futures, fcntl, multiprocessing, os, platform, resource, select, shutil, signal, socket
import subprocess, sys, tempfile, time, mmap, ctypes, runpy

ONLY_ON_LINUX = {
    os: ("pidfd_open", "memfd_create", "MFD_CLOEXEC", "sched_getaffinity", "fdatasync", "pipe2", "eventfd",
         "posix_fallocate", "posix_fadvise", "copy_file_range", "splice", "O_TMPFILE", "O_PATH", "setresuid", "setresgid"),
    select: ("epoll", "EPOLLIN"),
    signal: ("pidfd_send_signal", "SIGRTMIN", "SIGRTMAX", "sigtimedwait", "sigwaitinfo"),
    socket: ("SOCK_CLOEXEC", "SOCK_NONBLOCK", "SO_PEERCRED", "SCM_CREDENTIALS", "SO_PASSCRED"),
    mmap: ("MAP_POPULATE",),
    fcntl: ("F_SETPIPE_SZ", "F_GETPIPE_SZ", "F_ADD_SEALS", "F_SEAL_SHRINK"),
    resource: ("prlimit",),
    time: ("CLOCK_BOOTTIME",),
}
for module, names in ONLY_ON_LINUX.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
platform.system = lambda: "Darwin"
sys.argv = ["htcgrid", "run", "--quiet"]
runpy.run_module("htcgrid", run_name="__main__")
"""


def test_a_run_says_in_a_sentence_that_it_needs_linux_and_what_to_do(project: Project) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=project.folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert 'The plane "process" needs Linux, and this is Darwin.' in done.stderr
    assert "Docker" in done.stderr
    assert "Traceback" not in done.stderr

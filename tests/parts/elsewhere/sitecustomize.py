"""Makes this Python like one of another system than Linux, as macOS is: on PYTHONPATH, it is loaded before anything else.

What only Linux has is taken out, and calls that would reach it anyway are refused. What macOS does in another way, such as
the size of a pipe or the order of signals, cannot be shown like this.
"""

from __future__ import annotations

import asyncio
import fcntl
import importlib.abc
import mimetypes
import mmap
import multiprocessing.connection
import os
import platform
import resource
import select
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
import uuid
import webbrowser
from pathlib import Path
from types import ModuleType
from typing import Any

LOADED = (
    asyncio,
    mimetypes,
    multiprocessing.connection,
    shutil,
    subprocess,
    tempfile,
    urllib.request,
    uuid,
    webbrowser,
)
"""These look at `sys.platform` as they are loaded, and would look for parts of macOS."""

ONLY_ON_LINUX: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *(
            "pidfd_open",
            "memfd_create",
            "eventfd",
            "eventfd_read",
            "eventfd_write",
            "pipe2",
            "fdatasync",
            "waitid",
            "unshare",
        ),
        *(
            "posix_fallocate",
            "posix_fadvise",
            "copy_file_range",
            "splice",
            "sendfile",
            "setns",
            "getrandom",
            "setresuid",
        ),
        *(
            "setresgid",
            "getxattr",
            "setxattr",
            "sched_getaffinity",
            "sched_setaffinity",
            "sched_getscheduler",
            "accept4",
        ),
        *(
            "process_cpu_count",
            "sched_setscheduler",
            "sched_getparam",
            "sched_setparam",
            "sched_rr_get_interval",
            "preadv2",
        ),
        *(
            name
            for name in dir(os)
            if name.startswith(("MFD_", "EFD_", "SPLICE_", "SCHED_", "CLONE_", "P_PIDFD", "RWF_"))
        ),
        *("O_TMPFILE", "O_PATH", "O_DIRECT", "O_NOATIME", "POSIX_FADV_DONTNEED"),
    ),
    select: ("epoll", *(name for name in dir(select) if name.startswith("EPOLL"))),
    selectors: ("EpollSelector",),
    signal: ("pidfd_send_signal", "SIGRTMIN", "SIGRTMAX", "SIGPWR", "SIGSTKFLT", "sigtimedwait", "sigwaitinfo"),
    socket: (
        *(
            "SOCK_CLOEXEC",
            "SOCK_NONBLOCK",
            "SOCK_SEQPACKET",
            "SO_PEERCRED",
            "SCM_CREDENTIALS",
            "SO_PASSCRED",
            "AF_NETLINK",
        ),
        *("AF_PACKET", "AF_VSOCK", "AF_ALG", "TCP_QUICKACK", "TCP_USER_TIMEOUT", "SO_BINDTODEVICE", "SO_DOMAIN"),
    ),
    mmap: ("MAP_POPULATE", "MADV_DONTFORK", "MADV_HUGEPAGE"),
    fcntl: ("F_SETPIPE_SZ", "F_GETPIPE_SZ", "F_ADD_SEALS", "F_GET_SEALS", "F_SEAL_SHRINK", "F_NOTIFY"),
    resource: ("prlimit",),
    time: ("CLOCK_BOOTTIME", "CLOCK_TAI"),
}
NO_FOLDERS = ("/proc", "/sys", "/dev/shm")
NO_FUNCTIONS = frozenset(
    {"prctl", "inotify_init1", "inotify_add_watch", "memfd_create", "eventfd", "mallopt", "syscall"}
)


class NoCompiledClient(importlib.abc.MetaPathFinder):
    """The compiled part of AWS's client is built on Linux alone."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "runtime_client":
            raise ImportError(f"there is no {name} here")


def is_absent(path: object) -> bool:
    text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    return any(text == folder or text.startswith(f"{folder}/") for folder in NO_FOLDERS)


def refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in {"open", "os.listdir", "os.scandir"} and is_absent(arguments[0]):
        raise FileNotFoundError(2, "there is no such folder on this system", arguments[0])
    if event == "ctypes.dlsym" and arguments[1] in NO_FUNCTIONS:
        raise AttributeError(f"no function {arguments[1]} on this system")


def refusing(function: Any) -> Any:
    def called(path: object, *arguments: Any, **named: Any) -> Any:
        if is_absent(path):
            raise FileNotFoundError(2, "there is no such folder on this system", path)
        return function(path, *arguments, **named)

    return called


def become() -> None:
    sysconfig.get_config_vars()  # read once, from a file that is named after the platform
    for module, names in ONLY_ON_LINUX.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    selectors.DefaultSelector = selectors.PollSelector  # type: ignore[misc]
    os.stat, os.lstat = refusing(os.stat), refusing(os.lstat)
    platform.system = lambda: "Darwin"
    sys.platform = "darwin"
    sys.meta_path.insert(0, NoCompiledClient())
    sys.addaudithook(refuse)
    if note := os.environ.get("ELSEWHERE_NOTES"):  # tests look whether it was loaded
        (Path(note) / str(os.getpid())).touch()


become()

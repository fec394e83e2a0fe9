"""Calls that a caller can stop waiting for.

boto3 offers no way to end a call from another thread, and a drain must not wait a handler's fifteen minutes.
So each call has a thread of its own, a twentieth of a call's cost, which dies with the process.
"""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def start(work: Callable[[], T], future: "Future[T]") -> None:
    """Run `work` in a thread. Cancelling the future abandons it; the work continues and its result is dropped."""
    Thread(target=_run, args=(work, future), name="htcgrid-invoke", daemon=True).start()


def _run(work: Callable[[], T], future: "Future[T]") -> None:
    with contextlib.suppress(InvalidStateError):  # it was cancelled meanwhile
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is awaited
            future.set_exception(error)
        else:
            future.set_result(value)

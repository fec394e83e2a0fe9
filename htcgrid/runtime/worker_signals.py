"""SIGTERM, SIGHUP and SIGINT in a Python worker: ignored where they come from outside.

A supervisor such as systemd sends them to every process of a service at once. The agent gets them too and drains, so a
worker must go on. A handler that sends one to itself ends by it, as on AWS Lambda, and so do the processes that it starts.

Python does not say who has sent a signal, so the functions that send one are wrapped to note it. Handlers see the functions
that are installed here as the default, which they replace.
"""

import _thread
import os
import signal
from collections.abc import Callable
from functools import wraps
from typing import Any

_DEFAULTS: dict[int, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}
_LEFT = frozenset(_DEFAULTS)


def leave_to_the_agent() -> None:
    """Install it; in a process of its own, whose main thread this is."""
    _Signals().install()


class _Signals:
    def __init__(self) -> None:
        self._worker = os.getpid()
        self._sent: set[int] = set()
        self._mask: set[int] = set()
        self._set, self._get = signal.signal, signal.getsignal

    def install(self) -> None:
        for number in _LEFT:
            self._set(number, self._received)
        changes: list[tuple[Any, str, Callable[..., Any]]] = [
            (signal, "signal", self._signal),
            (signal, "getsignal", self._getsignal),
        ]
        for module, name in [(os, "kill"), (os, "killpg"), (signal, "raise_signal"), (signal, "pthread_kill")]:
            changes.append((module, name, self._noting(getattr(module, name))))
        changes.append((_thread, "interrupt_main", self._interrupting(_thread.interrupt_main)))
        for module, name, function in changes:
            setattr(module, name, function)
        # A signal to a forked child that does not have the default yet would be lost, so signals are blocked until then.
        # Another program gets the default by itself.
        os.register_at_fork(before=self._hold, after_in_parent=self._release, after_in_child=self._to_the_default)

    def _received(self, number: int, frame: Any) -> None:
        if number not in self._sent:
            return
        if number == signal.SIGINT:
            self._sent.discard(number)
            signal.default_int_handler(number, frame)
        self._set(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    def _signal(self, number: Any, handler: Any) -> Any:
        is_default = number in _LEFT and handler == _DEFAULTS[number] and os.getpid() == self._worker
        return self._shown(number, self._set(number, self._received if is_default else handler))

    def _getsignal(self, number: Any) -> Any:
        return self._shown(number, self._get(number))

    def _shown(self, number: Any, handler: Any) -> Any:
        return _DEFAULTS[number] if handler == self._received else handler

    def _hold(self) -> None:
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT)

    def _release(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _to_the_default(self) -> None:
        for number in _LEFT:
            if self._get(number) == self._received:
                self._set(number, _DEFAULTS[number])
        self._release()

    def _noting(self, send: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(send)
        def noted(*arguments: Any) -> Any:
            number = arguments[-1] if arguments else None
            if number in _LEFT and os.getpid() == self._worker and _is_to_this_process(send.__name__, arguments[0]):
                self._sent.add(number)
            return send(*arguments)

        return noted

    def _interrupting(self, interrupt: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(interrupt)
        def noted(signum: Any = signal.SIGINT) -> Any:
            if signum in _LEFT and os.getpid() == self._worker:
                self._sent.add(signum)
            return interrupt(signum)

        return noted


def _is_to_this_process(function: str, target: int) -> bool:
    if function == "kill":
        return target in {os.getpid(), 0, -1, -os.getpgrp()}
    return function != "killpg" or target in {0, os.getpgrp()}

"""Tasks that ran when the plane was lost, or that it did not begin: one of them must not harm the others."""

import threading
import time
from collections import Counter, deque

from htcgrid.spi import Lease

_LOSSES = 3
"""A task is a suspect after the plane was lost this many times while it ran."""
_REFUSALS = 10
_MOST = 100_000


class Suspects:
    """Tasks that ran when the plane was lost, several times: only one of them runs at a time.

    A task that ends the plane ends every task that runs at the same time. If they all ran together again, the others would
    be lost as often as the task that is the cause. Any thread may call anything.
    """

    def __init__(self) -> None:
        self.known: Counter[str] = Counter()
        """How often the plane was lost while a task ran, by task id; read without the lock, for speed."""
        self._refused: dict[str, tuple[float, int]] = {}
        self._lost_first: dict[str, float] = {}
        self.answered = 0.0
        """When the newest answered invocation began, on the monotonic clock. It is set without the lock: a value that is a
        little too low does no harm."""
        self._waiting: deque[Lease] = deque()
        self._is_one_running = False
        self._lock = threading.Lock()

    def __contains__(self, task_id: str) -> bool:
        return self.known[task_id] >= _LOSSES

    def lose(self, task_id: str) -> None:
        """Note that the plane was lost while this task ran."""
        with self._lock:
            self.known[task_id] += 1
            self._lost_first.setdefault(task_id, time.monotonic())
            self._forget_the_oldest()

    def is_cause(self, task_id: str, seconds: float) -> bool:
        """Whether this task is the cause of the losses, and not an outage of the plane.

        It is assumed to be the cause if the plane has answered an invocation that began after this task's first loss, or if
        that loss is `seconds` ago.
        """
        with self._lock:
            first = self._lost_first.get(task_id, time.monotonic())
            return self.answered > first or time.monotonic() - first >= seconds

    def is_refused_for(self, task_id: str, seconds: float) -> bool:
        """Note that the plane has not begun this task. Returns whether this happened often and for longer than `seconds`; then
        the count starts again."""
        now = time.monotonic()
        with self._lock:
            self.known.setdefault(task_id, 0)
            since, times = self._refused.pop(task_id, (now, 0))
            if now - since > seconds and times >= _REFUSALS:
                return True
            self._refused[task_id] = (since, times + 1)
            self._forget_the_oldest()
            return False

    def settle(self, task_id: str) -> None:
        """Forget this task: it has another outcome, or has left this agent."""
        with self._lock:
            self.known.pop(task_id, None)
            self._refused.pop(task_id, None)
            self._lost_first.pop(task_id, None)

    def begin(self, lease: Lease) -> bool:
        """Whether the caller must run this suspect now, and then those that `next` returns. Otherwise the suspect waits."""
        with self._lock:
            if self._is_one_running:
                self._waiting.append(lease)
                return False
            self._is_one_running = True
            return True

    def next(self) -> Lease | None:
        """The next waiting suspect. After None, another slot may begin one."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._is_one_running = False
            return None

    def _forget_the_oldest(self) -> None:
        """Limit the memory: most tasks that are noted here have gone to other agents."""
        if len(self.known) > _MOST:
            oldest = next(iter(self.known))
            del self.known[oldest]
            self._refused.pop(oldest, None)
            self._lost_first.pop(oldest, None)

    def close(self) -> list[Lease]:
        """The waiting suspects, which will not run here."""
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
            return left

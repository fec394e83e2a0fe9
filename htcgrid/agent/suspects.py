"""Which tasks the plane was lost under, or would not begin, so that one of them does not harm the others."""

import threading
import time
from collections import Counter, deque

from htcgrid.spi import Lease

_LOSSES = 3
"""From so many losses on, a task is a suspect."""
_REFUSALS = 10
_MOST = 100_000


class Suspects:
    """Tasks under which the plane was lost several times: one of them runs at a time.

    A task that ends the plane takes along whatever runs beside it. Were all of these to run together again, the
    others would be lost as often as the one that is the cause. Any thread may call anything.
    """

    def __init__(self) -> None:
        self.known: Counter[str] = Counter()
        """How often the plane was lost under a task; looked at without the lock, for speed."""
        self._refused: dict[str, tuple[float, int]] = {}
        self._lost_first: dict[str, float] = {}
        self.answered = 0.0
        """On the monotonic clock, when the newest invocation began that the plane has answered; set without the lock, as a little less does no harm."""
        self._waiting: deque[Lease] = deque()
        self._is_one_running = False
        self._lock = threading.Lock()

    def __contains__(self, task_id: str) -> bool:
        return self.known[task_id] >= _LOSSES

    def lose(self, task_id: str) -> None:
        """The plane was lost while this ran."""
        with self._lock:
            self.known[task_id] += 1
            self._lost_first.setdefault(task_id, time.monotonic())
            self._forget_the_oldest()

    def is_cause(self, task_id: str, seconds: float) -> bool:
        """Whether the plane is lost by this task, and not by an outage that hits whatever runs.

        So it is where the plane has answered what began after the first loss of this, or where that is so many seconds ago.
        """
        with self._lock:
            first = self._lost_first.get(task_id, time.monotonic())
            return self.answered > first or time.monotonic() - first >= seconds

    def is_refused_for(self, task_id: str, seconds: float) -> bool:
        """The plane has not begun this. Whether that has gone on for longer than this, and often; then it begins anew."""
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
        """Something else came of this one, or it has left this agent."""
        with self._lock:
            self.known.pop(task_id, None)
            self._refused.pop(task_id, None)
            self._lost_first.pop(task_id, None)

    def begin(self, lease: Lease) -> bool:
        """Whether the caller is to run this suspect, and then what `next` gives; else it waits for who does."""
        with self._lock:
            if self._is_one_running:
                self._waiting.append(lease)
                return False
            self._is_one_running = True
            return True

    def next(self) -> Lease | None:
        """The next suspect that waits; with None another slot may begin one."""
        with self._lock:
            if self._waiting:
                return self._waiting.popleft()
            self._is_one_running = False
            return None

    def _forget_the_oldest(self) -> None:
        """Most of them have gone to other agents."""
        if len(self.known) > _MOST:
            oldest = next(iter(self.known))
            del self.known[oldest]
            self._refused.pop(oldest, None)
            self._lost_first.pop(oldest, None)

    def close(self) -> list[Lease]:
        """Those that wait and will not run."""
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
            return left

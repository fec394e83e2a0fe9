"""How many bytes of events and answers the agent holds, and for how many more tasks there is space."""

import threading
from collections.abc import Sequence

from htcgrid.spi import Lease, Result

_LOW = 0.75
"""The share of the budget below which tasks are received again. With 1, tasks would be received one by one."""
_RECENT = 0.3
_STORED_BYTES = 8 << 20
"""Results of about this size in all are stored together if the sink is fast."""
_SLOW_SECONDS = 0.5
_QUICK_SECONDS = 0.1


def stored_bytes(now: int, seconds: float, budget: int) -> int:
    """How many bytes of results to store together, if `now` bytes took `seconds`.

    A sink copies them, so few are best. A sink that takes long for each call gets more, up to half of what the agent may
    hold.
    """
    if seconds > _SLOW_SECONDS:
        return max(now, min(2 * now, budget // 2))
    return max(_STORED_BYTES, now // 2) if seconds < _QUICK_SECONDS else now


class ByteBudget:
    """Counts the events of all leases that are held, and the large answers among what waits to be stored.

    The size of an answer that is still to come, and of an event that is still to be received, is estimated from recent
    ones: it is not known before. A source that hands out large events hands out few at a time, so an estimate that is
    too low does little harm. Any thread may call anything.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._stored_bytes = _STORED_BYTES
        self._lock = threading.Lock()
        self._events = 0
        self._answers = 0
        """The bytes of the large answers that wait to be stored."""
        self._event_bytes = 0.0
        """The average bytes of an event."""
        self._answer_bytes: float | None = None
        """The average bytes of an answer; assumed to be as large as the event until an answer is known."""

    @property
    def held(self) -> int:
        return self._events + self._answers

    def hold(self, leases: Sequence[Lease]) -> None:
        """Count these leases, which were received."""
        size = sum(map(len, [lease.task.payload for lease in leases]))
        mean = size / max(1, len(leases))
        with self._lock:
            self._events += size
            # The larger of the two: the next receive corrects too few tasks, but not too many.
            self._event_bytes = max(mean, self._event_bytes + (mean - self._event_bytes) * _RECENT)

    def release(self, leases: Sequence[Lease]) -> bool:
        """These leases are not held any more. Returns whether there is space now and there was none before."""
        size = sum(map(len, [lease.task.payload for lease in leases]))
        with self._lock:
            before = self.held
            self._events -= size
            return self.held < self._budget * _LOW <= before

    def finish(self, result: Result) -> None:
        """Count this large answer, which waits to be stored."""
        with self._lock:
            self._answers += len(result.outcome.payload)

    def store(self, large: Sequence[Result], number: int) -> None:
        """`number` results are stored; those with large answers are in `large`."""
        size = sum([len(result.outcome.payload) for result in large])
        with self._lock:
            self._answers -= size
            if number:
                self._answer_bytes = self._answer() + (size / number - self._answer()) * _RECENT

    def has_room(self, unfinished: int) -> bool:
        """Whether more tasks may be received while `unfinished` ones have not answered yet."""
        return self.held + unfinished * self._answer() < self._budget * _LOW

    def room(self, unfinished: int) -> int:
        """For how many more tasks there is space; at least one."""
        left = self._budget - self.held - unfinished * self._answer()
        return max(1, int(left / max(1.0, self._event_bytes + self._answer())))

    @property
    def has_answers(self) -> bool:
        return self._answers > 0

    @property
    def is_full(self) -> bool:
        """Whether the answers alone use the whole budget."""
        return self._answers >= self._budget

    def number(self, size: int) -> int:
        """How many tasks have events of this size together; at least one."""
        return max(1, int(size / max(1.0, self._event_bytes)))

    def number_stored(self, waiting: int) -> int:
        """How many of the `waiting` results to store together; at least one."""
        return max(1, int(self._stored_bytes * waiting / max(1, self._answers)))

    def put_took(self, seconds: float) -> None:
        """The last `put` took this long."""
        self._stored_bytes = stored_bytes(self._stored_bytes, seconds, self._budget)

    def _answer(self) -> float:
        return self._event_bytes if self._answer_bytes is None else self._answer_bytes

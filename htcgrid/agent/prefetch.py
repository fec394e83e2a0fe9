"""How many tasks to prefetch for the slots, to hand over together, and to return; it follows from current task durations.

A task that waits here cannot be run by another agent, a cancel finds it late, and tasks of a higher priority in the queue
cannot overtake it. So only as many are held as are needed during a receive; those that would wait longer are returned.
The functions are pure; `bench/prefetch.py` tests them with mixed loads.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from htcgrid.agent.policy import batch_size, prefetch_size

RETURNS = 2
"""How often a task is returned, by all agents together, because it would wait too long: each return counts as an attempt."""
_BRIDGED_RECEIVES = 50
"""Tasks are held for this many times the duration of a receive, which then costs at most a fiftieth of their time."""
_LEAST_SECONDS = 0.1
_MOST_SECONDS = 0.5
_RETURN_SECONDS = 0.25
"""A task is returned if it would begin later than this, and later than twice the time for which tasks are held."""
_REFUSED_SECONDS = 2.0
"""No tasks are held for a slot that the plane has refused for this time: another agent's plane may be available."""
DRY_SECONDS = 0.1
"""How long to wait for more tasks than idle slots can take at once, before the queue counts as empty."""
_SPENT = 50
"""Checks for cancelled tasks may take this part (1/50) of the tasks' time, in all slots together."""
_MOST = 8192
_RECEIVES = 16


def held_seconds(receive_seconds: float, batch_seconds: float) -> float:
    """How many seconds of work are held: enough for a receive, and for two batches of a slot."""
    bridge = max(_LEAST_SECONDS, min(_BRIDGED_RECEIVES * receive_seconds, _MOST_SECONDS))
    return max(bridge, 2 * batch_seconds)


def begun_within(seconds: float, mean_seconds: float | None, running: Sequence[float | None]) -> float:
    """How many tasks the slots will begin within this time.

    `running` says for each slot how long it has been running its task; None if it runs none. A task that has run longer
    than the mean is expected to run on for as long as it has exceeded the mean: nothing else is known about it.
    """
    if mean_seconds is None:
        return float(sum([ran is None or ran < seconds for ran in running]))
    mean = max(mean_seconds, 1e-9)
    idle = sum([ran is None for ran in running])
    left = [seconds - max(0.0, ran - mean) for ran in running if ran is not None]
    return idle * max(1.0, seconds / mean) + sum([each for each in left if each > 0]) / mean


def is_dry(waited_seconds: float, receive_seconds: float) -> bool:
    """Whether the queue was empty while a slot waited this long for a task; a shorter wait may be caused by a receive."""
    return waited_seconds > max(DRY_SECONDS, 4 * receive_seconds)


def wanted(
    mean_seconds: float | None,
    batch: int,
    receive_seconds: float,
    running: Sequence[float | None],
    ended: int = 1 << 30,
) -> int:
    """How many tasks to prefetch, besides those that run and those that idle slots take at once.

    None if a task takes as long as the time for which tasks are held and a receive costs little of it, for any number of
    slots: a task that waits here while another agent is idle makes the whole job end later.

    At most twice as many as have `ended` since the queue was empty: the next tasks may be of another kind, or long tasks
    that another agent has returned.
    """
    if mean_seconds is None:
        return 0
    seconds = held_seconds(receive_seconds, batch * mean_seconds if batch > 1 else 0.0)
    if mean_seconds >= max(seconds, _BRIDGED_RECEIVES * receive_seconds):
        return 0
    busy = [0.0 if ran is None else ran for ran in running]
    return int(min(begun_within(seconds, mean_seconds, busy), 2 * ended, _MOST))


def kept(mean_seconds: float | None, batch: int, receive_seconds: float, running: Sequence[float | None]) -> int:
    """How many tasks may continue to wait; the others are returned."""
    seconds = held_seconds(receive_seconds, batch * mean_seconds if batch > 1 and mean_seconds else 0.0)
    return int(begun_within(max(_RETURN_SECONDS, 2 * seconds), mean_seconds, running))


def most_held(slots: int, mean_seconds: float, received: int) -> int:
    """The most tasks that an agent has at a time, including those that run, if a source hands out this many at once.

    A receive takes part of the time for which tasks are held, so there are never more than for that time.
    """
    return slots + min(wanted(mean_seconds, 1, _MOST_SECONDS, [0.0] * slots), _BRIDGED_RECEIVES * received)


class Prefetch:
    """The measured durations of tasks and receives, for all slots together; recent tasks count more."""

    look_seconds = _RETURN_SECONDS / 4
    """How often to check, while tasks wait, whether some must be returned."""

    def __init__(self, slots: int, *, is_shared: bool = False) -> None:
        self.slots = slots
        self.is_throttled = False
        """Whether the plane has throttled recently: other agents would be throttled as well, so nothing is returned."""
        self._is_shared = is_shared
        """Whether another agent could have the tasks that wait here."""
        self.mean_seconds: float | None = None
        self.batch = 1
        """How many tasks a slot hands over together."""
        self._ended = 0
        """How many tasks have ended since the queue was empty."""
        self._receives: deque[float] = deque(maxlen=_RECEIVES)
        self._seen: list[tuple[Mapping[str, Any], int, float]] = []
        """For each slot its batch, how many tasks of it were left, and since when."""
        self._running: list[float | None] = [None] * slots
        self._refused: dict[int, float] = {}
        """Since when (monotonic clock) the plane has been unavailable to a slot, by the slot's number."""

    def learn(self, busy_seconds: float, tasks: int, most: int) -> None:
        """Note how long these tasks took together; the plane takes at most `most` at once."""
        mean = busy_seconds / tasks
        old = self.mean_seconds
        self.mean_seconds = mean if old is None else old + (mean - old) * 0.3
        self.batch = batch_size(self.batch, self.mean_seconds, most)
        self._ended += tasks

    def waited(self, seconds: float) -> None:
        """Note how long a slot has waited for a task."""
        if is_dry(seconds, min(self._usual_receive_seconds, _MOST_SECONDS / 4)):
            self.ran_dry()

    def ran_dry(self) -> None:
        """Note that the queue was empty."""
        self._ended = 0

    def forget(self) -> None:
        """No task has run for a while, so earlier durations say nothing about the next tasks."""
        if self._is_shared:
            self.mean_seconds, self.batch = None, 1

    def is_worth(self, seconds: float) -> bool:
        """Whether this time may be spent on each task before it begins."""
        return self.mean_seconds is None or self.mean_seconds >= _SPENT * seconds * self.slots

    def received(self, seconds: float) -> None:
        """Note how long a receive that found tasks took; it may have waited for them during a part of this time."""
        self._receives.append(seconds)

    def refused(self, slot: int) -> None:
        """Note that the plane was unavailable to this slot."""
        self._refused.setdefault(slot, time.monotonic())

    def accepted(self, slot: int) -> None:
        """Note that the plane has run this slot's tasks, or that the slot has ended."""
        self._refused.pop(slot, None)

    def is_refused(self, slot: int) -> bool:
        """Whether the plane was unavailable to this slot when it last called."""
        return slot in self._refused

    def look(self, by_slot: Mapping[int, Mapping[str, Any]]) -> None:
        """Note what each slot runs now: a batch that has not changed since the last check has a long task.

        Slots that the plane has refused for a while are left out.
        """
        if not self._is_shared:
            return
        now = time.monotonic()
        running = [batch for slot, batch in by_slot.items() if now - self._refused.get(slot, now) < _REFUSED_SECONDS]
        before = {id(seen[0]): seen for seen in self._seen}  # by batch, because slots start and end
        self._seen = [
            seen if (seen := before.get(id(batch))) and seen[1] == len(batch) else (batch, len(batch), now)
            for batch in running
        ]
        self.ran([now - since if left else None for _, left, since in self._seen])

    @property
    def _receive_seconds(self) -> float:
        """A receive may have waited for tasks, so the shortest one counts."""
        return min(self._receives, default=0.0)

    @property
    def _usual_receive_seconds(self) -> float:
        """Where the service is slow or the machine is busy, one receive in many is short; its time says little of the others.

        It may have the time in it for which receives waited for tasks, so the caller limits it.
        """
        receives = sorted(self._receives)
        return receives[len(receives) // 4] if receives else 0.0

    def ran(self, seconds: list[float | None]) -> None:
        """For how long each slot has been running its task; None for those that run nothing."""
        self._running = seconds

    def size(self) -> int:
        """How many tasks should wait for a slot."""
        if not self._is_shared:
            return prefetch_size(self.slots, self.mean_seconds, self.batch)
        return wanted(self.mean_seconds, self.batch, self._receive_seconds, self._running, self._ended)

    def most(self) -> int | None:
        """How many may continue to wait; None for any number, if no other agent could get or run them."""
        if not self._is_shared or self.is_throttled:
            return None
        return kept(self.mean_seconds, self.batch, self._receive_seconds, self._running)

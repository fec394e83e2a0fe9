"""How many tasks to hold for the slots, to hand over together, and to return: by how long tasks take now.

A task that waits here is one that no other agent can have, that a cancel finds late, and that one of a higher priority
cannot overtake in the queue. So no more are held than bridge a receive; those that would wait longer are returned.
The functions are pure; `bench/prefetch.py` drives them through mixed loads.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from htcgrid.agent.policy import batch_size, prefetch_size

RETURNS = 2
"""How often a task is returned, by all agents together, because it would wait too long: each return counts as an attempt."""
_BRIDGED_RECEIVES = 50
"""Tasks are held for so many times the duration of a receive: a receive costs at most a fiftieth of their time."""
_LEAST_SECONDS = 0.1
_MOST_SECONDS = 0.5
_RETURN_SECONDS = 0.25
"""A task is returned if it would begin later than this, and later than twice the time for which tasks are held."""
DRY_SECONDS = 0.1
"""How long to wait for more tasks than idle slots take at once, before the queue counts as empty."""
_SPENT = 50
"""A look whether a task was cancelled may take this part (1/50) of the task's time, all slots together."""
_MOST = 8192
_RECEIVES = 16


def held_seconds(receive_seconds: float, batch_seconds: float) -> float:
    """For how many seconds of work tasks are held: long enough for a receive, and for two batches of a slot."""
    bridge = max(_LEAST_SECONDS, min(_BRIDGED_RECEIVES * receive_seconds, _MOST_SECONDS))
    return max(bridge, 2 * batch_seconds)


def begun_within(seconds: float, mean_seconds: float | None, running: Sequence[float | None]) -> float:
    """How many tasks the slots will begin within this time.

    `running` says for each slot how long it has been running its task; None where it runs none. A task that has run
    longer than the mean is expected to run on for as long as it is over the mean: nothing else is known of it.
    """
    if mean_seconds is None:
        return float(sum([ran is None or ran < seconds for ran in running]))
    mean = max(mean_seconds, 1e-9)
    idle = sum([ran is None for ran in running])
    left = [seconds - max(0.0, ran - mean) for ran in running if ran is not None]
    return idle * max(1.0, seconds / mean) + sum([each for each in left if each > 0]) / mean


def is_dry(waited_seconds: float, receive_seconds: float) -> bool:
    """Whether the queue was empty while a slot waited so long for a task; a shorter wait may be that of a receive."""
    return waited_seconds > max(DRY_SECONDS, 4 * receive_seconds)


def wanted(
    mean_seconds: float | None,
    batch: int,
    receive_seconds: float,
    running: Sequence[float | None],
    ended: int = 1 << 30,
) -> int:
    """How many tasks to hold for the slots beyond those that they run and that idle slots take at once.

    None where a task takes as long as the time for which tasks are held and a receive costs little of it, however many
    slots there are: a task that waits here, while another agent has nothing to do, makes the whole job end later.

    At most twice as many as have `ended` since the queue was empty: the next tasks may be of another kind, or long ones
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
    """How many tasks may go on waiting; more are returned."""
    seconds = held_seconds(receive_seconds, batch * mean_seconds if batch > 1 and mean_seconds else 0.0)
    return int(begun_within(max(_RETURN_SECONDS, 2 * seconds), mean_seconds, running))


def most_held(slots: int, mean_seconds: float, received: int) -> int:
    """The most tasks that an agent has at a time, with those that run, where a source hands out so many at once.

    A receive takes part of the time that is bridged, so no more of them come than are bridged.
    """
    return slots + min(wanted(mean_seconds, 1, _MOST_SECONDS, [0.0] * slots), _BRIDGED_RECEIVES * received)


class Prefetch:
    """What was learnt of tasks and receives, by all slots together; recent tasks weigh more."""

    look_seconds = _RETURN_SECONDS / 4
    """How often to look, while tasks wait, whether some are to be returned."""

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
        self._receives: deque[float] = deque([0.0], _RECEIVES)
        self._seen: list[tuple[Mapping[str, Any], int, float]] = []
        """For each slot its batch, how many tasks of it were left, and since when."""
        self._running: list[float | None] = [None] * slots

    def learn(self, busy_seconds: float, tasks: int, most: int) -> None:
        """So many tasks took so long together; the plane takes `most` at once."""
        mean = busy_seconds / tasks
        old = self.mean_seconds
        self.mean_seconds = mean if old is None else old + (mean - old) * 0.3
        self.batch = batch_size(self.batch, self.mean_seconds, most)
        self._ended += tasks

    def waited(self, seconds: float) -> None:
        """A slot has waited so long for a task."""
        if is_dry(seconds, min(self._receives)):
            self.ran_dry()

    def ran_dry(self) -> None:
        """The queue was found empty."""
        self._ended = 0

    def forget(self) -> None:
        """Nothing has run for a while, so the time of earlier tasks says nothing about the next ones."""
        if self._is_shared:
            self.mean_seconds, self.batch = None, 1

    def is_worth(self, seconds: float) -> bool:
        """Whether so much may be spent on each task before it begins."""
        return self.mean_seconds is None or self.mean_seconds >= _SPENT * seconds * self.slots

    def received(self, seconds: float) -> None:
        """A receive that found tasks took so long; a part of it may have been a wait for them."""
        self._receives.append(seconds)

    def look(self, running: Sequence[Mapping[str, Any]]) -> None:
        """Note what each slot runs now: a batch that is as it was at the last look has a task that takes long."""
        if not self._is_shared:
            return
        now = time.monotonic()
        before = {id(seen[0]): seen for seen in self._seen}  # by their batches, since slots come and go
        self._seen = [
            seen if (seen := before.get(id(batch))) and seen[1] == len(batch) else (batch, len(batch), now)
            for batch in running
        ]
        self.ran([now - since if left else None for _, left, since in self._seen])

    def ran(self, seconds: list[float | None]) -> None:
        """For how long each slot has been running its task; None for those that run nothing."""
        self._running = seconds

    def size(self) -> int:
        """How many tasks to have waiting for a slot."""
        if not self._is_shared:
            return prefetch_size(self.slots, self.mean_seconds, self.batch)
        return wanted(self.mean_seconds, self.batch, min(self._receives), self._running, self._ended)

    def most(self) -> int | None:
        """How many may go on waiting; None for any number, where no other agent could have or run them."""
        if not self._is_shared or self.is_throttled:
            return None
        return kept(self.mean_seconds, self.batch, min(self._receives), self._running)

"""Every lease that the agent holds, from `receive` to `ack` or `nack`. Nothing else in the agent keeps leases.

          receive
             │ add, offer
             ▼
    ┌───► WAITING ───────────────────┐ close
    │        │ take                  │
    │ put    ▼                       ▼
    │ back  RUNNING ── return_now ► RETURNING ─── nack
    └────────┤  │       retry         ▲
             │  │ hold                │ the function is broken
      finish │  └──► NOT LOADED ──────┤
             ▼            │           │
          FINISHED ◄──────┘ it can be loaded after all
             │  │                     │
             │  └─────────────────────┘ nothing can be stored any more
             │ the sink has it
             └─── ack, or dead letter

A lease is lost when it has expired, or its task was cancelled or redriven. A lease that is WAITING is dropped at once; in
every other state the thread that has it drops it at its next step. A lost lease is not stored, acked or returned.
"""

import itertools
import threading
import time
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from htcgrid.agent.byte_budget import ByteBudget
from htcgrid.agent.prefetch import RETURNS, Prefetch
from htcgrid.agent.shutdown import Shutdown
from htcgrid.spi import Lease, Result, Task, generation_of

_COUNTED_BYTES = 1024
"""Smaller answers are limited by their number, so that counting bytes costs a fast task nothing."""
_BATCH_BYTES = 4 << 20
"""About how many bytes of events a slot hands over at once."""
_FINISHED = 5000
"""With more results than this waiting to be stored, no more tasks are received."""
_LOOK_SECONDS = 0.5
"""How often a slot that waits for space checks whether the agent must stop."""
_OLD_SECONDS = 0.02
"""After a longer wait the source is asked whether a task was cancelled before it begins."""
_FORGET_SECONDS = 1.0
"""When no slot has had a task for this time, earlier task durations say nothing about the next tasks."""


@dataclass(frozen=True, slots=True)
class Returning:
    """A lease on its way back to the source, which hands it out again after `delay` seconds."""

    lease: Lease
    delay: float


class LeaseTable:
    """Leases by task id, each in one state. Any thread may call anything."""

    def __init__(self, slots: int, most_finished: int = 0, *, is_shared: bool = False, budget: int = 64 << 20) -> None:
        self.prefetch = Prefetch(slots, is_shared=is_shared)
        self.bytes = ByteBudget(budget)
        self._is_shared = is_shared
        self._most_finished = max(_FINISHED, most_finished)
        self.returned = self.retried = 0
        self.moving = threading.Lock()
        """Held while the source extends leases or takes them back: an extension after the return would
        hide the task from all agents until its lease expires."""
        self._held: dict[str, Lease] = {}
        self._lost: dict[str, object] = {}
        """The receipts of leases that were lost, by task id."""
        self._on_the_way = 0
        """How many batches of leases are being returned to the source; these are not held any more."""
        self._returns = 0
        self._unacked: dict[str, Lease] = {}
        self._lock = threading.RLock()
        """A lease that is added while an older lease of its task is released must not be released with it."""
        self._settled = threading.Condition(self._lock)
        self._is_settling = False
        self._waiting: deque[Lease] = deque()
        self._low = 0
        self._idle_slots = 0
        self._is_put_back = False
        """Whether a slot has put back tasks since the last check of the thread that receives."""
        self._is_closed = False
        queue = threading.Lock()
        self._filled, self._emptied = threading.Condition(queue), threading.Condition(queue)
        self._numbers = itertools.count()
        self._running: dict[int, dict[str, Lease]] = {}
        """The batch of each slot, by the slot's number."""
        self._has_waited: dict[int, bool] = {}
        self._ending_slots = 0
        """How many slots must end when they ask for their next batch."""
        self._old_at = 0.0
        """When the waiting leases count as old (monotonic clock); leases that are added to them do not change it."""
        self._not_loaded: list[tuple[Lease, Result]] = []
        self._finished: deque[tuple[Result, bool]] = deque()
        self._stored = threading.Condition()
        self._returning: deque[Returning] = deque()
        self._work = threading.Event()
        """Set when the thread that stores and returns has something to do."""
        self._is_at_work = False
        """Whether that thread will read the finished results without another wake-up."""
        self._hurry = threading.Event()
        """Set when that thread must not wait for more results before it stores: no more will come for now."""
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def under_way(self) -> int:
        """How many leases are held, without those whose function was not loaded."""
        return len(self._held) - len(self._not_loaded)

    # --- receive -> WAITING ---

    def add(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Add these leases; returns those whose task is new.

        A task that is here already was received twice. It runs once; the newer lease is kept, since a queue takes only the
        newest receipt. A task that was redriven must run again, though: the lease of its last generation is kept, and an older
        one is lost.
        """
        by_id = {lease.task.id: lease for lease in leases}
        with self._lock:
            if len(by_id) == len(leases) and self._held.keys().isdisjoint(by_id):
                self._held.update(by_id)
                self.bytes.hold(leases)
                return leases
            new: dict[str, Lease] = {}
            for lease in leases:
                self._add_one(lease, new)
            return list(new.values())

    def _add_one(self, lease: Lease, new: dict[str, Lease]) -> None:
        task_id = lease.task.id
        if (held := self._held.get(task_id)) is not None:
            redrives = generation_of(lease.task) - generation_of(held.task)
            if redrives < 0:
                return  # it is received once more when this lease expires, and has a result by then
            if redrives > 0 and task_id not in new:
                self.lose([held])
                held = self._held.get(task_id)  # None if it was still waiting
        if held is None or task_id in new:
            new[task_id] = lease
        if held is not None:
            self.bytes.release([held])
        self._held[task_id] = lease
        self.bytes.hold([lease])

    def offer(self, leases: Sequence[Lease]) -> None:
        """Offer these to slots, those of a high priority first; after `close` they are returned."""
        with self._filled:
            if not self._is_closed:
                if not self._waiting:
                    self._old_at = time.monotonic() + _OLD_SECONDS
                if self._is_shared and leases and self._waiting and _priority(leases[0]) > _priority(self._waiting[-1]):
                    self._waiting = deque(sorted([*self._waiting, *leases], key=_priority, reverse=True))
                else:
                    self._waiting.extend(leases)
                self._filled.notify(min(len(leases), self._idle_slots))
                return
        self.return_now(*leases)

    def put_back(self, lease: Lease) -> None:
        """Put it back to the front: it has already waited. After `close` it is returned."""
        with self._filled:
            if not self._is_closed:
                self._waiting.appendleft(lease)
                self._filled.notify()
                if self._is_shared and not self._is_put_back:
                    self._is_put_back = True
                    self._emptied.notify()
                return
        self.return_now(lease)

    def wait_for_room(self, wait: float) -> int:
        """How many leases to receive; waits until some are wanted, for `wait` seconds at most.

        It waits until a slot is idle, or a quarter of the prefetched tasks are taken: waking the receiver for every task
        would delay the slot that takes it. None are wanted while too many results wait to be stored. While tasks wait
        that may have to be returned, it waits for a shorter time.
        """
        self.prefetch.look(dict(self._running))
        size = self.prefetch.size()
        with self._emptied:
            self._low = size - size // 4
            if self._is_shared and self._waiting:
                wait = min(wait, self.prefetch.look_seconds)
            self._emptied.wait_for(lambda: self._wants_more() or self._is_put_back, wait)
            self._is_put_back = False
            if self._is_closed or not self._wants_more():
                return 0
            return min(size + self._idle_slots - len(self._waiting), self.bytes.room(self._unfinished))

    @property
    def idle_slots(self) -> int:
        return self._idle_slots

    def _wants_more(self) -> bool:
        is_low = len(self._waiting) < max(self._low, self._idle_slots)
        has_room = self.under_way <= 0 or self.bytes.has_room(self._unfinished)
        return self._is_closed or (is_low and has_room and len(self._finished) <= self._most_finished)

    @property
    def _unfinished(self) -> int:
        """How many answers may still come."""
        return len(self._held) - len(self._finished)

    def surplus(self) -> list[Lease]:
        """Remove tasks that would wait too long here; the caller gives them to `return_now`."""
        self.prefetch.look(dict(self._running))
        most = self.prefetch.most()
        if most is None or len(self._waiting) <= most:
            return []
        with self._filled:
            waiting = list(self._waiting)
            # A return may count as an attempt, and a queue with a limit makes a dead letter of a task that has too many.
            leaving = [lease for lease in waiting[most:] if lease.attempt <= RETURNS]
            staying = [lease for lease in waiting[most:] if lease.attempt > RETURNS]
            self._waiting = deque([*waiting[:most], *staying])
        return leaving

    def close(self) -> None:
        """Hand out no more tasks; those that wait are returned."""
        with self._filled:
            self._is_closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._filled.notify_all()
            self._emptied.notify_all()
        with self._settled:
            self._settled.notify_all()
        self.return_now(*left)

    # --- WAITING -> RUNNING ---

    def new_slot(self) -> int:
        """The number of another slot that will take leases."""
        with self._filled:
            number = next(self._numbers)
            self._running[number], self._has_waited[number] = {}, False
            return number

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._running)

    def resize(self, slots: int) -> int:
        """Set the number of slots; returns how many the caller must add.

        If there are more, some end: an idle one at once, a busy one when it asks for its next batch.
        """
        with self._filled:
            self.prefetch.slots = slots
            self._ending_slots = max(0, len(self._running) - slots)
            self._filled.notify(self._ending_slots)
            return max(0, slots - len(self._running))

    def take(self, slot: int) -> dict[str, Lease]:
        """Wait for the slot's next batch, a fair share of the waiting tasks, by task id. It is empty if the slot must end.

        The slot removes each task that has ended: tasks in the batch count as running.
        """
        with self._filled:
            self._has_waited[slot] = bool(self._waiting) and time.monotonic() > self._old_at
            while not self._waiting and not self._is_closed and not self._ending_slots:
                self._idle_slots += 1
                self._emptied.notify()
                began = time.monotonic()
                self._filled.wait()
                waited = time.monotonic() - began
                self.prefetch.waited(waited)
                if self._idle_slots == len(self._running) and waited > _FORGET_SECONDS:
                    self.prefetch.forget()
                self._idle_slots -= 1
            if self._is_closed:
                return {}
            if self._ending_slots:
                self._end_slot(slot)
                return {}
            share = max(1, min(self.prefetch.batch, len(self._waiting) // len(self._running)))
            taken = [self._waiting.popleft() for _ in range(min(share, self.bytes.number(_BATCH_BYTES)))]
            if len(self._waiting) < self._low:
                self._emptied.notify()
        batch = self._running[slot] = {lease.task.id: lease for lease in taken}
        return batch

    def _end_slot(self, slot: int) -> None:
        self._ending_slots -= 1
        del self._running[slot], self._has_waited[slot]
        self.prefetch.accepted(slot)
        if self._waiting:  # this slot may have been woken to take a task, so another must be
            self._filled.notify()

    def has_waited(self, slot: int) -> bool:
        """Whether the slot's batch waited here before the slot took it, while another agent could have taken it."""
        return self._is_shared and self._has_waited[slot]

    def run(self, slot: int, leases: Iterable[Lease]) -> dict[str, Lease]:
        """As `take`, for leases that the slot already has."""
        batch = self._running[slot] = {lease.task.id: lease for lease in leases}
        return batch

    def busy_slots(self) -> int:
        """How many slots have tasks on the plane now."""
        return sum(map(bool, list(self._running.values())))

    def runs_others(self) -> bool:
        """Whether a slot has tasks on the plane that was not refused itself when it last called."""
        return any(batch and not self.prefetch.is_refused(slot) for slot, batch in list(self._running.items()))

    def running(self) -> list[Lease]:
        return [lease for batch in list(self._running.values()) for lease in list(batch.values())]

    # --- RUNNING -> ... ---

    def finish(self, result: Result, *, dead: bool = False) -> None:
        """Queue the result to be stored; then its task is acked or, with `dead`, becomes a dead letter."""
        if len(result.outcome.payload) > _COUNTED_BYTES:
            self.bytes.finish(result)
        self._finished.append((result, dead))
        if not self._is_at_work:
            self._is_at_work = True
            self._work.set()

    def hold(self, lease: Lease, result: Result) -> int:
        """Keep an initialisation error until its cause is known. Returns how many are kept."""
        with self._settled:
            self._not_loaded.append((lease, result))
            self._settled.notify_all()
            return len(self._not_loaded)

    def return_now(self, *leases: Lease) -> None:
        """Return these to the source, which hands them out again at once: they were not finished here."""
        if leases:
            with self._lock:
                self.returned += len(leases)
            self._return(leases, 0.0)

    def retry(self, lease: Lease, delay: float) -> None:
        """Return this to the source, which hands it out again after this delay."""
        with self._lock:
            self.retried += 1
        self._return([lease], delay)

    def _return(self, leases: Iterable[Lease], delay: float) -> None:
        self._returning.extend(Returning(lease, delay) for lease in leases)
        self.hurry()

    @property
    def is_full(self) -> bool:
        """Whether no task may begin before some of the answers are stored."""
        return self.bytes.is_full

    def wait_for_space(self, shutdown: Shutdown) -> None:
        """Wait until `is_full` is False, or the agent must stop."""
        while self.is_full and not shutdown.is_set():
            with self._stored:
                self._stored.wait_for(lambda: not self.is_full, _LOOK_SECONDS)

    # --- NOT LOADED -> ... ---

    @property
    def not_loaded(self) -> int:
        return len(self._not_loaded)

    def finish_not_loaded(self) -> None:
        """The function can be loaded, so the tasks that are kept have failed."""
        for _, result in self._take_not_loaded():
            self.finish(result)

    def return_not_loaded(self) -> None:
        """The function is the cause, so the tasks that are kept are returned."""
        self.return_now(*(lease for lease, _ in self._take_not_loaded()))

    def _take_not_loaded(self) -> list[tuple[Lease, Result]]:
        with self._lock:
            held, self._not_loaded = self._not_loaded, []
        return held

    # --- FINISHED and RETURNING -> the source; for the one thread that does this ---

    def wait_for_work(self, most: int, linger: float) -> bool:
        """Wait for something to store or return, then `linger` seconds for more of it. False once all is done."""
        if self._is_ending and not self._finished and not self._returning:
            return False
        self._work.wait()
        is_last = self._is_ending or self._is_settling
        if len(self._finished) < most and not is_last and len(self._held) > len(self._finished):
            self._hurry.wait(linger)
        self._hurry.clear()
        self._work.clear()
        self._is_at_work = False  # the last of the three: what is finished before this is seen after it
        return True

    def next_finished(self, most: int) -> list[tuple[Result, bool]]:
        """The next results to store, each with whether its task becomes a dead letter. Empty if all were lost."""
        taken: list[tuple[Result, bool]] = []
        while self._finished and not taken:
            waiting = len(self._finished)
            number = min(waiting, most, self.bytes.number_stored(waiting))
            taken = [self._finished.popleft() for _ in range(number)]
            if self._lost and (lost := {result.task.id for result, _ in taken if self.is_lost(result.task.id)}):
                self._count_stored([entry for entry in taken if entry[0].task.id in lost])
                self.drop(lost)
                taken = [entry for entry in taken if entry[0].task.id not in lost]
        return taken

    def stored(self, taken: Sequence[tuple[Result, bool]]) -> list[Lease]:
        """The sink has stored these results: release their leases and return them, to be acked.

        A task that was redriven meanwhile is not among them: another run of it is due.
        """
        with self._lock:
            task_ids = [result.task.id for result, _ in taken]
            if self._lost:
                redriven = {result.task.id for result, _ in taken if self._is_redriven(result.task)}
                self.drop(redriven)
                task_ids = [task_id for task_id in task_ids if task_id not in redriven]
            leases = self._release(task_ids)
        self._count_stored(taken)
        return leases

    def release(self, leases: Iterable[Lease]) -> list[Lease]:
        """Release the leases of tasks that need not run; returns the newest lease of each."""
        return self._release([lease.task.id for lease in leases])

    def not_stored(self, taken: Sequence[tuple[Result, bool]]) -> None:
        """Nothing can be stored any more: return the tasks of these, and of all results that wait, to the source."""
        entries = [*taken, *(self._finished.popleft() for _ in range(len(self._finished)))]
        self._count_stored(entries)
        held = [self._held.get(result.task.id) for result, _ in entries]
        self.return_now(*(lease for lease in held if lease is not None))

    def next_returning(self) -> dict[float, list[Lease]]:
        """The leases to return, by delay, each the newest of its task. If there are any, call `returned_all` afterwards."""
        by_delay: dict[float, list[str]] = {}
        with self._lock:
            while self._returning:
                returning = self._returning.popleft()
                task_id = returning.lease.task.id
                if self._is_lost_as_held(task_id):
                    self._release([task_id])
                else:
                    by_delay.setdefault(returning.delay, []).append(task_id)
            self._on_the_way += bool(by_delay)
            return {delay: self._release(task_ids) for delay, task_ids in by_delay.items()}

    def returned_all(self) -> None:
        with self._settled:
            self._on_the_way -= 1
            self._returns += 1
            self._settled.notify_all()

    def hurry(self) -> None:
        """No more results will come for now: store and return without waiting for more."""
        self._hurry.set()
        self._work.set()

    def end(self) -> None:
        """No more results will come."""
        self._is_ending = True
        self.hurry()

    def wait_until_settled(self, wait: float) -> bool:
        """Whether no lease is held except those with an initialisation error.

        It waits for that, `wait` seconds at most. It also ends at `close`, or when a task was returned: it may come again.
        """
        with self._settled:
            before, self._is_settling = self._returns, True
            self.hurry()
            self._settled.wait_for(lambda: self._is_settled() or self._returns != before or self._is_closed, wait)
            self._is_settling = False
            return self._is_settled()

    def _is_settled(self) -> bool:
        return self.under_way == 0 and not self._on_the_way

    def _release(self, task_ids: Iterable[str]) -> list[Lease]:
        pop = self._held.pop
        with self._lock:
            taken = [lease for task_id in task_ids if (lease := pop(task_id, None)) is not None]
            has_room = self.bytes.release(taken)
            if self._lost:
                for lease in taken:
                    self._lost.pop(lease.task.id, None)
            if len(self._held) == len(self._not_loaded):
                self._settled.notify_all()
        if has_room:
            with self._emptied:
                self._emptied.notify()
        return taken

    def _count_stored(self, entries: Sequence[tuple[Result, bool]]) -> None:
        large: list[Result] = []
        if self.bytes.has_answers:
            large = [result for result, _ in entries if len(result.outcome.payload) > _COUNTED_BYTES]
        self.bytes.store(large, len(entries))
        if large:
            with self._stored:
                self._stored.notify_all()
        if large or len(self._finished) + len(entries) > self._most_finished:
            with self._emptied:
                self._emptied.notify()

    # --- lost leases ---

    def held(self) -> list[Lease]:
        return [*list(self._held.values()), *self._unacked.values()]

    def still(self, leases: Collection[Lease]) -> list[Lease]:
        """Those of these that are still held, each as its newest lease."""
        held = [self._held.get(lease.task.id) or self._unacked.get(lease.task.id) for lease in leases]
        return [lease for lease in held if lease is not None]

    def keep_for_ack(self, leases: Sequence[Lease]) -> None:
        """Have these extended until their ack succeeds: their results are stored, but the source is unavailable."""
        if leases or self._unacked:
            self._unacked = {lease.task.id: lease for lease in leases}

    def lose(self, leases: Collection[Lease]) -> list[str]:
        """Mark these leases as lost: no result of them is stored. Returns the ids of their tasks."""
        with self._lock:
            for lease in leases:
                held = self._held.get(lease.task.id)
                if held is not None and held.receipt == lease.receipt:
                    self._lost[lease.task.id] = lease.receipt
            lost = [lease.task.id for lease in leases if lease.task.id in self._lost]
        self.drop(self._no_longer_waiting(lost))
        return lost

    def is_lost(self, task_id: str) -> bool:
        """Whether the result of this task must be dropped."""
        return task_id in self._lost

    def _is_redriven(self, task: Task) -> bool:
        """Whether the newest lease is of a later generation of this task."""
        held = self._held.get(task.id)
        return held is not None and generation_of(held.task) > generation_of(task)

    def _is_lost_as_held(self, task_id: str) -> bool:
        """Whether this task's newest lease is the one that was lost."""
        held = self._held.get(task_id)
        return held is not None and task_id in self._lost and self._lost[task_id] == held.receipt

    def drop(self, task_ids: Iterable[str]) -> None:
        """Release lost leases. A task that was leased to us again meanwhile does not run here, so it is returned."""
        again = []
        with self._lock:
            for task_id in task_ids:
                held = self._held.get(task_id)
                if held is not None and not self._is_lost_as_held(task_id):
                    again.append(held)
                else:
                    self._release([task_id])
        if again:
            self.return_now(*again)

    def _no_longer_waiting(self, task_ids: Collection[str]) -> list[str]:
        with self._filled:
            found = [lease.task.id for lease in self._waiting if lease.task.id in task_ids]
            if found:
                self._waiting = deque(lease for lease in self._waiting if lease.task.id not in task_ids)
                self._emptied.notify()
            return found


def _priority(lease: Lease) -> int:
    """The task's priority; 0 if it has none, or if it is not a whole number."""
    attributes = lease.task.attributes
    try:
        return int(attributes["priority"]) if "priority" in attributes else 0
    except ValueError:
        return 0

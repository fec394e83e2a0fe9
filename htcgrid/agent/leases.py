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

A lease is lost when its time has run out, or its task was cancelled. What is waiting is dropped then; in every other
state it is dropped when the thread that has it comes to it. Nothing of it is stored, acked or returned.
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
from htcgrid.spi import Lease, Result

_COUNTED_BYTES = 1024
"""Smaller answers are bounded by their number, so that counting costs a fast task nothing."""
_BATCH_BYTES = 4 << 20
"""A slot hands over no more tasks at once than are about as large as this."""
_FINISHED = 5000
"""With more results than this waiting to be stored, no more tasks are received."""
_LOOK_SECONDS = 0.5
"""How often whoever waits for space looks whether the agent is to stop."""
_OLD_SECONDS = 0.02
"""What waits for longer may have been cancelled meanwhile."""
_FORGET_SECONDS = 1.0
"""When no slot has had a task for so long, how long tasks took before says nothing about the next."""


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
        """Held while the source extends leases or takes them back: an extension that came after the return would
        keep the task from everybody until its lease expires."""
        self._held: dict[str, Lease] = {}
        self._lost: dict[str, object] = {}
        """The receipts of leases that were lost, by task id."""
        self._on_the_way = 0
        """How many calls that return leases have not ended; what they return is not held any more."""
        self._returns = 0
        self._unacked: dict[str, Lease] = {}
        self._lock = threading.RLock()
        """A lease that is added while an older one of its task is released must not go with it."""
        self._settled = threading.Condition(self._lock)
        self._is_settling = False
        self._waiting: deque[Lease] = deque()
        self._low = 0
        self._idle_slots = 0
        self._is_put_back = False
        """Whether a slot has put back what it had taken, since the thread that receives looked last."""
        self._is_closed = False
        queue = threading.Lock()
        self._filled, self._emptied = threading.Condition(queue), threading.Condition(queue)
        self._numbers = itertools.count()
        self._running: dict[int, dict[str, Lease]] = {}
        """The batch of each slot, by the slot's number."""
        self._has_waited: dict[int, bool] = {}
        self._ending_slots = 0
        """How many slots are to end as they come for their next batch."""
        self._old_at = 0.0
        """When what waits has been here for a while; new leases behind it do not make it younger."""
        self._not_loaded: list[tuple[Lease, Result]] = []
        self._finished: deque[tuple[Result, bool]] = deque()
        self._stored = threading.Condition()
        self._returning: deque[Returning] = deque()
        self._work = threading.Event()
        """For the thread that stores and returns: there is something."""
        self._is_at_work = False
        """Whether that thread will look at what is finished without being told once more."""
        self._hurry = threading.Event()
        """Nothing more will come for now: it is not to wait for company."""
        self._is_ending = False

    def __len__(self) -> int:
        return len(self._held)

    @property
    def under_way(self) -> int:
        """How many are held besides those whose function was not loaded."""
        return len(self._held) - len(self._not_loaded)

    # --- receive -> WAITING ---

    def add(self, leases: Sequence[Lease]) -> Sequence[Lease]:
        """Hold these; returns those whose task is new.

        A task that is here already was delivered twice. It runs once; its newer receipt is kept, since that is the
        one a queue goes by.
        """
        by_id = {lease.task.id: lease for lease in leases}
        with self._lock:
            if len(by_id) == len(leases) and self._held.keys().isdisjoint(by_id):
                self._held.update(by_id)
                self.bytes.hold(leases)
                return leases
            new = []
            for lease in leases:
                if (older := self._held.get(lease.task.id)) is None:
                    new.append(lease)
                else:
                    self.bytes.release([older])
                self._held[lease.task.id] = lease
                self.bytes.hold([lease])
            return new

    def offer(self, leases: Sequence[Lease]) -> None:
        """Have slots take these, those of a high priority first; once closed they are returned."""
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
        """To the front: it has waited its turn already. Once closed it is returned."""
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
        """How many more leases are wanted beyond what idle slots will take at once; waits for that.

        It waits until a quarter of what is to be prefetched has gone, or a slot is idle. Not for less: to be woken
        for every task that is taken would hold up the slot that takes it, which has an environment to feed.
        None are wanted while too much waits to be stored. The wait is short while it may be that some are to be returned.
        """
        self.prefetch.look(list(self._running.values()))
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
        """Those that would wait too long here, the last ones first: they are not held any more, but for `return_now`."""
        self.prefetch.look(list(self._running.values()))
        most = self.prefetch.most()
        if most is None or len(self._waiting) <= most:
            return []
        with self._filled:
            waiting = list(self._waiting)
            # Each return may count as an attempt; and where a queue limits those, the task would be a dead letter.
            leaving = [lease for lease in waiting[most:] if lease.attempt <= RETURNS]
            staying = [lease for lease in waiting[most:] if lease.attempt > RETURNS]
            self._waiting = deque([*waiting[:most], *staying])
        return leaving

    def close(self) -> None:
        """Hand out nothing more; what waits is returned."""
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
        """So many slots are wanted from now on; returns how many are missing.

        Where there are more, some end: an idle one at once, a busy one when it comes for its next batch.
        """
        with self._filled:
            self.prefetch.slots = slots
            self._ending_slots = max(0, len(self._running) - slots)
            self._filled.notify(self._ending_slots)
            return max(0, slots - len(self._running))

    def take(self, slot: int) -> dict[str, Lease]:
        """The next batch by task id, no more than a fair share of what waits; waits for one. Empty where the slot is to end.

        The slot removes each as it ends. What is in there counts as running.
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
        if self._waiting:  # it may have been woken to take that
            self._filled.notify()

    def has_waited(self, slot: int) -> bool:
        """Whether what the slot took last was here before it came for it, where another agent could have had it."""
        return self._is_shared and self._has_waited[slot]

    def run(self, slot: int, leases: Iterable[Lease]) -> dict[str, Lease]:
        """As `take`, for leases that the slot has at hand."""
        batch = self._running[slot] = {lease.task.id: lease for lease in leases}
        return batch

    def busy_slots(self) -> int:
        """How many slots have tasks with the plane now."""
        return sum(map(bool, list(self._running.values())))

    def running(self) -> list[Lease]:
        return [lease for batch in list(self._running.values()) for lease in list(batch.values())]

    # --- RUNNING -> ... ---

    def finish(self, result: Result, *, dead: bool = False) -> None:
        """To be stored and acked, or made a dead letter."""
        if len(result.outcome.payload) > _COUNTED_BYTES:
            self.bytes.finish(result)
        self._finished.append((result, dead))
        if not self._is_at_work:
            self._is_at_work = True
            self._work.set()

    def hold(self, lease: Lease, result: Result) -> int:
        """Its environment could not load the function: keep it until it is clear why. Returns how many there are."""
        with self._settled:
            self._not_loaded.append((lease, result))
            self._settled.notify_all()
            return len(self._not_loaded)

    def return_now(self, *leases: Lease) -> None:
        """To be handed out again at once: these have not run to their end here."""
        if leases:
            with self._lock:
                self.returned += len(leases)
            self._return(leases, 0.0)

    def retry(self, lease: Lease, delay: float) -> None:
        """To be handed out again after this delay."""
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
        """Until `is_full` is over, or the agent is to stop."""
        while self.is_full and not shutdown.is_set():
            with self._stored:
                self._stored.wait_for(lambda: not self.is_full, _LOOK_SECONDS)

    # --- NOT LOADED -> ... ---

    @property
    def not_loaded(self) -> int:
        return len(self._not_loaded)

    def finish_not_loaded(self) -> None:
        """The function can be loaded, so these have failed."""
        for _, result in self._take_not_loaded():
            self.finish(result)

    def return_not_loaded(self) -> None:
        """The function is at fault, and no task."""
        self.return_now(*(lease for lease, _ in self._take_not_loaded()))

    def _take_not_loaded(self) -> list[tuple[Lease, Result]]:
        with self._lock:
            held, self._not_loaded = self._not_loaded, []
        return held

    # --- FINISHED and RETURNING -> the source; for the one thread that does this ---

    def wait_for_work(self, most: int, linger: float) -> bool:
        """Until there is something to store or return, with some time for company; False once all is done."""
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
        """Results to be stored, each with whether it is to be a dead letter; none where all that waited was lost."""
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
        """Results that the sink has: releases their leases, and returns them to be acked."""
        leases = self._release([result.task.id for result, _ in taken])
        self._count_stored(taken)
        return leases

    def release(self, leases: Iterable[Lease]) -> list[Lease]:
        """These need no run: returns them, each in its newest lease, to be acked."""
        return self._release([lease.task.id for lease in leases])

    def not_stored(self, taken: Sequence[tuple[Result, bool]]) -> None:
        """Nothing can be stored any more: these, and all results that wait, are returned."""
        entries = [*taken, *(self._finished.popleft() for _ in range(len(self._finished)))]
        self._count_stored(entries)
        held = [self._held.get(result.task.id) for result, _ in entries]
        self.return_now(*(lease for lease in held if lease is not None))

    def next_returning(self) -> dict[float, list[Lease]]:
        """Leases to be returned, by their delay, each as the newest of its task. Where there are any, `returned_all` is to follow."""
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
        """Nothing more will come for now: store what there is."""
        self._hurry.set()
        self._work.set()

    def end(self) -> None:
        """Nothing more will come at all."""
        self._is_ending = True
        self.hurry()

    def wait_until_settled(self, wait: float) -> bool:
        """Whether every lease is dealt with, but for those whose function was not loaded.

        Waits until that is so, something was returned and may come again, or nothing more is handed out.
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
        """What is still held of these, each in its newest lease."""
        held = [self._held.get(lease.task.id) or self._unacked.get(lease.task.id) for lease in leases]
        return [lease for lease in held if lease is not None]

    def keep_for_ack(self, leases: Sequence[Lease]) -> None:
        """The results of these are stored, and the source is unavailable for their ack: until then they are extended."""
        if leases or self._unacked:
            self._unacked = {lease.task.id: lease for lease in leases}

    def lose(self, leases: Collection[Lease]) -> list[str]:
        """These very leases are ours no longer: nothing of them is to be stored. Returns the ids of their tasks."""
        with self._lock:
            for lease in leases:
                held = self._held.get(lease.task.id)
                if held is not None and held.receipt == lease.receipt:
                    self._lost[lease.task.id] = lease.receipt
            lost = [lease.task.id for lease in leases if lease.task.id in self._lost]
        self.drop(self._no_longer_waiting(lost))
        return lost

    def is_lost(self, task_id: str) -> bool:
        """Whether the result of this task is to be dropped."""
        return task_id in self._lost

    def _is_lost_as_held(self, task_id: str) -> bool:
        """Whether this task's newest lease is the one that was lost."""
        held = self._held.get(task_id)
        return held is not None and task_id in self._lost and self._lost[task_id] == held.receipt

    def drop(self, task_ids: Iterable[str]) -> None:
        """Release what was lost. What was leased to us again meanwhile has no run, and is returned."""
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
    """The task's; 0 where it has none, or none that is a whole number."""
    attributes = lease.task.attributes
    try:
        return int(attributes["priority"]) if "priority" in attributes else 0
    except ValueError:
        return 0

"""Every lease the agent answers for, from receive to ack: in stock, running, or waiting to be stored."""

import threading
from collections.abc import Collection, Iterable, Sequence

from htcgrid.spi import Lease


class Holdings:
    """Leases by task id. Any thread may call anything."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._lost: dict[str, str] = {}
        self._lock = threading.RLock()
        """A loan that is taken in while an older one of its task is let go must not go with it."""
        self.moving = threading.Lock()
        """Held while the source extends leases or takes them back: an extension that came after the return would
        keep the task from everybody until it lapses."""

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, leases: Sequence[Lease]) -> list[Lease]:
        """Take these in; returns those that are new.

        A task that is here already was delivered twice. It runs once; its newer receipt is kept, since
        that is the one a queue goes by.
        """
        held = self._leases
        by_id = {lease.task.id: lease for lease in leases}
        new: list[Lease] = []
        with self._lock:
            if len(by_id) == len(leases) and held.keys().isdisjoint(by_id):
                held.update(by_id)
                return list(leases)
            for lease in leases:
                if lease.task.id not in held:
                    new.append(lease)
                held[lease.task.id] = lease
        return new

    def release(self, task_ids: Iterable[str]) -> list[Lease]:
        """Let go of these; returns the leases of those that were still ours."""
        pop = self._leases.pop
        with self._lock:
            taken = [lease for task_id in task_ids if (lease := pop(task_id, None)) is not None]
            if self._lost:
                for lease in taken:
                    self._lost.pop(lease.task.id, None)
        return taken

    def lose(self, leases: Collection[Lease]) -> list[str]:
        """These very loans are ours no more: what comes of them is not to be stored. Returns their ids."""
        with self._lock:
            for lease in leases:
                held = self._leases.get(lease.task.id)
                if held is not None and held.receipt == lease.receipt:
                    self._lost[lease.task.id] = lease.receipt
            return [lease.task.id for lease in leases if lease.task.id in self._lost]

    @property
    def any_lost(self) -> bool:
        return bool(self._lost)

    def lost(self, task_ids: Iterable[str]) -> Collection[str]:
        """Which of these were lost."""
        return {task_id for task_id in task_ids if task_id in self._lost} if self._lost else ()

    def drop(self, task_ids: Iterable[str]) -> list[str]:
        """Let go of what was lost; returns those that were lent to us again meanwhile, which stay."""
        again = []
        with self._lock:
            for task_id in task_ids:
                held = self._leases.get(task_id)
                if held is not None and self._lost.get(task_id) != held.receipt:
                    again.append(task_id)
                else:
                    self.release([task_id])
        return again

    def all(self) -> list[Lease]:
        return list(self._leases.values())

    def still(self, leases: Collection[Lease]) -> list[Lease]:
        """What is still held of these, each in its newest loan."""
        held = [self._leases.get(lease.task.id) for lease in leases]
        return [lease for lease in held if lease is not None]

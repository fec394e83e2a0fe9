"""Every lease the agent answers for, from receive to ack: in stock, running, or waiting to be stored."""

from collections.abc import Iterable, Sequence

from htcgrid.spi import Lease, Result


class Holdings:
    """Leases by task id. Any thread may call anything."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._lost: set[str] = set()

    def __len__(self) -> int:
        return len(self._leases)

    def add(self, leases: Sequence[Lease]) -> list[Lease]:
        """Take these in; returns those that are new.

        A task that is here already was delivered twice. It runs once; its newer receipt is kept, since
        that is the one a queue goes by.
        """
        held = self._leases
        new = []
        for lease in leases:
            if lease.task.id not in held:
                new.append(lease)
            held[lease.task.id] = lease
        return new

    def release(self, task_ids: Iterable[str]) -> list[Lease]:
        """Let go of these; returns the leases of those that were still ours."""
        taken = [lease for lease in (self._leases.pop(task_id, None) for task_id in task_ids) if lease is not None]
        self._lost.difference_update(lease.task.id for lease in taken)
        return taken

    def lose(self, task_ids: Iterable[str]) -> None:
        """These are ours no more; what comes of them is not to be stored."""
        self._lost.update(task_id for task_id in task_ids if task_id in self._leases)

    def keep_ours(self, results: Sequence[Result]) -> Sequence[Result]:
        """The results of tasks that are still ours; the others are let go."""
        if not self._lost:
            return results
        lost = {result.task.id for result in results if result.task.id in self._lost}
        self.release(lost)
        return [result for result in results if result.task.id not in lost]

    def all(self) -> list[Lease]:
        return list(self._leases.values())

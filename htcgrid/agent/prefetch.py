"""How many tasks to have waiting, and to hand over together, by how long tasks take."""

from htcgrid.agent.policy import batch_size, prefetch_size


class Prefetch:
    """The mean time of a task, learnt by all slots together; recent tasks weigh more."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.mean_seconds: float | None = None
        self.batch = 1
        """How many tasks a slot hands over together."""

    def learn(self, busy_seconds: float, tasks: int, most: int) -> None:
        """So many tasks took so long together; the plane takes `most` at once."""
        mean = busy_seconds / tasks
        old = self.mean_seconds
        self.mean_seconds = mean if old is None else old + (mean - old) * 0.3
        self.batch = batch_size(self.batch, self.mean_seconds, most)

    def size(self) -> int:
        """How many tasks to have waiting for a slot."""
        return prefetch_size(self._slots, self.mean_seconds, self.batch)

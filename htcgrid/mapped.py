"""The tasks of one `Grid.map`: which were submitted, and which have no outcome yet, in a byte for each."""

import json
from collections.abc import Iterable, Iterator, Mapping

from htcgrid.spi import Outcome, Task

BATCH = 1000
"""Tasks submitted or asked for at once."""
BATCH_BYTES = 8 << 20
WINDOW = 50_000
"""How many tasks an embedded agent is given ahead of the answers that were read."""
WINDOW_BYTES = 32 << 20
EARLY_BYTES = 64 << 20
"""How many bytes of answers that came before their turn are kept, before no more tasks are submitted."""
_OUTCOME_BYTES = 600
"""About how much memory an outcome takes beside its payload."""


class MappedTasks:
    """Numbers from 1 in the order of the events; task ids are the session's with the number."""

    def __init__(self, session: str, events: Iterable[object], attributes: Mapping[str, str] | None = None) -> None:
        self.session = session
        self._attributes = {"session_id": session, **(attributes or {})}
        self._events = iter(events)
        self._has_outcome = bytearray()
        self._at = 0
        self._bytes = 0
        self.is_complete = False
        """Whether all events were taken."""
        self.waiting = 0
        """How many tasks have no outcome yet."""
        self.read = 0
        """How many outcomes were read."""
        self.early_bytes = 0
        """Bytes of the outcomes that wait for their turn."""

    def __len__(self) -> int:
        return len(self._has_outcome)

    def next_batch(self) -> list[Task]:
        """The next tasks to submit; none where there are no more events."""
        tasks: list[Task] = []
        size = 0
        while len(tasks) < BATCH and size < BATCH_BYTES and not self.is_complete:
            try:
                event = next(self._events)
            except StopIteration:
                self.is_complete = True
                break
            payload = json.dumps(event).encode()
            size += len(payload)
            tasks.append(Task(self._id(len(self) + len(tasks)), payload, self._attributes))
        self._has_outcome.extend(bytes(len(tasks)))
        self._bytes += size
        self.waiting += len(tasks)
        return tasks

    def has_window(self) -> bool:
        """Whether an embedded agent is to be given more."""
        ahead = len(self) - self.read
        size = self._bytes / max(1, len(self)) * ahead
        return not self.is_complete and ahead < WINDOW and size < WINDOW_BYTES and self.early_bytes < EARLY_BYTES

    def settle(self, task_id: str) -> bool:
        """Note that this has an outcome; says whether it was awaited."""
        index = self._index(task_id)
        if not 0 <= index < len(self) or self._has_outcome[index]:
            return False
        self._has_outcome[index] = 1
        self.waiting -= 1
        return True

    def some_waiting(self) -> list[str]:
        """Ids of some that have no outcome yet; the same ones again until `turn_over`."""
        found: list[str] = []
        at = self._at
        while len(found) < BATCH and (at := self._has_outcome.find(0, at)) >= 0:
            found.append(self._id(at))
            at += 1
        if not found and self._at:
            self._at = 0
            return self.some_waiting()
        return found

    def turn_over(self, task_ids: list[str]) -> None:
        """Continue after these in the next `some_waiting`, so that every task is asked for in turn."""
        self._at = self._index(task_ids[-1]) + 1 if task_ids else 0

    def in_order(self, coming: Iterator[Outcome]) -> Iterator[Outcome]:
        """These outcomes in the order of the events."""
        early: dict[int, Outcome] = {}
        turn = 0
        for outcome in coming:
            early[self._index(outcome.task_id)] = outcome
            self.early_bytes += len(outcome.payload) + _OUTCOME_BYTES
            while (due := early.pop(turn, None)) is not None:
                self.early_bytes -= len(due.payload) + _OUTCOME_BYTES
                turn += 1
                yield due

    def _id(self, index: int) -> str:
        return f"{self.session}_{index + 1}"

    def _index(self, task_id: str) -> int:
        session, _, number = task_id.rpartition("_")
        return int(number) - 1 if session == self.session and number.isdecimal() else -1

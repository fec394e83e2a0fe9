"""Remembers a number for each id that was seen, in a few bytes for each."""

import threading
from array import array
from collections.abc import Iterable
from hashlib import blake2b

_PLAIN_IDS_BELOW = 1 << 24
_EMPTY = 0


class Ids:
    """The ids of many tasks, converted once for several calls."""

    def __init__(self, task_ids: list[str]) -> None:
        self.task_ids = task_ids
        self.indices = _plain_indices(task_ids)
        """The ids as indices if all are plain; otherwise None."""


class IdTable:
    """A dict from task id to a number of 1 to 2**32 - 1, without the ids.

    Plain decimal ids, such as line numbers, index an array: 4 bytes each. A 128-bit hash of any other id is stored
    in an open-addressed table: 20 bytes for each place, at most half of them in use. The chance that two of a billion ids
    have the same hash is 1 in 10**21. One thread may look up while another sets.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held while the table grows: a look-up at that moment would find the number of another id."""
        self._plain = array("I")
        self._count = 0
        self._make_room(1 << 10)

    def __setitem__(self, task_id: str, number: int) -> None:
        with self._lock:
            self._set(task_id, number)

    def update(self, ids: Ids, numbers: Iterable[int]) -> None:
        """Set the numbers of many ids."""
        with self._lock:
            if ids.indices is None:
                for task_id, number in zip(ids.task_ids, numbers, strict=True):
                    self._set(task_id, number)
            elif ids.indices:
                self._reach(max(ids.indices))
                plain = self._plain
                for index, number in zip(ids.indices, numbers, strict=True):
                    plain[index] = number

    def get_all(self, ids: Ids) -> list[int | None]:
        """The number of each of these ids, in order."""
        with self._lock:
            if ids.indices is None:
                return [self._get(task_id) for task_id in ids.task_ids]
            plain, size = self._plain, len(self._plain)
            return [plain[index] or None if index < size else None for index in ids.indices]

    def get(self, task_id: str) -> int | None:
        """The number of this id; None if the id was not seen."""
        with self._lock:
            return self._get(task_id)

    def _set(self, task_id: str, number: int) -> None:
        if (index := _plain_index(task_id)) is not None:
            self._reach(index)
            self._plain[index] = number
            return
        if self._count * 2 >= len(self._numbers):
            self._grow()
        self._put(*_hash(task_id), number)

    def _get(self, task_id: str) -> int | None:
        if (index := _plain_index(task_id)) is not None:
            return (self._plain[index] or None) if index < len(self._plain) else None
        return self._numbers[self._find(*_hash(task_id))] or None

    def _reach(self, index: int) -> None:
        """Make the array long enough for this index."""
        missing = index + 1 - len(self._plain)
        if missing > 0:
            self._plain.frombytes(bytes(4 * max(missing, len(self._plain) >> 3)))

    def _put(self, high: int, low: int, number: int) -> None:
        at = self._find(high, low)
        if self._numbers[at] == _EMPTY:
            self._count += 1
            self._highs[at], self._lows[at] = high, low
        self._numbers[at] = number

    def _find(self, high: int, low: int) -> int:
        """The place of this hash, or the free place for it."""
        highs, lows, numbers = self._highs, self._lows, self._numbers
        mask = len(numbers) - 1
        at = low & mask
        while numbers[at] != _EMPTY and not (lows[at] == low and highs[at] == high):
            at = (at + 1) & mask
        return at

    def _make_room(self, size: int) -> None:
        self._highs, self._lows = array("Q", bytes(8 * size)), array("Q", bytes(8 * size))
        self._numbers = array("I", bytes(4 * size))

    def _grow(self) -> None:
        old = zip(self._highs, self._lows, self._numbers, strict=True)
        self._count = 0
        self._make_room(2 * len(self._numbers))
        for high, low, number in old:
            if number != _EMPTY:
                self._put(high, low, number)


def _plain_indices(task_ids: list[str]) -> list[int] | None:
    """The ids as indices, if all are plain. Line numbers, the common case, cost little time."""
    try:
        indices = list(map(int, task_ids))
    except ValueError:
        return None
    # An id is plain only if Python writes the number like this: not "007", not " 7".
    if indices and min(indices) >= 0 and max(indices) < _PLAIN_IDS_BELOW and list(map(str, indices)) == task_ids:
        return indices
    return None


def _plain_index(task_id: str) -> int | None:
    if len(task_id) < 9 and task_id.isascii() and task_id.isdigit() and (task_id[0] != "0" or task_id == "0"):
        index = int(task_id)
        return index if index < _PLAIN_IDS_BELOW else None
    return None


def _hash(task_id: str) -> tuple[int, int]:
    digest = blake2b(task_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")

"""Records of runs as items of a table that is keyed by `task_id`, for `ResultSink.add_run` and `runs`."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from htcgrid_aws.dynamodb_table import KEY, READ_BATCH, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

_RUN_BITS = 20


class RunItems:
    """One item for each run. Their keys are numbers without gaps: without known keys, the whole table would have to be read."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def add(self, document: bytes) -> None:
        """Add a run with the first free number; agents that end at the same time get different numbers."""
        number = self._last() + 1
        while not self._table.write_new({KEY: {"S": _key(number)}, "run": {"S": document.decode()}}):
            number += 1

    def all(self) -> Iterator[bytes]:
        """The documents of all runs, by number."""
        for first in itertools.count(1, READ_BATCH):
            keys = [_key(number) for number in range(first, first + READ_BATCH)]
            found = {item[KEY]["S"]: item for item in self._table.read(keys, consistent=True)}
            yield from (found[key]["run"]["S"].encode() for key in keys if key in found)
            if len(found) < READ_BATCH:
                return

    def _last(self) -> int:
        """The number of the last run. As there are no gaps, it tests numbers that are powers of two further, again and again."""
        last = 0
        while True:
            keys = {_key(last + (1 << bit)): last + (1 << bit) for bit in range(_RUN_BITS)}
            found = [keys[item[KEY]["S"]] for item in self._table.read(list(keys), only=KEY, consistent=True)]
            if not found:
                return last
            last = max(found)


def _key(number: int) -> str:
    return f".htcgrid-run/{number}"

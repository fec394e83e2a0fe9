"""The errors that cross the plugin interface.

HtcgridError
├── Unavailable    not now: unreachable, starting, out of capacity
│   └── Throttled  not so many at once
└── Rejected       never: no such queue, no permission, too large, wrong address
"""

from collections.abc import Collection


class HtcgridError(Exception):
    """Every error that htcgrid raises on purpose. Its text says what, where, and what to do."""


class Unavailable(HtcgridError):
    """Not now; the same call may succeed later. Not counted as an attempt of the task.

    `retry_after` is the wait in seconds that the service asked for, if it did. `begun` names the tasks
    of the batch that may have run all the same, such as those whose answer was lost with a connection:
    their attempt counts.
    """

    def __init__(self, message: str, retry_after: float | None = None, begun: Collection[str] = ()) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.begun = frozenset(begun)


class Throttled(Unavailable):
    """Too many calls at once, or in a second. Where `invoke` raises it, the agent makes fewer at a time, then slowly more.

    A task that was throttled has not begun, however often that happens.
    """


class Rejected(HtcgridError):
    """Never; the same call cannot succeed.

    Where only a part of a batch is wrong, `task_ids` names that part, and the rest of the batch is done:
    a sink that raises `Rejected` for one result that is too large has stored the others.
    """

    def __init__(self, message: str, task_ids: Collection[str] = ()) -> None:
        super().__init__(message)
        self.task_ids = frozenset(task_ids)

"""What a plugin reports about itself on request: how much it holds, and what it has cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from htcgrid.spi.values import Task


@dataclass(frozen=True, slots=True)
class States:
    """How many tasks are in each state; a task is in one. None: not known, whatever is in the queue; an empty one has 0."""

    waiting: int | None = None
    """Can be handed out now."""
    delayed: int | None = None
    """Returned, to be handed out later. None also where these are counted among `waiting`."""
    leased: int | None = None
    cancelled: int | None = None
    """Cancelled and not forgotten yet."""
    dead: int | None = None
    """Dead letters."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An agent on a queue: how many tasks it has leased, and how long ago it last called the queue."""

    leased: int
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A source at one time. `sessions` are in the order of submission; `""` holds tasks without one.

    `oldest_seconds` is the age of the oldest task that is waiting or delayed, None where there is none or it is not
    known. `agents` are by name, None where the queue cannot tell. `note` says what it cannot tell, and where that is
    found.
    """

    states: States = field(default_factory=States)
    sessions: Mapping[str, States] = field(default_factory=dict)
    oldest_seconds: float | None = None
    agents: Mapping[str, Holder] | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What a sink holds at one time. None: not known. `note` is as in `QueueStats`.

    `failures` are by kind, and among `stored`. `per_second` is how many were stored lately, over a minute at most.
    """

    stored: int | None = None
    failures: Mapping[str, int] | None = None
    per_second: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used of a paid service since the plugin was made.

    `requests` are by `service` or `service.Operation`; `dollars` is their list price, None where it is not known;
    `basis` says which price list: date and region. `shown` are further names and values for the summary of a run.
    """

    requests: Mapping[str, int] = field(default_factory=dict)
    dollars: float | None = None
    basis: str = ""
    shown: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeadTask:
    """A dead letter: how often the task was handed out, and why it is no longer handed out."""

    task: Task
    attempt: int
    reason: str

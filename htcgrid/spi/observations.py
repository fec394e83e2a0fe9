"""What observers are told: one observation for each call of the agent to a plugin, not for each task.

An observation refers to the leases and results that the agent has at hand, so that nothing is copied. An observer that
keeps an observation keeps their payloads in memory. `time` is when it was made, in Unix seconds. New kinds are added
without a new version of the interface, so an observer must ignore kinds that it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from htcgrid.spi.quick_init import quick_init
from htcgrid.spi.values import Lease, Outcome, Result, Task

if TYPE_CHECKING:
    from htcgrid.spi.observer import AgentFigures


@quick_init
@dataclass(frozen=True, slots=True)
class Observation:
    """Something that happened at `time`."""

    time: float

    def size(self) -> tuple[int, int]:
        """How many tasks this is about, and how many bytes of events and answers it keeps, without those counted before."""
        return 1, 0


@quick_init
@dataclass(frozen=True, slots=True)
class Sent(Observation):
    """These tasks of a session were put into the queue, in a call that took `seconds`. The last of a session has `is_last`,
    and may have no tasks."""

    session: str
    tasks: Sequence[Task]
    seconds: float
    is_last: bool = False

    def size(self) -> tuple[int, int]:
        return len(self.tasks), sum([len(task.payload) for task in self.tasks])


@quick_init
@dataclass(frozen=True, slots=True)
class OfLeases(Observation):
    """Something that happened to these leases; only its subclasses are used."""

    leases: Sequence[Lease]

    def size(self) -> tuple[int, int]:
        return len(self.leases), 0  # `Received` has counted them


@quick_init
@dataclass(frozen=True, slots=True)
class Received(OfLeases):
    """The source has handed out these leases, in a call that took `seconds`, its wait for tasks included."""

    seconds: float

    def size(self) -> tuple[int, int]:
        return len(self.leases), sum([len(lease.task.payload) for lease in self.leases])


@quick_init
@dataclass(frozen=True, slots=True)
class AlreadyStored(OfLeases):
    """The tasks of these leases have a result from an earlier run; they are acked and do not run."""


@quick_init
@dataclass(frozen=True, slots=True)
class Started(OfLeases):
    """These leases were handed to the plane, in one call. `slot` is the number of the agent's thread that made it."""

    slot: int


@quick_init
@dataclass(frozen=True, slots=True)
class Ended(OfLeases):
    """The call of a `Started` has ended, after `seconds`. `leases` is the same object as in that `Started`."""

    slot: int
    seconds: float


@quick_init
@dataclass(frozen=True, slots=True)
class Stored(Observation):
    """The sink has these final results; its `put` took `seconds`."""

    results: Sequence[Result]
    seconds: float

    def size(self) -> tuple[int, int]:
        outcomes = [result.outcome for result in self.results]
        return len(outcomes), sum([len(each.payload) + len(each.log_tail) for each in outcomes])


@quick_init
@dataclass(frozen=True, slots=True)
class Answered(Observation):
    """A synchronous call of `htcgrid serve` has this result, `seconds` after it was received. It is not a task of an agent."""

    result: Result
    seconds: float

    def size(self) -> tuple[int, int]:
        return 1, len(self.result.task.payload) + len(self.result.outcome.payload)


@quick_init
@dataclass(frozen=True, slots=True)
class Retried(OfLeases):
    """An attempt at the task of this one lease has failed, and its task runs again after `delay` seconds.

    `outcome` is that of the attempt; None where the plane became unavailable while the task ran.
    """

    outcome: Outcome | None
    delay: float


@quick_init
@dataclass(frozen=True, slots=True)
class Acked(OfLeases):
    """These leases were acked: their tasks are done and never handed out again."""


@quick_init
@dataclass(frozen=True, slots=True)
class DeadLettered(OfLeases):
    """The source now has these tasks among its dead letters, with this reason; their results were stored before."""

    reason: str


@quick_init
@dataclass(frozen=True, slots=True)
class Returned(OfLeases):
    """These leases were returned to the source, which hands their tasks out again after `delay` seconds: retries, and tasks that
    were not finished."""

    delay: float


@quick_init
@dataclass(frozen=True, slots=True)
class Extended(OfLeases):
    """These leases were extended: they last `seconds` from now."""

    seconds: float


@quick_init
@dataclass(frozen=True, slots=True)
class Lost(OfLeases):
    """These leases were lost to another agent, or their tasks were cancelled; no result of them is stored."""


@quick_init
@dataclass(frozen=True, slots=True)
class EnvironmentStarted(Observation):
    """The plane starts an execution environment; `environment` is the name that outcomes have in `Outcome.environment`."""

    environment: str


@quick_init
@dataclass(frozen=True, slots=True)
class EnvironmentEnded(Observation):
    """This execution environment has ended, or was stopped."""

    environment: str


@quick_init
@dataclass(frozen=True, slots=True)
class PluginUnavailable(Observation):
    """A call to a plugin raised `Unavailable`; it is repeated in `delay` seconds. `part` is "source", "plane" or "sink"."""

    part: str
    message: str
    delay: float


@quick_init
@dataclass(frozen=True, slots=True)
class PluginAvailable(Observation):
    """A plugin that was unavailable for `seconds` answers again. `part` is "source", "plane" or "sink".

    Each thread of the agent reports its own calls: where several slots found the plane unavailable, each slot that calls it
    again reports this.
    """

    part: str
    seconds: float


@quick_init
@dataclass(frozen=True, slots=True)
class AgentStarted(Observation):
    """An agent begins, with so many slots, which may change. `figures` can be asked until its `AgentEnded`, from any thread.

    `htcgrid serve` has several agents, one a function.
    """

    slots: int
    figures: AgentFigures


@quick_init
@dataclass(frozen=True, slots=True)
class AgentEnded(Observation):
    """This agent has ended; everything that happened to its tasks was told before."""

    figures: AgentFigures
